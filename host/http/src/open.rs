//! What anybody may ask: probes, the welcome that one dialect has, and the description of the API.

use hyper::{Method, StatusCode};

use crate::Front;
use crate::dialect::{Dialect, Fault, evolution};
use crate::exchange::Reply;
use crate::openapi;

/// The answer to a request for an open path; none if the path is not one.
pub(crate) fn answer(front: &Front, method: &Method, path: &str) -> Option<Reply> {
    let reply: fn(&Front) -> Reply = match path {
        "/healthz" => |_| plain("ok"),
        "/readyz" => {
            |front| if front.service.is_ready() { plain("ready") } else { Dialect::Router.fault(&Fault::NotReady) }
        }
        openapi::PATH => |_| Reply::text(StatusCode::OK, openapi::MEDIA_TYPE, openapi::text()),
        "/" => |front| evolution::welcome(&front.config.gateway_id),
        _ => return None,
    };
    if matches!(*method, Method::GET | Method::HEAD) {
        return Some(reply(front));
    }
    let fault =
        Fault::WrongMethod { method: method.to_string(), target: path.to_owned(), allowed: "GET, HEAD".to_owned() };
    Some(Dialect::of_path(path).fault(&fault))
}

fn plain(text: &'static str) -> Reply {
    Reply::text(StatusCode::OK, "text/plain; charset=utf-8", text)
}
