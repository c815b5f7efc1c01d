//! Matching: a method and a path to a row of a dialect's table.
//!
//! Paths are matched by `matchit`. An action after a colon (`/sessions/{id}:start`, the colon literal or `%3A`) is split off first, because ids never hold one.

use std::collections::HashMap;

use hyper::Method;
use portcullis_core::OperationKind;

use crate::asked::{Answer, Asked};
use crate::dialect::{self, Problem};
use crate::exchange::{Incoming, Reply};

/// A row of a dialect's table.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// The path's pattern in `matchit`'s form.
    pub(crate) path: &'static str,
    /// The action after the colon; empty if there is none.
    pub(crate) action: &'static str,
    /// The operation, which says what the caller must be capable of.
    pub(crate) operation: OperationKind,
    /// How the body is bounded.
    pub(crate) body: BodyBound,
    pub(crate) decode: fn(&Incoming) -> Result<Asked, Problem>,
    pub(crate) encode: fn(&EncodeContext<'_>, Answer) -> Reply,
}

/// How a route's body is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyBound {
    Json,
    Component,
}

/// What encoding needs besides the answer.
pub(crate) struct EncodeContext<'a> {
    pub(crate) gateway_id: &'a str,
    /// Whether the engine is simulated, which everybody who looks at a session is told.
    pub(crate) simulated: bool,
}

/// A route, for whoever lists them: documentation and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method.
    pub method: String,
    /// The path, with its action.
    pub path: String,
    /// The operation.
    pub operation: OperationKind,
}

/// Every route of every dialect.
#[must_use]
pub fn route_table() -> Vec<RouteInfo> {
    let info = |route: &Route| RouteInfo {
        method: route.method.to_string(),
        path: full_path(route),
        operation: route.operation,
    };
    dialect::router::routes().iter().map(info).collect()
}

fn full_path(route: &Route) -> String {
    if route.action.is_empty() { route.path.to_owned() } else { format!("{}:{}", route.path, route.action) }
}

/// All routes, ready to be matched.
pub(crate) struct Routes {
    paths: matchit::Router<HashMap<&'static str, Vec<Route>>>,
}

/// What matching found.
pub(crate) enum Matched<'r> {
    Route {
        route: &'r Route,
        params: Vec<(&'static str, String)>,
    },
    /// The path is there, but not with this method.
    WrongMethod {
        allowed: Vec<&'r Method>,
    },
    Nothing,
}

impl Routes {
    pub(crate) fn new() -> Self {
        let mut by_path: HashMap<&'static str, HashMap<&'static str, Vec<Route>>> = HashMap::new();
        for route in dialect::router::routes() {
            by_path.entry(route.path).or_default().entry(route.action).or_default().push(route);
        }
        let mut paths = matchit::Router::new();
        for (path, actions) in by_path {
            paths.insert(path, actions).expect("the tables of the dialects do not contradict each other");
        }
        Self { paths }
    }

    /// Finds the route of a request. `path` is as it came, still percent-encoded.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Matched<'_> {
        let (path, action) = split_action(path);
        let Ok(found) = self.paths.at(path) else { return Matched::Nothing };
        let Some(routes) = found.value.get(action.as_str()) else { return Matched::Nothing };
        let Some(route) = routes.iter().find(|route| route.method == *method) else {
            return Matched::WrongMethod { allowed: routes.iter().map(|route| &route.method).collect() };
        };
        let params = found
            .params
            .iter()
            .filter_map(|(name, value)| {
                let name = PARAMS.iter().copied().find(|known| *known == name)?;
                Some((name, percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()))
            })
            .collect();
        Matched::Route { route, params }
    }
}

/// The names of path parameters in the tables.
const PARAMS: [&str; 2] = ["id", "key"];

/// Splits the action off the last segment.
fn split_action(path: &str) -> (&str, String) {
    let last = path.rfind('/').map_or(0, |slash| slash + 1);
    let segment = &path[last..];
    let colon = segment.find(':').map(|at| (at, 1));
    let encoded = || segment.find("%3A").or_else(|| segment.find("%3a")).map(|at| (at, 3));
    match colon.or_else(encoded) {
        Some((at, width)) => (&path[..last + at], segment[at + width..].to_owned()),
        None => (path, String::new()),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn actions_are_split_off_the_last_segment() {
        for (path, expected) in [
            ("/a/b", ("/a/b", "")),
            ("/a/b:start", ("/a/b", "start")),
            ("/a/b%3Astart", ("/a/b", "start")),
            ("/a/b%3astart", ("/a/b", "start")),
            ("/a:x/b", ("/a:x/b", "")),
        ] {
            let (rest, action) = split_action(path);
            assert_eq!((rest, action.as_str()), expected);
        }
    }

    #[test]
    fn every_parameter_of_a_pattern_is_known() {
        for route in dialect::router::routes() {
            for name in route.path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                assert!(PARAMS.contains(&name), "{} has the unknown parameter {name}", route.path);
            }
        }
    }

    #[test]
    fn no_two_routes_are_the_same() {
        let mut seen = std::collections::HashSet::new();
        for route in route_table() {
            assert!(seen.insert((route.method.clone(), route.path.clone())), "{} {} twice", route.method, route.path);
        }
    }
}
