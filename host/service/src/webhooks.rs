//! Webhooks: what changes of them come to, and who may look at them.

use std::time::Duration;

use portcullis_core::webhook::RetiredSecret;
use portcullis_core::{
    DomainEvent, EventFormat, OperationKind, Org, Permit, Proxy, Secret, Session, SessionId, Timestamp, Webhook,
    WebhookChange, WebhookId, WebhookSpec,
};
use portcullis_store::{DeliveryChange, Expectation, Progress, Quota, QuotaKind, Write};
use portcullis_webhook::CheckError;

use crate::queries::expect;
use crate::ruling::Case;
use crate::{Outcome, Service, ServiceError, mint};

/// Proxies listen where they like, so that of a proxy the address alone is judged, as if it were a web server's.
const ANY_PORT: u16 = 443;
/// The most webhooks that one session has in one format.
const MAX_PER_SESSION: usize = 20;

/// The longest time for which a secret that was replaced signs beside its successor.
pub const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Changes of webhooks and of their deliveries, and what they rest on.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) writes: Vec<Write>,
    /// What happens to deliveries. Places of events are those in `events`.
    pub(crate) deliveries: Vec<DeliveryChange>,
    pub(crate) events: Vec<DomainEvent>,
    pub(crate) expect: Vec<Expectation>,
    pub(crate) quota: Option<Quota>,
    /// The session at its next generation, if what is written rests on all of its webhooks:
    /// of two who replace them at the same time one has to look again.
    pub(crate) session: Option<Session>,
    /// What the caller is shown: those that were asked for, as they are then.
    pub(crate) shown: Vec<Webhook>,
    /// What the caller is shown instead.
    pub(crate) outcome: Option<Outcome>,
    /// The one webhook that it is about, for the audit.
    pub(crate) subject: Option<WebhookId>,
}

impl Rows {
    /// The webhooks whose receivers are to be tried at once, however they have fared.
    pub(crate) fn roused(&self) -> Vec<WebhookId> {
        let written = self.writes.iter().filter_map(|write| match write {
            Write::PutWebhook(webhook) => Some(webhook.id),
            _ => None,
        });
        written.chain(self.subject).collect()
    }
}

/// A webhook more.
pub(crate) fn create(
    session: Option<SessionId>,
    spec: &WebhookSpec,
    case: &Case,
    now: Timestamp,
) -> Result<Rows, ServiceError> {
    let mut made = make(session, spec, &case.org, now);
    if made.spec.format == EventFormat::Standard && made.spec.secret.is_none() {
        made.spec.secret = Some(mint::webhook_key());
    }
    check(&made)?;
    check_reach(&made.spec, case)?;
    Ok(Rows {
        writes: vec![Write::PutWebhook(made.clone())],
        expect: vec![Expectation::Webhook(made.id, None)],
        quota: quota(&case.org, 1, 0)?,
        subject: Some(made.id),
        shown: vec![made],
        ..Rows::default()
    })
}

/// The webhook, if it is one of those that the caller may see.
pub(crate) fn found(id: WebhookId, within: Option<SessionId>, case: &Case) -> Result<Webhook, ServiceError> {
    let found = case.snapshot.webhook(case.org.id, id)?;
    let seen = found.filter(|webhook| within.is_none() || webhook.session == within);
    seen.ok_or(ServiceError::NotFound("webhook"))
}

/// A webhook as it was changed. Who sees one session only cannot move it to another, nor have it hear of all.
pub(crate) fn update(
    id: WebhookId,
    within: Option<SessionId>,
    change: &WebhookChange,
    case: &Case,
    now: Timestamp,
) -> Result<Rows, ServiceError> {
    let current = found(id, within, case)?;
    let change = WebhookChange { session: change.session.or(within), ..change.clone() };
    if let Some(session) = change.session {
        let is_hidden = within.is_some_and(|own| own != session);
        if is_hidden || case.snapshot.session(case.org.id, session)?.is_none() {
            return Err(ServiceError::NotFound("session"));
        }
    }
    let next = change.apply(&current, now);
    check(&next)?;
    let is_elsewhere = next.spec.url != current.spec.url;
    // What is only turned off need not lead anywhere any more.
    if is_elsewhere || (next.is_told() && !current.is_told()) {
        check_reach(&next.spec, case)?;
    }
    Ok(Rows {
        writes: vec![Write::PutWebhook(next.clone())],
        deliveries: if is_elsewhere { vec![fares_anew(id)] } else { Vec::new() },
        expect: vec![Expectation::Webhook(id, Some(current.generation))],
        subject: Some(id),
        shown: vec![next],
        ..Rows::default()
    })
}

/// A webhook with another secret. The one before signs as well for a while, in the format whose receivers can make use of it.
pub(crate) fn rotate(
    id: WebhookId,
    within: Option<SessionId>,
    secret: Option<&Secret>,
    overlap: Duration,
    case: &Case,
    now: Timestamp,
) -> Result<Rows, ServiceError> {
    let current = found(id, within, case)?;
    let invalid = |field, message: &str| ServiceError::Invalid { field, message: message.to_owned() };
    if overlap > MAX_OVERLAP {
        return Err(invalid("overlapSeconds", "a secret that was replaced signs for a week at most"));
    }
    let Some(old) = current.spec.secret.clone() else {
        return Err(invalid("secret", "this webhook has no secret to replace; a change gives it one"));
    };
    let mut next = current.clone();
    let is_standard = current.spec.format == EventFormat::Standard;
    let made = || if is_standard { mint::webhook_key_like(&old) } else { mint::text_key() };
    let secret = secret.cloned().unwrap_or_else(made);
    if secret == old {
        return Err(invalid("secret", "this is the secret that the webhook has"));
    }
    next.spec.secret = Some(secret);
    check(&next)?;
    let signs_on = is_standard && !overlap.is_zero();
    next.retired = signs_on.then(|| RetiredSecret { secret: old, until: now.after(overlap) });
    next.generation += 1;
    next.updated_at = now;
    Ok(Rows {
        writes: vec![Write::PutWebhook(next.clone())],
        expect: vec![Expectation::Webhook(id, Some(current.generation))],
        subject: Some(id),
        shown: vec![next],
        ..Rows::default()
    })
}

/// A webhook less.
pub(crate) fn delete(id: WebhookId, within: Option<SessionId>, case: &Case) -> Result<Rows, ServiceError> {
    let current = found(id, within, case)?;
    Ok(Rows {
        writes: vec![Write::RemoveWebhook(id)],
        expect: vec![Expectation::Webhook(id, Some(current.generation))],
        subject: Some(id),
        ..Rows::default()
    })
}

/// Other webhooks in the place of all that a session has in one format. One with the same URL stays the same webhook; in the
/// Evolution format, where there is only one, it is the same whatever its URL, and what waits goes to the new one.
pub(crate) fn replace(
    session: &Session,
    format: EventFormat,
    specs: &[WebhookSpec],
    case: &Case,
    now: Timestamp,
) -> Result<Rows, ServiceError> {
    if specs.len() > MAX_PER_SESSION {
        let message = format!("a session has at most {MAX_PER_SESSION} webhooks");
        return Err(ServiceError::Invalid { field: "webhooks", message });
    }
    let mut old = case.snapshot.session_webhooks(case.org.id, session.id)?;
    old.retain(|webhook| webhook.spec.format == format);
    let mut rows = Rows::default();
    let mut made = 0;
    for (at, spec) in specs.iter().enumerate() {
        let same = old.iter().position(|webhook| webhook.spec.url == spec.url);
        let only = || (format == EventFormat::Evolution && !old.is_empty()).then_some(0);
        let kept = same.or_else(only).map(|index| old.swap_remove(index));
        if kept.as_ref().is_none_or(|kept| kept.spec != *spec || kept.disabled.is_some()) {
            check_reach(spec, case).map_err(|error| if specs.len() > 1 { nth(at, error) } else { error })?;
        }
        let next = match kept {
            Some(kept) if kept.spec == *spec && kept.disabled.is_none() => {
                rows.expect.push(Expectation::Webhook(kept.id, Some(kept.generation)));
                rows.shown.push(kept);
                continue;
            }
            Some(kept) => {
                rows.expect.push(Expectation::Webhook(kept.id, Some(kept.generation)));
                if kept.spec.url != spec.url {
                    rows.deliveries.push(fares_anew(kept.id));
                }
                // Whoever sets it again has mended what was wrong with its receiver.
                let generation = kept.generation + 1;
                Webhook { spec: spec.clone(), generation, updated_at: now, disabled: None, ..kept }
            }
            None => {
                made += 1;
                let made = make(Some(session.id), spec, &case.org, now);
                rows.expect.push(Expectation::Webhook(made.id, None));
                made
            }
        };
        rows.writes.push(Write::PutWebhook(next.clone()));
        rows.shown.push(next);
    }
    for gone in &old {
        rows.expect.push(Expectation::Webhook(gone.id, Some(gone.generation)));
        rows.writes.push(Write::RemoveWebhook(gone.id));
    }
    rows.quota = quota(&case.org, made, old.len())?;
    rows.session = (!rows.writes.is_empty()).then(|| session.changed(now));
    Ok(rows)
}

/// The first webhooks of a new session.
pub(crate) fn of_new(
    session: &Session,
    specs: &[WebhookSpec],
    case: &Case,
    now: Timestamp,
) -> Result<Rows, ServiceError> {
    specs.iter().try_for_each(|spec| check_reach(spec, case))?;
    let org = &case.org;
    let shown: Vec<_> = specs.iter().map(|spec| make(Some(session.id), spec, org, now)).collect();
    Ok(Rows {
        writes: shown.iter().cloned().map(Write::PutWebhook).collect(),
        quota: quota(org, shown.len(), 0)?,
        shown,
        ..Rows::default()
    })
}

fn make(session: Option<SessionId>, spec: &WebhookSpec, org: &Org, now: Timestamp) -> Webhook {
    Webhook {
        id: mint::id(WebhookId::new, now),
        org: org.id,
        session,
        spec: spec.clone(),
        generation: 1,
        created_at: now,
        updated_at: now,
        retired: None,
        disabled: None,
    }
}

/// Whether a webhook can be told what it wants, and signed for.
fn check(webhook: &Webhook) -> Result<(), ServiceError> {
    let invalid = |error: CheckError| ServiceError::Invalid { field: error.field(), message: error.told() };
    portcullis_webhook::check(&webhook.spec).map_err(invalid)
}

/// Whether a webhook's URL leads where the gateway goes. Clients of the Evolution dialect turn one off with any text for its URL.
fn check_reach(spec: &WebhookSpec, case: &Case) -> Result<(), ServiceError> {
    match &case.way_out {
        Some(way_out) if spec.active || spec.format != EventFormat::Evolution => way_out
            .check_url(&spec.url)
            .map_err(|error| ServiceError::Invalid { field: "url", message: error.to_string() }),
        _ => Ok(()),
    }
}

/// Whether a proxy stands where the gateway goes.
pub(crate) fn check_proxy(proxy: Option<&Proxy>, case: &Case) -> Result<(), ServiceError> {
    let (Some(proxy), Some(way_out)) = (proxy, &case.way_out) else { return Ok(()) };
    way_out
        .check_host(&proxy.host, ANY_PORT)
        .map_err(|error| ServiceError::Invalid { field: "proxy", message: error.to_string() })
}

/// What is wrong with one of several.
fn nth(at: usize, error: ServiceError) -> ServiceError {
    match error {
        ServiceError::Invalid { field, message } => {
            ServiceError::Invalid { field, message: format!("webhooks[{at}]: {message}") }
        }
        error => error,
    }
}

/// A receiver somewhere else has taken nothing for no time at all.
fn fares_anew(webhook: WebhookId) -> DeliveryChange {
    DeliveryChange::Progress { webhook, progress: Progress::default() }
}

/// The bound under which so many webhooks can be made: the store counts those that are there before the commit.
fn quota(org: &Org, made: usize, gone: usize) -> Result<Option<Quota>, ServiceError> {
    let more = u32::try_from(made.saturating_sub(gone)).unwrap_or(u32::MAX);
    if more == 0 {
        return Ok(None);
    }
    let max = org.quotas.webhooks;
    match max.checked_sub(more - 1) {
        None | Some(0) => Err(ServiceError::Quota { of: "webhooks", max }),
        Some(below) => Ok(Some(Quota { of: QuotaKind::Webhooks, max: below })),
    }
}

impl Service {
    /// Webhooks of an organisation and its sessions, oldest first; or, under a permit for one session, those of that session.
    ///
    /// # Errors
    /// If the session is gone, or the store cannot be read.
    pub fn webhooks(&self, permit: &Permit) -> Result<Vec<Webhook>, ServiceError> {
        expect(permit, OperationKind::WebhookRead)?;
        let target = permit.target();
        let snapshot = self.store.snapshot()?;
        match target.session {
            None => Ok(snapshot.webhooks(target.org)?),
            Some(session) if self.views.get(target.org, session).is_some() => {
                Ok(snapshot.session_webhooks(target.org, session)?)
            }
            Some(_) => Err(ServiceError::NotFound("session")),
        }
    }

    /// The webhooks of one session, for whoever may read the audit of it.
    ///
    /// # Errors
    /// If there is no such session, or the store cannot be read.
    pub fn webhooks_of(&self, permit: &Permit, session: SessionId) -> Result<Vec<Webhook>, ServiceError> {
        expect(permit, OperationKind::AuditRead)?;
        let org = permit.target().org;
        if permit.target().session != Some(session) || self.views.get(org, session).is_none() {
            return Err(ServiceError::NotFound("session"));
        }
        Ok(self.store.snapshot()?.session_webhooks(org, session)?)
    }

    /// One webhook.
    ///
    /// # Errors
    /// If there is none, or the store cannot be read.
    pub fn webhook(&self, permit: &Permit, id: WebhookId) -> Result<Webhook, ServiceError> {
        expect(permit, OperationKind::WebhookRead)?;
        self.seen_webhook(permit, id)
    }

    /// The webhook, if the permit is not for a session of which it does not hear only.
    pub(crate) fn seen_webhook(&self, permit: &Permit, id: WebhookId) -> Result<Webhook, ServiceError> {
        let target = permit.target();
        let found = self.store.snapshot()?.webhook(target.org, id)?;
        let seen = found.filter(|webhook| target.session.is_none() || webhook.session == target.session);
        seen.ok_or(ServiceError::NotFound("webhook"))
    }
}
