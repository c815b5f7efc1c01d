//! Matching: a method and a path to a row of a dialect's table.
//!
//! Paths are matched by `matchit`. An action after a colon (`/sessions/{id}:start`, the colon literal or `%3A`) is split off first, because ids never hold one.

use std::collections::HashMap;

use hyper::Method;
use portcullis_core::{OperationKind, Session, Timestamp};

use crate::asked::{Answer, Asked};
use crate::dialect::{Dialect, Fault, Problem, Refuse};
use crate::exchange::{Incoming, Reply};

/// A row of a dialect's table.
pub(crate) struct Route {
    pub(crate) dialect: Dialect,
    pub(crate) method: Method,
    /// The path's pattern in `matchit`'s form.
    pub(crate) path: &'static str,
    /// The action after the colon; empty if there is none.
    pub(crate) action: &'static str,
    /// The operation, which says what the caller must be capable of.
    pub(crate) operation: OperationKind,
    /// How the body is bounded.
    pub(crate) body: BodyBound,
    /// How the request names the session that it means.
    pub(crate) session: SessionBy,
    /// Whether only organisations with an active plan may ask.
    pub(crate) paid: bool,
    pub(crate) decode: Decode,
    pub(crate) encode: Encode,
    pub(crate) refuse: Refuse,
}

pub(crate) type Decode = fn(&Incoming) -> Result<Asked, Problem>;
pub(crate) type Encode = fn(&EncodeContext<'_>, Answer) -> Reply;

/// How a request names the session that it means. All but ids are looked up before decoding, which then finds [`Incoming::session`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionBy {
    /// By its id, which decoding reads; or it means none.
    Id,
    /// By its 12-character instance id; the function finds it in the request. An error says what is wrong.
    InstanceId(fn(&Incoming) -> Result<String, Fault>),
    /// By its name within the organisation, the path parameter `instance`.
    InstanceName,
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
    /// Where clients reach the gateway, without a slash at the end.
    pub(crate) public_url: &'a str,
    pub(crate) now: Timestamp,
    /// The session's name as the request gave it, in dialects that name sessions.
    pub(crate) session: &'a str,
    /// That session as it was when the request came.
    pub(crate) found: Option<&'a Session>,
    /// The request, for dialects whose answers repeat what was asked.
    pub(crate) request: &'a Incoming,
    /// Whether that session's organisation has an active plan.
    pub(crate) plan_active: bool,
    /// Whether the caller may see credentials, such as a QR code.
    pub(crate) may_manage: bool,
}

/// A route, for whoever lists them: documentation and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Whose table it is in.
    pub dialect: Dialect,
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
        dialect: route.dialect,
        method: route.method.to_string(),
        path: full_path(route),
        operation: route.operation,
    };
    Dialect::ALL.into_iter().flat_map(Dialect::routes).map(|route| info(&route)).collect()
}

fn full_path(route: &Route) -> String {
    if route.action.is_empty() { route.path.to_owned() } else { format!("{}:{}", route.path, route.action) }
}

/// All routes, ready to be matched.
pub(crate) struct Routes {
    /// Every row, in the order of the dialects' tables.
    rows: Vec<Route>,
    paths: matchit::Router<HashMap<&'static str, Vec<usize>>>,
}

/// What matching found.
pub(crate) enum Matched {
    Route {
        /// Its place in [`Routes::rows`].
        route: usize,
        params: Vec<(&'static str, String)>,
    },
    /// The path is there, but not with this method.
    WrongMethod {
        dialect: Dialect,
        allowed: String,
    },
    Nothing,
}

impl Routes {
    pub(crate) fn new() -> Self {
        let mut by_path: HashMap<&'static str, HashMap<&'static str, Vec<usize>>> = HashMap::new();
        let rows: Vec<Route> = Dialect::ALL.into_iter().flat_map(Dialect::routes).collect();
        for (index, route) in rows.iter().enumerate() {
            by_path.entry(route.path).or_default().entry(route.action).or_default().push(index);
        }
        let mut paths = matchit::Router::new();
        for (path, actions) in by_path {
            paths.insert(path, actions).expect("the tables of the dialects do not contradict each other");
        }
        Self { rows, paths }
    }

    /// Finds the route of a request. `path` is as it came, still percent-encoded.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Matched {
        let whole = path;
        let (path, action) = split_action(whole);
        let acted = self.paths.at(path).ok().and_then(|found| Some((found.value.get(action.as_str())?, found.params)));
        // A name that a caller chose may hold a colon, which then is no action's.
        let Some((routes, params)) = acted.or_else(|| self.named(whole)) else { return Matched::Nothing };
        let Some(route) = routes.iter().copied().find(|index| self.rows[*index].method == *method) else {
            let allowed: Vec<_> = routes.iter().map(|index| self.rows[*index].method.as_str()).collect();
            let dialect = routes.first().map_or(Dialect::Router, |index| self.rows[*index].dialect);
            return Matched::WrongMethod { dialect, allowed: allowed.join(", ") };
        };
        let params = params
            .iter()
            .filter_map(|(name, value)| {
                let name = PARAMS.iter().copied().find(|known| *known == name)?;
                Some((name, percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()))
            })
            .collect();
        Matched::Route { route, params }
    }

    /// The row at a place that [`Routes::find`] has answered.
    pub(crate) fn row(&self, place: usize) -> &Route {
        &self.rows[place]
    }

    /// The routes of a path that ends in the name of a session.
    fn named<'a, 'p>(&'a self, path: &'p str) -> Option<(&'a Vec<usize>, matchit::Params<'a, 'p>)> {
        let found = self.paths.at(path).ok()?;
        let routes = found.value.get("")?;
        let by_name = routes.iter().any(|index| matches!(self.rows[*index].session, SessionBy::InstanceName));
        by_name.then_some((routes, found.params))
    }
}

/// The names of path parameters in the tables.
const PARAMS: [&str; 6] = ["delivery", "id", "instance", "key", "message", "name"];

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
        for route in Dialect::ALL.into_iter().flat_map(Dialect::routes) {
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
