//! The reply to a request that was done while nobody heard of it: made again from what is there now.
//!
//! The gateway was stopped between the commit of the operation and that of its reply, or could not keep the reply. The key of the
//! request leads to ids of what was done, and those to the answer that its dialect encodes as ever. It says how things are by now.
//! What cannot be found out any more (how many deliveries were tried again, say) is not made up: that it was done is all there is.

use std::sync::Arc;

use portcullis_core::session::PairingMethod;
use portcullis_core::{
    BindingId, Operation, OperationKind as Op, OrgId, Permit, PublisherId, Session, Status, Target, WebhookId,
};
use portcullis_service::{BindingState, Deed, Done, Outcome, ServiceError};

use crate::Front;
use crate::asked::{Answer, Asked, WaitFor};
use crate::dispatch::{self, Asking};

/// What a question was answered that led to `deed`.
pub(crate) async fn answer(
    front: &Arc<Front>,
    asking: Asking,
    asked: Asked,
    deed: &Deed,
) -> Result<Answer, ServiceError> {
    let service = &front.service;
    if let Asked::EraseOrg { org } = asked {
        // Whoever could have it erased may know that it is.
        service.permit(&asking.principal, asking.kind, Target::org(OrgId::PLATFORM), Some(asking.request)).await?;
        return if service.has_org(org) {
            Err(ServiceError::UnderWay("the organisation is being erased"))
        } else {
            Ok(Answer::OrgErased)
        };
    }
    let kind = asked.kind().unwrap_or(asking.kind);
    let target = dispatch::target(asking.org, &asking.principal, &asked);
    // May the caller still do this, they may see what came of it.
    service.permit(&asking.principal, kind, target, Some(asking.request)).await?;
    let looking = Looking { front, asking: &asking, target, deed };
    Ok(match asked {
        Asked::Operate { operation, then } => looking.operated(operation, then).await?,
        Asked::PairOrStart { .. } => Answer::Operated(looking.done(Some(looking.session().await?), Outcome::Done)),
        Asked::CreateOrg(_) => {
            let org = OrgId::from_bytes(looking.thing()?);
            Answer::OrgCreated(service.read_org(&looking.permit(Op::OrgRead, Target::org(org)).await?)?)
        }
        Asked::UpdateOrg { .. } => Answer::Org(service.read_org(&looking.permit(Op::OrgRead, target).await?)?),
        Asked::CreateKey { .. } => return Err(ServiceError::AlreadyShown),
        Asked::RevokeKey { .. } => Answer::KeyRevoked,
        Asked::PutSecret { .. } => Answer::SecretPut,
        Asked::DeleteSecret { .. } => Answer::SecretDeleted,
        Asked::DeletePlugin { .. } => Answer::PluginDeleted,
        Asked::DeletePublisher { .. } => Answer::PublisherDeleted,
        Asked::CreatePublisher(_) => {
            let id = PublisherId::from_bytes(looking.thing()?);
            let publishers = service.publishers(&looking.permit(Op::PluginRead, target).await?)?;
            let found = publishers.into_iter().find(|publisher| publisher.id == id);
            Answer::PublisherCreated(found.ok_or(ServiceError::NotFound("publisher"))?)
        }
        Asked::RequireSignature { .. } => {
            Answer::PluginRules(service.plugin_rules(&looking.permit(Op::PluginRead, target).await?)?)
        }
        Asked::CreateBinding(_) => Answer::BindingCreated(Box::new(looking.binding().await?)),
        Asked::UpdateBinding { .. } | Asked::MoveBinding { .. } => Answer::Binding(Box::new(looking.binding().await?)),
        Asked::DeleteBinding { .. } => Answer::BindingDeleted,
        _ => return Err(ServiceError::ReplyLost),
    })
}

/// Somebody who looks at what came of their request.
struct Looking<'a> {
    front: &'a Front,
    asking: &'a Asking,
    target: Target,
    deed: &'a Deed,
}

impl Looking<'_> {
    async fn operated(&self, operation: Operation, then: WaitFor) -> Result<Answer, ServiceError> {
        if let Operation::SessionDelete { .. } = operation {
            return self.deleted(then).await;
        }
        let session = match self.deed.session {
            Some(_) => Some(self.session().await?),
            None => None,
        };
        let outcome = match &operation {
            Operation::WebhookCreate { .. } | Operation::WebhookUpdate { .. } | Operation::WebhookRotate { .. } => {
                let id = WebhookId::from_bytes(self.thing()?);
                let permit = self.permit(Op::WebhookRead, self.target).await?;
                Outcome::Webhooks(vec![self.front.service.webhook(&permit, id)?])
            }
            Operation::WebhookDelete { .. } => Outcome::Webhooks(Vec::new()),
            Operation::WebhookReplace { format, .. } => {
                let permit = self.permit(Op::WebhookRead, self.target).await?;
                let mut webhooks = self.front.service.webhooks(&permit)?;
                webhooks.retain(|webhook| webhook.spec.format == *format);
                Outcome::Webhooks(webhooks)
            }
            // Whatever else these were answered is nowhere else.
            Operation::WebhookTest { .. } | Operation::WebhookReplay { .. } => return Err(ServiceError::ReplyLost),
            // A code that is not shown any more is nowhere else, either.
            Operation::SessionPairingCode { .. } if !shows(session.as_deref(), PairingMethod::Code) => {
                return Err(ServiceError::ReplyLost);
            }
            Operation::SessionQr { .. } if !shows(session.as_deref(), PairingMethod::Qr) => {
                return Err(ServiceError::ReplyLost);
            }
            _ if session.is_none() => return Err(ServiceError::ReplyLost),
            _ if self.deed.was_so => Outcome::Unchanged,
            _ => Outcome::Done,
        };
        Ok(Answer::Operated(self.done(session, outcome)))
    }

    /// How far a delete has come.
    async fn deleted(&self, then: WaitFor) -> Result<Answer, ServiceError> {
        let permit = self.permit(self.asking.kind, self.target).await?;
        let Ok(session) = self.front.service.session(&permit) else { return Ok(Answer::Gone(self.deed.decision)) };
        let outcome = match (&session.status, session.delete_due()) {
            (Status::Removing { .. }, _) => Outcome::Done,
            (_, Some(until)) => Outcome::Deferred { until, reason: String::new() },
            // Somebody has taken it back since.
            (_, None) => return Err(ServiceError::ReplyLost),
        };
        let done = self.done(Some(session), outcome);
        Ok(dispatch::wait(self.front, &permit, done, then).await)
    }

    fn done(&self, session: Option<Arc<Session>>, outcome: Outcome) -> Done {
        Done { session, outcome, decision: self.deed.decision }
    }

    /// The session that it was done to, or that it made.
    async fn session(&self) -> Result<Arc<Session>, ServiceError> {
        let session = self.deed.session.ok_or(ServiceError::ReplyLost)?;
        let permit = self.permit(Op::SessionRead, Target::session(self.target.org, session)).await?;
        self.front.service.session(&permit)
    }

    async fn binding(&self) -> Result<BindingState, ServiceError> {
        let permit = self.permit(Op::PluginRead, self.target).await?;
        self.front.service.binding(&permit, BindingId::from_bytes(self.thing()?))
    }

    fn thing(&self) -> Result<[u8; 16], ServiceError> {
        self.deed.thing.ok_or(ServiceError::ReplyLost)
    }

    async fn permit(&self, kind: Op, target: Target) -> Result<Permit, ServiceError> {
        self.front.service.permit(&self.asking.principal, kind, target, Some(self.asking.request)).await
    }
}

/// Whether a session shows a code of this kind.
fn shows(session: Option<&Session>, wanted: PairingMethod) -> bool {
    let status = session.map(|session| &session.status);
    matches!(status, Some(Status::Pairing { method, code: Some(_), .. }) if *method == wanted)
}
