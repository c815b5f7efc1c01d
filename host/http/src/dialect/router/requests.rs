//! What plugins have sent and are to send.

use hyper::StatusCode;
use portcullis_service::RequestQuery;

use super::deliveries::FILTERS;
use super::plugins::plugin_id;
use super::view::{self, RequestView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

pub(super) fn list(incoming: &Incoming) -> Result<Asked, Problem> {
    let word = incoming.query("status").filter(|word| !word.is_empty()).unwrap_or("all");
    let filter = FILTERS.into_iter().find_map(|(name, filter)| (name == word).then_some(filter));
    let filter = filter.ok_or_else(|| Problem::invalid("status must be all, waiting or dead"))?;
    let query = RequestQuery { filter, before: decode::cursor(incoming)?, limit: decode::limit(incoming) };
    Ok(Asked::PluginRequests { plugin: plugin_id(incoming)?, query })
}

pub(super) fn requests(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::PluginRequests(page) = answer else { return mismatch() };
    let last = page.entries.last().filter(|_| page.more);
    let next = last.map(|(place, _)| place.to_string());
    let shown = page.entries.iter().filter_map(|(_, delivery)| RequestView::of(delivery));
    Reply::json(StatusCode::OK, &view::list(shown, next))
}
