//! Tickets for the stream of events: made for a caller who is known, used once, by a browser that can send no header.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use portcullis_core::{Capability, Denial, OrgId, Permit, Principal, Timestamp};
use portcullis_service::ServiceError;

use crate::asked::StreamRequest;

/// How long a ticket can be used.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);
/// How many tickets an organisation has at once.
const AT_ONCE: usize = 100;

/// The tickets that nobody has used yet. They are not kept over a restart, which ends all streams anyway.
#[derive(Default)]
pub(crate) struct Tickets {
    open: Mutex<HashMap<String, Ticket>>,
}

/// What a ticket lets its bearer hear.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) org: OrgId,
    /// For whom it was made; the stream ends when they are no longer let in.
    pub(crate) principal: Principal,
    pub(crate) wanted: StreamRequest,
    expires_at: Timestamp,
}

impl Tickets {
    /// A new ticket's text: `rt_` and 256 random bits.
    pub(crate) fn issue(&self, permit: &Permit, wanted: StreamRequest, now: Timestamp) -> Result<String, ServiceError> {
        if wanted.firehose && !permit.principal().capabilities.allow(Capability::Operate) {
            return Err(Denial::Forbidden(Capability::Operate).into());
        }
        let org = permit.target().org;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, ticket| now < ticket.expires_at);
        if open.values().filter(|ticket| ticket.org == org).count() >= AT_ONCE {
            return Err(ServiceError::Busy { retry_after: Duration::from_secs(1) });
        }
        let random = [portcullis_service::random().to_be_bytes(), portcullis_service::random().to_be_bytes()].concat();
        let text = format!("rt_{}", BASE64_URL_SAFE_NO_PAD.encode(random));
        let principal = permit.principal().clone();
        open.insert(text.clone(), Ticket { org, principal, wanted, expires_at: now.after(LIFETIME) });
        Ok(text)
    }

    /// Takes a ticket out of the world, if it is one.
    pub(crate) fn redeem(&self, text: &str, now: Timestamp) -> Option<Ticket> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(text).filter(|ticket| now < ticket.expires_at)
    }
}
