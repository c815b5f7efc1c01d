//! Requests of plugins: what of them can be told beforehand, how they come into the outbox, and what became of them.
//!
//! A request is queued in the commit of what its plugin was called for, and belongs to the plugin's line from then on; see `deliveries`.

use std::sync::Arc;

use portcullis_core::{
    Delivered, Delivery, DeliveryKey, DeliveryRecord, DeliveryState, Line, OperationKind, OutboxPlace, Permit,
    PluginId, PluginRequest, RequestFlaw, SessionId, Timestamp,
};
use portcullis_net::{HeaderName, HeaderValue, Outbound, check_header};
use portcullis_policy::{Link, QueuedRequest};
use portcullis_store::{Commit, DeliveryChange, DeliveryFilter, DeliveryPlace, PLUGIN_REQUESTS_MAX};

use crate::queries::expect;
use crate::{Page, Service, ServiceError};

/// The header by which a receiver knows a request again that comes twice.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that says whose request it is.
pub(crate) const PLUGIN: &str = "portcullis-plugin";

/// A page of a plugin's requests.
#[derive(Debug, Clone, Copy)]
pub struct RequestQuery {
    /// Which of them.
    pub filter: DeliveryFilter,
    /// The place before which the page begins.
    pub before: Option<u64>,
    /// How many it has at most.
    pub limit: usize,
}

/// The host to which a request would go, if it is written as it must be and the operator lets requests go there.
///
/// # Errors
/// If it is not, or the operator does not.
pub fn check_request(outbound: &Outbound, request: &PluginRequest) -> Result<String, RequestFlaw> {
    let refused = |why: String| RequestFlaw::Refused(why);
    let host = outbound.host_of(&request.url).map_err(|error| refused(error.to_string()))?;
    let values = request.headers.iter().map(|(name, value)| (name, Some(value)));
    for (name, value) in values.chain(request.secret_headers.iter().map(|(name, _)| (name, None))) {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_no_name| refused(format!("{:.64} is no name of a header", name.escape_debug().to_string())))?;
        if check_header(&parsed).is_err() || parsed == IDEMPOTENCY_KEY || parsed.as_str().starts_with("portcullis-") {
            return Err(refused(format!("the header {parsed} is the gateway's own")));
        }
        if value.is_some_and(|value| HeaderValue::from_str(value).is_err()) {
            return Err(refused(format!("the value of {parsed} must consist of visible ASCII characters and spaces")));
        }
    }
    Ok(host)
}

/// Adds what a plugin has queued to the commit of what it was called for.
pub(crate) fn queue(commit: &mut Commit, link: &Link, about: Option<SessionId>, queued: Vec<QueuedRequest>) {
    let now = commit.now;
    commit.deliveries.extend(queued.into_iter().map(|QueuedRequest { id, request }| DeliveryChange::Queue {
        line: Line::Plugin(link.binding.plugin),
        at: DeliveryPlace::Next,
        part: 0,
        delivery: Arc::new(Delivery {
            id,
            session: about,
            state: DeliveryState::Waiting { due: now },
            at: now,
            changed_at: now,
            record: DeliveryRecord::new(Delivered::Request(Box::new(request))),
        }),
    }));
}

impl Service {
    /// What a plugin of the organisation's own has sent and is to send, newest first.
    ///
    /// # Errors
    /// If there is no such plugin, or the store cannot be read.
    pub fn plugin_requests(
        &self,
        permit: &Permit,
        plugin: PluginId,
        query: RequestQuery,
    ) -> Result<Page<(OutboxPlace, Delivery)>, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        self.own_plugin(permit, plugin)?;
        let (org, line) = (permit.target().org, Line::Plugin(plugin));
        let (snapshot, limit) = (self.store.snapshot()?, query.limit + 1);
        let listed: Vec<(DeliveryKey, Delivery)> = match query.filter {
            DeliveryFilter::Waiting => {
                // What waits lies in the order in which it is due; there is never much of it.
                let mut waiting = snapshot.deliveries_due(org, line, Timestamp::MAX, 2 * PLUGIN_REQUESTS_MAX)?;
                waiting.retain(|of| query.before.is_none_or(|before| of.place.0 < before));
                waiting.sort_unstable_by_key(|of| std::cmp::Reverse(of.place));
                let mut listed = Vec::new();
                for of in waiting.into_iter().take(limit) {
                    listed.extend(snapshot.delivery(org, of)?.map(|delivery| (of, delivery)));
                }
                listed
            }
            filter => {
                let before = query.before.map(|before| (OutboxPlace(before), 0));
                snapshot.deliveries(org, line, filter, before, limit)?
            }
        };
        let entries = listed.into_iter().map(|(of, delivery)| (of.place, delivery)).collect();
        Ok(Page::cut(entries, query.limit))
    }
}
