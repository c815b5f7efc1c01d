//! Disabling: a receiver that says it is gone, or takes nothing for days, is told no more until its owner asks for it again.

use std::time::Duration;

use portcullis_core::{
    AuditEntry, AuditId, AuditOutcome, Disabled, DisabledBecause, DomainEvent, EventBody, EventId, Line, OperationKind,
    OrgId, PrincipalKind, WebhookId,
};
use portcullis_store::{Commit, CommitError, Expectation, Write};

use crate::{Service, mint};

/// For how long a receiver may take nothing before it is disabled.
pub(super) const FAILING_FOR: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// How often it is tried while the webhook is being changed.
const TRIES: usize = 4;

impl Service {
    /// Tells a webhook nothing more. The audit and an event say so.
    pub(super) async fn disable_webhook(&self, org: OrgId, id: WebhookId, why: DisabledBecause) {
        for _ in 0..TRIES {
            let Ok(Some(webhook)) = self.store.snapshot().and_then(|snapshot| snapshot.webhook(org, id)) else {
                return;
            };
            if !webhook.is_told() {
                return;
            }
            let now = self.now();
            let mut commit = Commit::new(org, now);
            commit.expect.push(Expectation::Webhook(id, Some(webhook.generation)));
            let mut next = webhook;
            next.generation += 1;
            next.disabled = Some(Disabled { at: now, why });
            let session = next.session;
            commit.writes.push(Write::PutWebhook(next));
            commit.audit.push(AuditEntry {
                id: mint::id(AuditId::new, now),
                org,
                at: now,
                actor: PrincipalKind::System,
                request: None,
                operation: OperationKind::WebhookUpdate,
                session,
                subject: Some(id.to_string()),
                outcome: AuditOutcome::Refused { code: format!("webhook_{}", why.name()) },
                decision: None,
            });
            commit.events.push(DomainEvent {
                id: mint::id(EventId::new, now),
                org,
                session,
                at: now,
                generation: 0,
                device: None,
                body: EventBody::WebhookDisabled { webhook: id, why },
            });
            match self.write(commit, 0).await {
                Err(CommitError::Conflict) => {}
                Ok(_) => {
                    tracing::warn!(%org, webhook = %id, why = why.name(), "a webhook is disabled");
                    return;
                }
                Err(error) => {
                    tracing::error!(%org, webhook = %id, error = &error as &dyn std::error::Error, "a webhook was not disabled");
                    break;
                }
            }
        }
        // The line waits for the change, and goes on without.
        self.deliveries.stir(org, Line::Webhook(id), self.now());
    }
}
