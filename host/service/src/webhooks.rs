//! Webhooks: what changes of them come to, and who may look at them.

use portcullis_core::{
    EventFormat, OperationKind, Org, Permit, Session, SessionId, Timestamp, Webhook, WebhookChange, WebhookId,
    WebhookSpec,
};
use portcullis_store::{Expectation, Quota, QuotaKind, Write};
use portcullis_webhook::CheckError;

use crate::queries::expect;
use crate::ruling::Case;
use crate::{Service, ServiceError, mint};

/// The most webhooks that one session has in one format.
const MAX_PER_SESSION: usize = 20;

/// Changes of webhooks, and what they rest on.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) writes: Vec<Write>,
    pub(crate) expect: Vec<Expectation>,
    pub(crate) quota: Option<Quota>,
    /// The session at its next generation, if what is written rests on all of its webhooks:
    /// of two who replace them at the same time one has to look again.
    pub(crate) session: Option<Session>,
    /// What the caller is shown: those that were asked for, as they are then.
    pub(crate) shown: Vec<Webhook>,
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
    Ok(Rows {
        writes: vec![Write::PutWebhook(made.clone())],
        expect: vec![Expectation::Webhook(made.id, None)],
        quota: quota(&case.org, 1, 0)?,
        session: None,
        shown: vec![made],
    })
}

/// A webhook as it was changed.
pub(crate) fn update(id: WebhookId, change: &WebhookChange, case: &Case, now: Timestamp) -> Result<Rows, ServiceError> {
    let current = case.snapshot.webhook(case.org.id, id)?.ok_or(ServiceError::NotFound("webhook"))?;
    if let Some(session) = change.session
        && case.snapshot.session(case.org.id, session)?.is_none()
    {
        return Err(ServiceError::NotFound("session"));
    }
    let next = change.apply(&current, now);
    check(&next)?;
    Ok(Rows {
        writes: vec![Write::PutWebhook(next.clone())],
        expect: vec![Expectation::Webhook(id, Some(current.generation))],
        shown: vec![next],
        ..Rows::default()
    })
}

/// A webhook less.
pub(crate) fn delete(id: WebhookId, case: &Case) -> Result<Rows, ServiceError> {
    let current = case.snapshot.webhook(case.org.id, id)?.ok_or(ServiceError::NotFound("webhook"))?;
    Ok(Rows {
        writes: vec![Write::RemoveWebhook(id)],
        expect: vec![Expectation::Webhook(id, Some(current.generation))],
        ..Rows::default()
    })
}

/// Other webhooks in the place of all that a session has in one format. One with the same URL stays the same webhook.
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
    for spec in specs {
        let kept = old.iter().position(|webhook| webhook.spec.url == spec.url).map(|index| old.swap_remove(index));
        let next = match kept {
            Some(kept) if kept.spec == *spec && kept.disabled.is_none() => {
                rows.expect.push(Expectation::Webhook(kept.id, Some(kept.generation)));
                rows.shown.push(kept);
                continue;
            }
            Some(kept) => {
                rows.expect.push(Expectation::Webhook(kept.id, Some(kept.generation)));
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
    org: &Org,
    now: Timestamp,
) -> Result<Rows, ServiceError> {
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

    /// One webhook.
    ///
    /// # Errors
    /// If there is none, or the store cannot be read.
    pub fn webhook(&self, permit: &Permit, id: WebhookId) -> Result<Webhook, ServiceError> {
        expect(permit, OperationKind::WebhookRead)?;
        let found = self.store.snapshot()?.webhook(permit.target().org, id)?;
        found.ok_or(ServiceError::NotFound("webhook"))
    }
}
