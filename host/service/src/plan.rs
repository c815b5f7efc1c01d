//! From an allowed operation to what becomes of the session: pure, but for fresh ids.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::label::MAX_LABELS;
use portcullis_core::lifecycle::Move;
use portcullis_core::operation::{CreateSession, SendText, WhenPairing, WhenStopped, WhenUnpaired};
use portcullis_core::verdict::{Extension, Verdict, Veto};
use portcullis_core::{
    BindingId, Effect, EventBody, FollowUp, Input, Names, Operation, OrgId, PluginId, Refusal, Request, Session,
    SessionId, Status, Step, Timestamp, rate, step,
};
use portcullis_engine::SendError;
use portcullis_store::{PluginTimer, TimerChange};

use crate::ruling::Question;
use crate::{ServiceError, mint};

/// How far ahead a plugin's timer lies at least.
const LEAST_TIMER: Duration = Duration::from_secs(1);

/// What an operation comes to.
pub(crate) enum Plan {
    /// It is so already.
    Unchanged,
    /// The session changes, or is new.
    Change(Box<Move>),
    /// Nothing of the session changes, but a message goes out.
    Send(SendText),
}

/// Plans an operation that policy allows, or defers to `due`.
pub(crate) fn plan(
    session: Option<&Arc<Session>>,
    operation: &Operation,
    due: Option<(Timestamp, String)>,
    question: &Question,
) -> Result<Plan, ServiceError> {
    let now = question.now;
    let request = match (operation, session) {
        (Operation::SessionCreate(create), _) => return create_session(create, question),
        (_, None) => return Err(ServiceError::NotFound("session")),
        (Operation::SessionLabels { labels, .. }, Some(session)) => {
            return settings_open(session).map(|()| set_labels(session, labels, now));
        }
        (Operation::SessionRatePolicy { slug, .. }, Some(session)) => {
            known_policy("policy", slug)?;
            return settings_open(session).map(|()| set_rate_policy(session, slug, now));
        }
        (Operation::MessageSend(send), Some(session)) => {
            return match session.status {
                Status::Online { .. } => Ok(Plan::Send(send.clone())),
                _ => Err(SendError::NotConnected.into()),
            };
        }
        (Operation::SessionStart { when_unpaired, .. }, _) => {
            Request::Start { pair: *when_unpaired == WhenUnpaired::Pair }
        }
        (Operation::SessionStop { .. }, _) => Request::Stop,
        (Operation::SessionRestart { when_unpaired, .. }, _) => {
            Request::Restart { pair: *when_unpaired == WhenUnpaired::Pair }
        }
        (Operation::SessionLogout { when_stopped, .. }, _) => {
            Request::Logout { connect: *when_stopped == WhenStopped::ConnectToUnlink }
        }
        (Operation::SessionDelete { .. }, _) => match (due, question.due_since) {
            (None, _) => Request::Delete { due: now, reason: String::new() },
            (Some((due, reason)), None) => Request::Delete { due, reason },
            (Some((due, reason)), Some(since)) => Request::Postpone { since, due, reason },
        },
        (Operation::SessionRestore { .. }, _) => Request::Restore,
        (Operation::SessionQr { .. }, _) => Request::Qr,
        (Operation::SessionPairingCode { phone, when_pairing, .. }, _) => {
            Request::PairingCode { phone: phone.clone(), switch: *when_pairing == WhenPairing::Switch }
        }
    };
    let Some(session) = session else { return Err(ServiceError::NotFound("session")) };
    Ok(match step(session, Input::Request(request), now)? {
        Step::Unchanged => Plan::Unchanged,
        Step::Moved(moved) => Plan::Change(moved),
    })
}

fn create_session(create: &CreateSession, question: &Question) -> Result<Plan, ServiceError> {
    let now = question.now;
    portcullis_core::label::check(&create.labels)
        .map_err(|error| ServiceError::Invalid { field: "labels", message: error.to_string() })?;
    let names = Names::new(mint::random(), create.instance_name.clone());
    let mut session = Session::new(mint::id(SessionId::new, now), question.org, names, now);
    session.display_name.clone_from(&create.display_name);
    session.labels.clone_from(&create.labels);
    session.settings = create.settings.clone();
    if let Some(slug) = &create.rate_policy {
        known_policy("ratePolicy", slug)?;
        session.rate_policy.clone_from(slug);
    }
    let mut moved = Move { session, effects: Vec::new(), events: vec![EventBody::SessionCreated] };
    if create.start
        && let Step::Moved(started) = step(&moved.session, Input::Request(Request::Start { pair: true }), now)?
    {
        moved.session = started.session;
        moved.effects = started.effects;
        moved.events.extend(started.events);
        // It is all one birth: the first generation that anybody can see is the first.
        moved.session.generation = 1;
    }
    Ok(Plan::Change(Box::new(moved)))
}

fn known_policy(field: &'static str, slug: &str) -> Result<(), ServiceError> {
    let known = rate::built_in_policies();
    if known.iter().any(|policy| policy.slug == slug) {
        return Ok(());
    }
    let slugs: Vec<_> = known.into_iter().map(|policy| policy.slug).collect();
    Err(ServiceError::Invalid {
        field,
        message: format!("there is no such rate policy; known are {}", slugs.join(", ")),
    })
}

/// Settings can be changed until the deletion is under way; a pending delete can still be put under a legal hold.
fn settings_open(session: &Session) -> Result<(), ServiceError> {
    match session.status {
        Status::Removing { .. } => Err(Refusal::Removing.into()),
        _ => Ok(()),
    }
}

fn set_labels(session: &Session, labels: &portcullis_core::Labels, now: Timestamp) -> Plan {
    if session.labels == *labels {
        return Plan::Unchanged;
    }
    let mut next = session.changed(now);
    next.labels.clone_from(labels);
    change(next, EventBody::LabelsChanged)
}

fn set_rate_policy(session: &Session, slug: &str, now: Timestamp) -> Plan {
    if session.rate_policy == slug {
        return Plan::Unchanged;
    }
    let mut next = session.changed(now);
    slug.clone_into(&mut next.rate_policy);
    change(next, EventBody::RatePolicyChanged { slug: slug.to_owned() })
}

fn change(session: Session, event: EventBody) -> Plan {
    Plan::Change(Box::new(Move { session, effects: Vec::<Effect>::new(), events: vec![event] }))
}

/// What follow-ups come to, in the commit of the operation.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) events: Vec<EventBody>,
    pub(crate) timers: Vec<TimerChange>,
}

/// Applies follow-ups to the session that is left behind, if there is one; events and timers need none.
/// Follow-ups of kinds that this version does not do are refused before a gate's verdict gets here, and ignored from observers and timers.
pub(crate) fn extend(
    org: OrgId,
    mut session: Option<&mut Session>,
    follow_ups: &[Extension],
    now: Timestamp,
    plugin_of: impl Fn(BindingId) -> Option<PluginId>,
) -> Extras {
    let mut extras = Extras::default();
    for Extension { plugin, binding, follow_up } in follow_ups {
        match (follow_up, session.as_deref_mut()) {
            // A session that is full of labels keeps those it has.
            (FollowUp::SetLabel { key, .. }, Some(session))
                if session.labels.len() >= MAX_LABELS && !session.labels.contains_key(key) => {}
            (FollowUp::SetLabel { key, value }, Some(session)) => {
                if session.labels.insert(key.clone(), value.clone()).as_ref() != Some(value) {
                    extras.events.push(EventBody::LabelsChanged);
                }
            }
            (FollowUp::RemoveLabel { key }, Some(session)) => {
                if session.labels.remove(key).is_some() {
                    extras.events.push(EventBody::LabelsChanged);
                }
            }
            (FollowUp::SetRatePolicy { slug }, Some(session)) => {
                if known_policy("slug", slug).is_ok() && session.rate_policy != *slug {
                    session.rate_policy.clone_from(slug);
                    extras.events.push(EventBody::RatePolicyChanged { slug: slug.clone() });
                }
            }
            (FollowUp::EmitEvent { name, json }, _) => extras.events.push(EventBody::PluginEvent {
                plugin: plugin.clone(),
                name: name.clone(),
                json: json.clone(),
            }),
            (FollowUp::SetTimer { key, at, payload }, session) => {
                let session = session.map(|session| session.id);
                extras.timers.extend(plugin_of(*binding).map(|plugin| {
                    // A timer that is due at once could set itself again without end.
                    let (key, at, payload) = (key.clone(), (*at).max(now.after(LEAST_TIMER)), payload.clone());
                    TimerChange::Set(PluginTimer { org, plugin, binding: *binding, key, at, payload, session })
                }));
            }
            (FollowUp::CancelTimer { key }, _) => {
                let cancel = |plugin| TimerChange::Cancel { plugin, key: key.clone() };
                extras.timers.extend(plugin_of(*binding).map(cancel));
            }
            (FollowUp::SetLabel { .. } | FollowUp::RemoveLabel { .. } | FollowUp::SetRatePolicy { .. }, None)
            | (FollowUp::LogOutFirst | FollowUp::Request { .. }, _) => {}
        }
    }
    extras
}

/// Whether a verdict defers the operation, and to when. Only a delete can wait.
pub(crate) fn deferral(verdict: &Verdict, operation: &Operation) -> Result<Option<(Timestamp, String)>, Box<Veto>> {
    match verdict {
        Verdict::Deferred { until, reason, .. } if matches!(operation, Operation::SessionDelete { .. }) => {
            Ok(Some((*until, reason.clone())))
        }
        Verdict::Deferred { plugin, reason, .. } => Err(Box::new(Veto {
            plugin: plugin.clone(),
            code: "cannot_wait".to_owned(),
            message: format!("{reason} (this operation cannot be put off)"),
            retry_after: None,
            failure: None,
        })),
        Verdict::Allowed(_) | Verdict::Denied { .. } | Verdict::ConfirmationRequired { .. } => Ok(None),
    }
}
