//! From the core's questions to the contract's.

use portcullis_core::{Intent, Labels, Operation, PrincipalKind, Session, Status};

use super::context::{self, Context};
use super::other;
use crate::bindings::portcullis::policy::types;
use crate::{Ask, Event, Outcome, PaceUsage};

/// The context of `ask`, still without the settings of a binding.
pub(crate) fn context(ask: &Ask) -> Context {
    Context {
        decision_id: ask.decision.to_string(),
        binding_id: String::new(),
        now: ask.now.as_millis(),
        seed: ask.seed,
        phase: match ask.due_since {
            None => types::Phase::Requested,
            Some(since) => types::Phase::Due(since.as_millis()),
        },
        confirmed: ask
            .confirmed
            .as_ref()
            .map(|given| types::Confirmation { at: given.at.as_millis(), answer: given.answer.clone() }),
        principal: principal(&ask.principal),
        org: org(&ask.org),
        session: ask.session.as_deref().map(session),
        dry_run: ask.dry_run,
        settings: String::new(),
    }
}

fn principal(principal: &portcullis_core::Principal) -> context::Principal {
    let (kind, id) = match &principal.kind {
        PrincipalKind::ApiKey { id } => (types::PrincipalKind::ApiKey, Some(id.to_string())),
        PrincipalKind::User { subject } => (types::PrincipalKind::User, Some(subject.clone())),
        PrincipalKind::Operator => (types::PrincipalKind::Operator, None),
        PrincipalKind::Plugin { id, .. } => (types::PrincipalKind::Plugin, Some(id.to_string())),
        PrincipalKind::Link => (types::PrincipalKind::Link, None),
        PrincipalKind::SessionToken => (types::PrincipalKind::SessionToken, None),
        PrincipalKind::System => (types::PrincipalKind::System, None),
    };
    context::Principal {
        kind,
        id,
        capabilities: principal.capabilities.iter().map(|capability| capability.name()).collect(),
        session_scope: principal.session_scope.map(|id| id.to_string()),
    }
}

fn org(org: &portcullis_core::Org) -> context::Org {
    let quotas = &org.quotas;
    let quota = |name, value: u32| (name, u64::from(value));
    context::Org {
        id: org.id.to_string(),
        name: org.name.clone(),
        plan: org.plan.name.clone(),
        plan_active: org.plan.active,
        labels: labels(&org.labels),
        quotas: vec![
            quota("sessions", quotas.sessions),
            quota("keys", quotas.keys),
            quota("plugins", quotas.plugins),
            quota("large-plugins", quotas.large_plugins),
            quota("kv-keys", quotas.kv_keys),
            quota("kv-bytes", quotas.kv_bytes),
            quota("bindings", quotas.bindings),
            quota("webhooks", quotas.webhooks),
            quota("queued-messages", quotas.queued_messages),
            quota("concurrency", quotas.concurrency),
        ],
    }
}

/// A session, without any of its credentials.
pub(crate) fn session(session: &Session) -> types::Session {
    types::Session {
        id: session.id.to_string(),
        display_name: session.display_name.clone(),
        instance_name: session.names.instance_name.clone(),
        labels: labels(&session.labels),
        intent: match session.intent {
            Intent::Running => types::Intent::Running,
            Intent::Stopped => types::Intent::Stopped,
            Intent::Removed { .. } => types::Intent::Removed,
        },
        status: status(&session.status),
        failure: match &session.status {
            Status::Failed { cause, .. } => Some(cause.name().to_owned()),
            _ => None,
        },
        jid: session.device.as_ref().map(|device| format!("{}@s.whatsapp.net", device.phone())),
        rate_policy: session.rate_policy.clone(),
        account_limit: session.account_limit.as_ref().map(|limit| limit.code.clone()),
        delete_due: session.delete_due().map(|due| due.as_millis()),
        created_at: session.created_at.as_millis(),
        updated_at: session.updated_at.as_millis(),
        last_connected_at: session.last_connected_at.map(|at| at.as_millis()),
    }
}

/// The contract's word for a status.
pub(crate) fn status(status: &Status) -> types::Status {
    match status {
        Status::Stopped => types::Status::Stopped,
        Status::Starting { .. } => types::Status::Starting,
        Status::Pairing { .. } => types::Status::Pairing,
        Status::Online { .. } => types::Status::Online,
        Status::Reconnecting { .. } => types::Status::Reconnecting,
        Status::LoggedOut { .. } => types::Status::LoggedOut,
        Status::Failed { .. } => types::Status::Failed,
        Status::Removing { .. } => types::Status::Removing,
    }
}

/// An operation. A pairing's phone number is given as it is: gates may decide by it.
pub(crate) fn operation(operation: &Operation) -> types::Operation {
    let detail = match operation {
        Operation::SessionStart { .. }
        | Operation::SessionStop { .. }
        | Operation::SessionRestart { .. }
        | Operation::SessionLogout { .. }
        | Operation::SessionDelete { .. }
        | Operation::SessionRestore { .. }
        | Operation::SessionQr { .. } => types::Detail::Plain,
        Operation::SessionCreate(create) => types::Detail::SessionCreate(types::SessionCreate {
            display_name: create.display_name.clone(),
            instance_name: create.instance_name.clone(),
            labels: labels(&create.labels),
            rate_policy: create.rate_policy.clone(),
            start: create.start,
        }),
        Operation::SessionPairingCode { phone, .. } => types::Detail::SessionPairingCode(phone.reveal().to_owned()),
        Operation::SessionLabels { labels: all, .. } => types::Detail::SessionLabels(labels(all)),
        Operation::SessionRatePolicy { slug, .. } => types::Detail::SessionRatePolicy(slug.clone()),
        Operation::MessageSend(send) => types::Detail::MessageSend(types::TextMessage {
            to: send.to.clone(),
            text: send.text.clone(),
            reply_to: send.reply_to.clone(),
        }),
        Operation::SessionSettings { .. }
        | Operation::SessionProxy { .. }
        | Operation::SessionLink { .. }
        | Operation::WebhookCreate { .. }
        | Operation::WebhookUpdate { .. }
        | Operation::WebhookDelete { .. }
        | Operation::WebhookRotate { .. }
        | Operation::WebhookTest { .. }
        | Operation::WebhookReplay { .. }
        | Operation::WebhookReplace { .. }
        | Operation::NumberCheck { .. }
        | Operation::PresenceSet { .. }
        | Operation::PluginUpload(_)
        | Operation::PluginDelete { .. }
        | Operation::BindingCreate(_)
        | Operation::BindingUpdate(_)
        | Operation::BindingDelete { .. } => types::Detail::Other(other::document(operation).to_string()),
    };
    types::Operation { name: operation.kind().name().to_owned(), detail }
}

/// How an operation ended.
pub(crate) fn outcome(outcome: &Outcome) -> types::Outcome {
    match outcome {
        Outcome::Done => types::Outcome::Done,
        Outcome::Unchanged => types::Outcome::Unchanged,
        Outcome::Deferred(until) => types::Outcome::Deferred(until.as_millis()),
        Outcome::Denied(code) => types::Outcome::Denied(code.clone()),
        Outcome::Refused(code) => types::Outcome::Refused(code.clone()),
    }
}

/// Something that happened.
pub(crate) fn event(event: &Event) -> types::Event {
    types::Event {
        id: event.id.to_string(),
        name: event.name.clone(),
        at: event.at.as_millis(),
        session: event.session.map(|id| id.to_string()),
        json: event.json.clone(),
    }
}

/// What a session has sent so far.
pub(crate) fn usage(usage: PaceUsage) -> types::Usage {
    types::Usage {
        sends_last_minute: usage.sends_last_minute,
        sends_today: usage.sends_today,
        group_calls_last_minute: usage.group_calls_last_minute,
        group_calls_today: usage.group_calls_today,
        checks_last_minute: usage.checks_last_minute,
        checks_today: usage.checks_today,
    }
}

fn labels(labels: &Labels) -> Vec<types::Label> {
    labels.iter().map(|(key, value)| types::Label { key: key.clone(), value: value.clone() }).collect()
}

#[cfg(test)]
mod test {
    use portcullis_core::{Capability, OrgId, Principal, SessionId};

    use super::*;

    #[test]
    fn the_bearer_of_a_sessions_token_has_no_id_but_a_session() {
        let session = SessionId::from_bytes([9; 16]);
        let bearer = Principal {
            org: OrgId::from_bytes([7; 16]),
            kind: PrincipalKind::SessionToken,
            session_scope: Some(session),
            capabilities: [Capability::Read, Capability::Send].into_iter().collect(),
        };
        let told = principal(&bearer);
        assert_eq!(told.kind, types::PrincipalKind::SessionToken);
        assert_eq!((told.id, told.session_scope), (None, Some(session.to_string())));
        assert_eq!(told.capabilities, ["read", "send"]);
        assert_eq!((bearer.kind.name(), bearer.kind.to_string().as_str()), ("session-token", "session-token"));
    }
}
