//! From an allowed operation to what becomes of the session: pure, but for fresh ids.

use std::time::Duration;

use portcullis_core::errand::MAX_DEPTH;
use portcullis_core::label::MAX_LABELS;
use portcullis_core::lifecycle::Move;
use portcullis_core::operation::{
    CreateSession, KeptSetting, LinkChange, Presence, SendText, WhenPairing, WhenStopped, WhenUnpaired,
};
use portcullis_core::session::{Settings, TEMP_LINK_LIFETIME, uuid};
use portcullis_core::verdict::{Extension, Verdict, Veto};
use portcullis_core::{
    BindingId, DomainEvent, Effect, Errand, EventBody, EventId, FollowUp, Input, Intent, Names, Operation, Org, Proxy,
    Refusal, Request, Secret, Session, SessionId, Status, Step, TempLink, Timestamp, rate, step,
};
use portcullis_engine::SendError;
use portcullis_policy::Link;
use portcullis_store::{Commit, ErrandChange, PluginTimer, TimerChange};

use crate::ruling::{Case, Question};
use crate::{ServiceError, administer, delivered, errands, mint, webhooks};

/// How far ahead a plugin's timer lies at least.
const LEAST_TIMER: Duration = Duration::from_secs(1);
/// The shortest time for which a policy puts off a delete that is due.
const LEAST_POSTPONEMENT: Duration = Duration::from_secs(60);

/// What an operation comes to.
pub(crate) enum Plan {
    /// It is so already.
    Unchanged,
    /// The session changes, or is new; what is written besides is its webhooks.
    Change(Box<Move>, webhooks::Rows),
    /// Webhooks change.
    Webhooks(webhooks::Rows),
    /// A plugin or a binding changes.
    Rows(administer::Rows),
    /// Nothing of the session changes, but WhatsApp is asked for something.
    Call(Outgoing),
}

/// What WhatsApp is asked for by an operation that leaves its session as it is.
pub(crate) enum Outgoing {
    /// To take a message.
    Send(SendText),
    /// Which phone numbers it knows.
    Check(Vec<String>),
    /// To show what the account is doing.
    Presence { chat: Option<String>, presence: Presence, hold: Duration },
}

/// Plans an operation that policy allows, or defers to `due`.
pub(crate) fn plan(
    case: &Case,
    operation: &Operation,
    due: Option<(Timestamp, String)>,
    question: &Question,
    log_out_first: bool,
) -> Result<Plan, ServiceError> {
    let now = question.now;
    let session = case.session.as_ref();
    let request = match (operation, session) {
        (Operation::SessionCreate(create), _) => return create_session(create, case, question),
        (Operation::WebhookCreate { session, webhook }, _) => {
            return webhooks::create(*session, webhook, case, now).map(Plan::Webhooks);
        }
        (Operation::WebhookUpdate { webhook, within, change }, _) => {
            return webhooks::update(*webhook, *within, change, case, now).map(Plan::Webhooks);
        }
        (Operation::WebhookDelete { webhook, within }, _) => {
            return webhooks::delete(*webhook, *within, case).map(Plan::Webhooks);
        }
        (Operation::WebhookRotate { webhook, within, secret, overlap_seconds }, _) => {
            let overlap = Duration::from_secs(u64::from(*overlap_seconds));
            return webhooks::rotate(*webhook, *within, secret.as_ref(), overlap, case, now).map(Plan::Webhooks);
        }
        (Operation::WebhookTest { webhook, within }, _) => {
            return delivered::test(*webhook, *within, case, now).map(Plan::Webhooks);
        }
        (Operation::WebhookReplay { webhook, within, of }, _) => {
            return delivered::replay(*webhook, *within, *of, case, now).map(Plan::Webhooks);
        }
        (
            Operation::PluginUpload(_)
            | Operation::PluginDelete { .. }
            | Operation::BindingCreate(_)
            | Operation::BindingUpdate(_)
            | Operation::BindingDelete { .. },
            _,
        ) => return administer::plan(question, case, operation),
        (_, None) => return Err(ServiceError::NotFound("session")),
        (Operation::WebhookReplace { format, webhooks, .. }, Some(session)) => {
            settings_open(session)?;
            return webhooks::replace(session, *format, webhooks, case, now).map(Plan::Webhooks);
        }
        (Operation::SessionSettings { settings, kept, .. }, Some(session)) => {
            return settings_open(session).map(|()| set_settings(session, settings, *kept, now));
        }
        (Operation::SessionProxy { proxy, .. }, Some(session)) => {
            settings_open(session)?;
            webhooks::check_proxy(proxy.as_ref(), case)?;
            return Ok(set_proxy(session, proxy.as_ref(), now));
        }
        (Operation::SessionLink { change, .. }, Some(session)) => {
            if matches!((change, &session.intent), (LinkChange::Rotate, Intent::Removed { .. })) {
                return Err(Refusal::PendingDelete.into());
            }
            return settings_open(session).map(|()| set_link(session, *change, now));
        }
        (Operation::SessionLabels { labels, .. }, Some(session)) => {
            return settings_open(session).map(|()| set_labels(session, labels, now));
        }
        (Operation::SessionRatePolicy { slug, .. }, Some(session)) => {
            open_policy("policy", slug, &case.org)?;
            return settings_open(session).map(|()| set_rate_policy(session, slug, now));
        }
        (Operation::MessageSend(send), Some(session)) => return call(session, Outgoing::Send(send.clone())),
        (Operation::NumberCheck { numbers, .. }, Some(session)) => {
            return call(session, Outgoing::Check(numbers.clone()));
        }
        (Operation::PresenceSet { chat, presence, hold_millis, .. }, Some(session)) => {
            let hold = Duration::from_millis(u64::from(*hold_millis));
            return call(session, Outgoing::Presence { chat: chat.clone(), presence: *presence, hold });
        }
        (Operation::SessionStart { when_unpaired, .. }, _) => {
            Request::Start { pair: *when_unpaired == WhenUnpaired::Pair }
        }
        // A logout leaves the session stopped, with nothing linked. Who is not linked is only stopped.
        (Operation::SessionStop { .. }, Some(session)) if log_out_first && session.linked_device().is_some() => {
            Request::Logout { connect: true }
        }
        (Operation::SessionStop { .. }, _) => Request::Stop,
        (Operation::SessionRestart { when_unpaired, when_stopped, .. }, _) => Request::Restart {
            pair: *when_unpaired == WhenUnpaired::Pair,
            connect: *when_stopped == WhenStopped::Connect,
        },
        (Operation::SessionLogout { when_stopped, .. }, _) => {
            Request::Logout { connect: *when_stopped == WhenStopped::Connect }
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
        Step::Moved(moved) => Plan::Change(moved, webhooks::Rows::default()),
    })
}

/// Only a session that is connected can ask WhatsApp for anything.
fn call(session: &Session, outgoing: Outgoing) -> Result<Plan, ServiceError> {
    match session.status {
        Status::Online { .. } => Ok(Plan::Call(outgoing)),
        _ => Err(SendError::NotConnected.into()),
    }
}

fn create_session(create: &CreateSession, case: &Case, question: &Question) -> Result<Plan, ServiceError> {
    let (now, org) = (question.now, &*case.org);
    webhooks::check_proxy(create.proxy.as_ref(), case)?;
    portcullis_core::label::check(&create.labels)
        .map_err(|error| ServiceError::Invalid { field: "labels", message: error.to_string() })?;
    let names = Names::new(mint::random(), create.instance_name.clone());
    let mut session = Session::new(mint::id(SessionId::new, now), question.org, names, now);
    session.display_name.clone_from(&create.display_name);
    session.labels.clone_from(&create.labels);
    session.settings = create.settings.clone();
    if let Some(slug) = &create.rate_policy {
        open_policy("ratePolicy", slug, org)?;
        session.rate_policy.clone_from(slug);
    }
    session.proxy.clone_from(&create.proxy);
    session.token = match &create.token {
        None if create.make_token => Some(Secret::new(uuid(mint::random()).to_uppercase())),
        chosen => chosen.clone(),
    };
    session.expected_phone.clone_from(&create.expected_phone);
    let mut moved = Move { session, effects: Vec::new(), events: vec![EventBody::SessionCreated], unlinked: None };
    let request = match &create.pairing_phone {
        Some(phone) => Request::PairingCode { phone: phone.clone(), switch: true },
        None => Request::Start { pair: true },
    };
    if create.start
        && let Step::Moved(started) = step(&moved.session, Input::Request(request), now)?
    {
        moved.session = started.session;
        moved.effects = started.effects;
        moved.events.extend(started.events);
        // It is all one birth: the first generation that anybody can see is the first.
        moved.session.generation = 1;
    }
    let webhooks = webhooks::of_new(&moved.session, &create.webhooks, case, now)?;
    Ok(Plan::Change(Box::new(moved), webhooks))
}

/// Whether an organisation may choose a policy: those that are not free need an active plan.
fn open_policy(field: &'static str, slug: &str, org: &Org) -> Result<(), ServiceError> {
    match rate::built_in_policy(slug) {
        Some(policy) if policy.free || org.plan.active => return Ok(()),
        Some(_) => return Err(ServiceError::Subscription { what: "this rate policy" }),
        None => {}
    }
    let slugs: Vec<_> = rate::built_in_policies().iter().map(|policy| policy.slug.as_str()).collect();
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

fn set_settings(session: &Session, settings: &Settings, kept: KeptSetting, now: Timestamp) -> Plan {
    let current = &session.settings;
    let settings = match kept {
        KeptSetting::VoiceToken => Settings { voice_token: current.voice_token.clone(), ..settings.clone() },
        KeptSetting::PresenceTyping => Settings { presence_typing: current.presence_typing, ..settings.clone() },
    };
    if *current == settings {
        return Plan::Unchanged;
    }
    let mut next = session.changed(now);
    next.settings = settings;
    change(next, EventBody::SettingsChanged)
}

fn set_proxy(session: &Session, proxy: Option<&Proxy>, now: Timestamp) -> Plan {
    if session.proxy.as_ref() == proxy {
        return Plan::Unchanged;
    }
    let mut next = session.changed(now);
    next.proxy = proxy.cloned();
    change(next, EventBody::SettingsChanged)
}

fn set_link(session: &Session, to: LinkChange, now: Timestamp) -> Plan {
    if to == LinkChange::Revoke && session.link.is_none() {
        return Plan::Unchanged;
    }
    let mut next = session.changed(now);
    next.link = match to {
        LinkChange::Revoke => None,
        LinkChange::Rotate => {
            let token = Secret::new(format!("{:032x}{:032x}", mint::random(), mint::random()));
            Some(TempLink { token, expires_at: now.after(TEMP_LINK_LIFETIME) })
        }
    };
    // A link is a credential: that there is a new one is in the audit, and in no event.
    let moved = Move { session: next, effects: Vec::new(), events: Vec::new(), unlinked: None };
    Plan::Change(Box::new(moved), webhooks::Rows::default())
}

fn change(session: Session, event: EventBody) -> Plan {
    // Whatever runs for it hears of it.
    let runs = event == EventBody::SettingsChanged && session.status.attempt().is_some();
    let effects = if runs { vec![Effect::Configure] } else { Vec::new() };
    let moved = Move { session, effects, events: vec![event], unlinked: None };
    Plan::Change(Box::new(moved), webhooks::Rows::default())
}

/// What follow-ups come to, in the commit of the operation.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) events: Vec<EventBody>,
    pub(crate) timers: Vec<TimerChange>,
    pub(crate) errands: Vec<Errand>,
}

impl Extras {
    /// Puts them into a commit. Events are about `session`, or about the organisation.
    pub(crate) fn join(self, commit: &mut Commit, session: Option<&Session>) {
        commit.timers.extend(self.timers);
        commit.errands.extend(self.errands.into_iter().map(ErrandChange::Put));
        let (org, now) = (commit.org, commit.now);
        commit.events.extend(self.events.into_iter().map(|body| {
            let id = mint::id(EventId::new, now);
            match session {
                Some(session) => DomainEvent::of(session, id, now, body),
                None => DomainEvent { id, org, session: None, at: now, generation: 0, device: None, body },
            }
        }));
    }
}

/// Applies follow-ups to the session that is left behind, if there is one; events, timers and requests need none.
/// What they come from is `depth` plugin requests away from a caller's operation.
///
/// Logging out first is a gate's alone and has been planned with its operation.
pub(crate) fn extend(
    org: &Org,
    mut session: Option<&mut Session>,
    follow_ups: &[Extension],
    now: Timestamp,
    depth: u8,
    link_of: impl Fn(BindingId) -> Option<Link>,
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
                if open_policy("slug", slug, org).is_ok() && session.rate_policy != *slug {
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
                extras.timers.extend(link_of(*binding).map(|link| {
                    // A timer that is due at once could set itself again without end.
                    let (key, at, payload) = (key.clone(), (*at).max(now.after(LEAST_TIMER)), payload.clone());
                    let plugin = link.binding.plugin;
                    let (org, binding) = (org.id, *binding);
                    TimerChange::Set(PluginTimer { org, plugin, binding, key, at, payload, session, attempts: 0 })
                }));
            }
            (FollowUp::CancelTimer { key }, _) => {
                let cancel = |link: Link| TimerChange::Cancel { plugin: link.binding.plugin, key: key.clone() };
                extras.timers.extend(link_of(*binding).map(cancel));
            }
            // A gate's requests were counted before; what watches is simply not followed any further.
            (FollowUp::Request { .. }, _) if depth >= MAX_DEPTH => {
                tracing::warn!(org = %org.id, plugin, "a plugin's request is too far from any caller's operation");
            }
            (FollowUp::Request { operation }, session) => {
                // Sealed with the session that it is about, if that is the one at hand.
                let about = operation.session().filter(|id| session.is_some_and(|session| session.id == *id));
                extras
                    .errands
                    .extend(link_of(*binding).map(|link| errands::asking(&link, org.id, operation, about, depth, now)));
            }
            (FollowUp::SetLabel { .. } | FollowUp::RemoveLabel { .. } | FollowUp::SetRatePolicy { .. }, None)
            | (FollowUp::LogOutFirst, _) => {}
        }
    }
    extras
}

/// Whether a verdict defers the operation, and to when. Only a delete can wait.
pub(crate) fn deferral(verdict: &Verdict, question: &Question) -> Result<Option<(Timestamp, String)>, Box<Veto>> {
    match verdict {
        Verdict::Deferred { until, reason, .. } if matches!(question.operation, Operation::SessionDelete { .. }) => {
            // A policy that puts off what is due by less would be asked again and again.
            let least = question.due_since.map(|_| question.now.after(LEAST_POSTPONEMENT));
            Ok(Some(((*until).max(least.unwrap_or_default()), reason.clone())))
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
