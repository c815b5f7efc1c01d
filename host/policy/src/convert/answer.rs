//! From a guest's answers to the core's, refusing what breaks the contract's bounds.

use portcullis_core::operation::{CreateSession, SendText, WhenPairing, WhenStopped, WhenUnpaired};
use portcullis_core::rate::plugin_counter;
use portcullis_core::session::Settings;
use portcullis_core::{
    Decision, FollowUp, Grant, Labels, LimitCheck, Operation, OperationKind, Patch, PluginId, RateLimits, Secret,
    SessionId, Timestamp, Window, label,
};

use crate::Pacing;
use crate::bindings::portcullis::policy::{pace, types};

/// The longest window that a plugin can count over, in milliseconds.
const LONGEST_WINDOW: u64 = 24 * 60 * 60 * 1000;
const CODE_BYTES: usize = 64;
const SLUG_BYTES: usize = 64;
const SENTENCE_BYTES: usize = 4096;
const NAME_BYTES: usize = 255;
const KEY_BYTES: usize = 128;
const JSON_BYTES: usize = 64 << 10;
const TEXT_BYTES: usize = 64 << 10;
/// The most limits, and the most follow-ups, of one answer.
const ITEMS: usize = 16;

/// Which part of an answer breaks the contract; for the plugin's log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} breaks the contract: {why}")]
pub(crate) struct Broken {
    part: &'static str,
    why: &'static str,
}

type Checked<T> = Result<T, Broken>;

/// Whose answer is converted, and when.
pub(crate) struct Teller<'a> {
    pub(crate) plugin: PluginId,
    pub(crate) grants: &'a [Grant],
    pub(crate) now: Timestamp,
}

impl Teller<'_> {
    /// A gate's decision.
    ///
    /// A deferral to a point that has passed is an `allow`: the wait is over.
    pub(crate) fn decision(&self, decision: types::Decision) -> Checked<Decision> {
        Ok(match decision {
            types::Decision::Allow => Decision::Allow,
            types::Decision::Deny(denial) => Decision::Deny {
                code: word("deny.code", denial.code, CODE_BYTES)?,
                message: sentence("deny.message", denial.message)?,
                retry_after: denial.retry_after,
            },
            types::Decision::Defer(deferral) => {
                let until = Timestamp::from_millis(deferral.until);
                let reason = sentence("defer.reason", deferral.reason)?;
                if until <= self.now { Decision::Allow } else { Decision::Defer { until, reason } }
            }
            types::Decision::Amend(change) => Decision::Amend { patch: patch(change)? },
            types::Decision::Confirm(question) => {
                let expires = Timestamp::from_millis(question.expires);
                if expires <= self.now {
                    return Err(Broken { part: "confirm.expires", why: "it has passed, so nobody could answer" });
                }
                Decision::Confirm {
                    prompt: sentence("confirm.prompt", question.prompt)?,
                    expires,
                    answer: question.answer.map(|answer| bounded("confirm.answer", answer, NAME_BYTES)).transpose()?,
                }
            }
            types::Decision::Limit(limitation) => Decision::Limit {
                limits: self.limits(limitation.limits)?,
                message: sentence("limit.message", limitation.message)?,
            },
            types::Decision::Extend(follow_ups) => Decision::Extend { follow_ups: self.follow_ups(follow_ups)? },
        })
    }

    /// An observer's or a timer's follow-ups.
    pub(crate) fn follow_ups(&self, follow_ups: Vec<types::FollowUp>) -> Checked<Vec<FollowUp>> {
        if follow_ups.len() > ITEMS {
            return Err(Broken { part: "follow-ups", why: "there are more than 16" });
        }
        follow_ups.into_iter().map(|follow_up| self.follow_up(follow_up)).collect()
    }

    fn limits(&self, limits: Vec<types::Limit>) -> Checked<Vec<LimitCheck>> {
        if limits.len() > ITEMS {
            return Err(Broken { part: "limit.limits", why: "there are more than 16" });
        }
        let check = |limit: types::Limit| {
            let counter = bounded("limit.counter", limit.counter, KEY_BYTES)?;
            if counter.is_empty() || limit.window == types::Window::Sliding(0) {
                return Err(Broken { part: "limit", why: "it has no counter or no window" });
            }
            // Hits are kept for a little longer than a day, so a longer window would count too few.
            if matches!(limit.window, types::Window::Sliding(millis) if millis > LONGEST_WINDOW) {
                return Err(Broken { part: "limit.window", why: "it is longer than 24 hours" });
            }
            let counter = plugin_counter(self.plugin, &counter);
            Ok(LimitCheck { counter, window: window(limit.window), max: limit.max })
        };
        limits.into_iter().map(check).collect()
    }

    fn follow_up(&self, follow_up: types::FollowUp) -> Checked<FollowUp> {
        Ok(match follow_up {
            types::FollowUp::LogOutFirst => FollowUp::LogOutFirst,
            types::FollowUp::EmitEvent(event) => FollowUp::EmitEvent {
                name: word("emit-event.name", event.name, CODE_BYTES)?,
                json: json("emit-event.json", event.json)?,
            },
            types::FollowUp::SetTimer(timer) => FollowUp::SetTimer {
                key: key("set-timer.key", timer.key)?,
                at: Timestamp::from_millis(timer.at),
                payload: bounded_text("set-timer.payload", timer.payload, TEXT_BYTES)?,
            },
            types::FollowUp::CancelTimer(timer) => FollowUp::CancelTimer { key: key("cancel-timer", timer)? },
            types::FollowUp::SetLabel(types::Label { key, value }) => {
                check_label("set-label", &key, &value)?;
                FollowUp::SetLabel { key, value }
            }
            types::FollowUp::RemoveLabel(key) => {
                check_label("remove-label", &key, "")?;
                FollowUp::RemoveLabel { key }
            }
            types::FollowUp::SetRatePolicy(slug) => {
                FollowUp::SetRatePolicy { slug: word("set-rate-policy", slug, SLUG_BYTES)? }
            }
            types::FollowUp::Request(request) => {
                if !self.grants.contains(&Grant::Lifecycle) {
                    return Err(Broken { part: "request", why: "the binding does not grant lifecycle" });
                }
                FollowUp::Request { operation: Box::new(operation(request)?) }
            }
        })
    }
}

/// A plugin's limits for a session.
pub(crate) fn pacing(pacing: pace::Pacing) -> Pacing {
    let limits = pacing.limits;
    Pacing {
        limits: RateLimits {
            send_message_per_minute: limits.send_message_per_minute,
            send_message_daily_cap: limits.send_message_daily_cap,
            account_protection_seconds: limits.account_protection_seconds,
            concurrent_limit: limits.concurrent_limit,
            group_req_per_minute: limits.group_req_per_minute,
            group_daily_cap: limits.group_daily_cap,
            check_req_per_minute: limits.check_req_per_minute,
            check_daily_cap: limits.check_daily_cap,
        },
        valid_until: Timestamp::from_millis(pacing.valid_until),
    }
}

/// A window.
pub(crate) fn window(window: types::Window) -> Window {
    match window {
        types::Window::Sliding(millis) => Window::Sliding(millis),
        types::Window::UtcDay => Window::UtcDay,
    }
}

fn patch(patch: types::Patch) -> Checked<Patch> {
    Ok(match patch {
        types::Patch::SessionCreate(create) => Patch::SessionCreate {
            display_name: create
                .display_name
                .map(|name| bounded("amend.display-name", name, NAME_BYTES))
                .transpose()?,
            set_labels: labels("amend.set-labels", create.set_labels)?,
            remove_labels: label_keys("amend.remove-labels", create.remove_labels)?,
            rate_policy: create.rate_policy.map(|slug| word("amend.rate-policy", slug, SLUG_BYTES)).transpose()?,
        },
        types::Patch::SessionLabels(change) => Patch::SessionLabels {
            set: labels("amend.set", change.set)?,
            remove: label_keys("amend.remove", change.remove)?,
        },
        types::Patch::SessionRatePolicy(slug) => {
            Patch::SessionRatePolicy { slug: word("amend.rate-policy", slug, SLUG_BYTES)? }
        }
        types::Patch::MessageSend(text) => Patch::MessageSend { text: bounded_text("amend.text", text, TEXT_BYTES)? },
    })
}

/// Keys of labels to take out.
fn label_keys(part: &'static str, keys: Vec<String>) -> Checked<Vec<String>> {
    if keys.len() > label::MAX_LABELS {
        return Err(Broken { part, why: "it names more labels than there can be" });
    }
    for key in &keys {
        check_label(part, key, "")?;
    }
    Ok(keys)
}

/// An operation that a plugin asks for. It is authorised and gated like any other, so only its form is checked here.
///
/// The contract says less than the core: a start or restart of a session that is not linked is refused, and a logout connects if it must.
fn operation(request: types::Request) -> Checked<Operation> {
    let broken = |why| Broken { part: "request", why };
    let types::Operation { name, detail } = request.operation;
    let kind = OperationKind::from_name(&name).ok_or_else(|| broken("there is no such operation"))?;
    let session = || -> Checked<SessionId> {
        let id = request.session.as_deref().ok_or_else(|| broken("it names no session"))?;
        id.parse().map_err(|_| broken("its session is no id"))
    };
    let when_unpaired = WhenUnpaired::Refuse;
    Ok(match (kind, detail) {
        (OperationKind::SessionStart, types::Detail::Plain) => {
            Operation::SessionStart { session: session()?, when_unpaired }
        }
        (OperationKind::SessionStop, types::Detail::Plain) => Operation::SessionStop { session: session()? },
        (OperationKind::SessionRestart, types::Detail::Plain) => {
            Operation::SessionRestart { session: session()?, when_unpaired, when_stopped: WhenStopped::Connect }
        }
        (OperationKind::SessionLogout, types::Detail::Plain) => {
            Operation::SessionLogout { session: session()?, when_stopped: WhenStopped::Connect }
        }
        (OperationKind::SessionDelete, types::Detail::Plain) => Operation::SessionDelete { session: session()? },
        (OperationKind::SessionRestore, types::Detail::Plain) => Operation::SessionRestore { session: session()? },
        (OperationKind::SessionQr, types::Detail::Plain) => Operation::SessionQr { session: session()? },
        (OperationKind::SessionCreate, types::Detail::SessionCreate(create)) => {
            Operation::SessionCreate(CreateSession {
                display_name: optional("request.display-name", create.display_name)?,
                instance_name: optional("request.instance-name", create.instance_name)?,
                labels: labels("request.labels", create.labels)?,
                settings: Settings::default(),
                rate_policy: create
                    .rate_policy
                    .map(|slug| word("request.rate-policy", slug, SLUG_BYTES))
                    .transpose()?,
                start: create.start,
                ..CreateSession::default()
            })
        }
        (OperationKind::SessionPairingCode, types::Detail::SessionPairingCode(phone)) => {
            if phone.is_empty() || phone.len() > 15 || !phone.bytes().all(|digit| digit.is_ascii_digit()) {
                return Err(broken("its phone number is not 1 to 15 digits"));
            }
            Operation::SessionPairingCode {
                session: session()?,
                phone: Secret::new(phone),
                when_pairing: WhenPairing::Refuse,
            }
        }
        (OperationKind::SessionLabels, types::Detail::SessionLabels(all)) => {
            Operation::SessionLabels { session: session()?, labels: labels("request.labels", all)? }
        }
        (OperationKind::SessionRatePolicy, types::Detail::SessionRatePolicy(slug)) => {
            Operation::SessionRatePolicy { session: session()?, slug: word("request.slug", slug, SLUG_BYTES)? }
        }
        (OperationKind::MessageSend, types::Detail::MessageSend(message)) => Operation::MessageSend(SendText {
            reply_to: optional("request.reply-to", message.reply_to)?,
            ..SendText::plain(
                session()?,
                bounded("request.to", message.to, NAME_BYTES)?,
                bounded_text("request.text", message.text, TEXT_BYTES)?,
            )
        }),
        _ => return Err(broken("its detail does not belong to its operation")),
    })
}

fn labels(part: &'static str, list: Vec<types::Label>) -> Checked<Labels> {
    let count = list.len();
    let labels: Labels = list.into_iter().map(|label| (label.key, label.value)).collect();
    if labels.len() != count {
        return Err(Broken { part, why: "a key is there twice" });
    }
    label::check(&labels).map_err(|_| Broken { part, why: "a label breaks the rules for labels" })?;
    Ok(labels)
}

fn check_label(part: &'static str, key: &str, value: &str) -> Checked<()> {
    label::check_one(key, value).map_err(|_| Broken { part, why: "it breaks the rules for labels" })
}

/// A stable word: 1 to `most` characters of a-z, 0-9, `_`, `-` and `.`.
fn word(part: &'static str, text: String, most: usize) -> Checked<String> {
    let in_alphabet = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    if text.is_empty() || text.len() > most || !text.bytes().all(in_alphabet) {
        return Err(Broken { part, why: "it must be 1 to 64 characters of a-z, 0-9, '_', '-' and '.'" });
    }
    Ok(text)
}

/// A sentence for people. Control characters become spaces: it ends up in logs and headers.
fn sentence(part: &'static str, text: String) -> Checked<String> {
    let text = bounded_text(part, text, SENTENCE_BYTES)?;
    if text.chars().any(char::is_control) {
        return Ok(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
    }
    Ok(text)
}

fn key(part: &'static str, text: String) -> Checked<String> {
    if text.is_empty() {
        return Err(Broken { part, why: "it is empty" });
    }
    bounded(part, text, KEY_BYTES)
}

fn optional(part: &'static str, text: Option<String>) -> Checked<Option<String>> {
    text.map(|text| bounded(part, text, NAME_BYTES)).transpose()
}

/// A short text of printable characters.
fn bounded(part: &'static str, text: String, most: usize) -> Checked<String> {
    if text.chars().any(char::is_control) {
        return Err(Broken { part, why: "it has control characters" });
    }
    bounded_text(part, text, most)
}

fn bounded_text(part: &'static str, text: String, most: usize) -> Checked<String> {
    if text.len() > most { Err(Broken { part, why: "it is too long" }) } else { Ok(text) }
}

fn json(part: &'static str, text: String) -> Checked<String> {
    let text = bounded_text(part, text, JSON_BYTES)?;
    // As a value, because that is how it will be read: what only looks like JSON at a glance would break whoever gets it.
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(Broken { part, why: "it is not JSON" }),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn decide(decision: types::Decision) -> Checked<Decision> {
        Teller { plugin: PluginId::from_bytes([1; 16]), grants: &[], now: NOW }.decision(decision)
    }

    fn deny(code: &str, message: &str) -> types::Decision {
        types::Decision::Deny(types::Denial { code: code.into(), message: message.into(), retry_after: None })
    }

    fn limit(counter: &str, window: types::Window) -> types::Decision {
        let limit = types::Limit { counter: counter.into(), window, max: 10 };
        types::Decision::Limit(types::Limitation { limits: vec![limit], message: "slow down".into() })
    }

    #[test]
    fn codes_are_words_and_messages_are_bounded_lines() {
        for bad in ["", "No", "a b", &"x".repeat(65)] {
            assert!(decide(deny(bad, "no")).is_err(), "{bad:?} was taken for a code");
        }
        assert!(decide(deny("no", &"x".repeat(4097))).is_err());
        let Ok(Decision::Deny { message, .. }) = decide(deny("legal_hold.on-2", "a\nb")) else { panic!("not denied") };
        assert_eq!(message, "a b");
    }

    #[test]
    fn a_deferral_that_is_over_allows() {
        let defer = |until| decide(types::Decision::Defer(types::Deferral { until, reason: String::new() }));
        assert_eq!(defer(0), Ok(Decision::Allow));
        assert_eq!(defer(1_000), Ok(Decision::Allow));
        assert!(matches!(defer(1_001), Ok(Decision::Defer { .. })));
    }

    #[test]
    fn a_question_that_nobody_could_answer_breaks_the_contract() {
        let ask = types::Question { prompt: "sure?".into(), expires: 1_000, answer: None };
        assert!(decide(types::Decision::Confirm(ask)).is_err());
    }

    #[test]
    fn counters_live_in_the_plugins_own_space() {
        let Ok(Decision::Limit { limits, .. }) = decide(limit("send:sess_1", types::Window::UtcDay)) else {
            panic!("not limited")
        };
        let plugin = PluginId::from_bytes([1; 16]);
        assert_eq!(limits[0].counter, format!("plugin:{plugin}:send:sess_1"));
        assert!(decide(limit("", types::Window::UtcDay)).is_err());
        assert!(decide(limit(&"x".repeat(129), types::Window::UtcDay)).is_err());
        assert!(decide(limit("x", types::Window::Sliding(0))).is_err());
        assert!(decide(limit("x", types::Window::Sliding(LONGEST_WINDOW))).is_ok());
        assert!(decide(limit("x", types::Window::Sliding(LONGEST_WINDOW + 1))).is_err());
    }

    #[test]
    fn follow_ups_are_few_and_valid() {
        let extend = |list: Vec<types::FollowUp>| decide(types::Decision::Extend(list));
        assert!(extend(vec![types::FollowUp::LogOutFirst; 16]).is_ok());
        assert!(extend(vec![types::FollowUp::LogOutFirst; 17]).is_err());
        let event = |json: &str| types::FollowUp::EmitEvent(types::NamedJson { name: "x".into(), json: json.into() });
        assert!(extend(vec![event("{\"a\": 1}")]).is_ok());
        assert!(extend(vec![event("{")]).is_err());
        assert!(extend(vec![types::FollowUp::SetLabel(types::Label { key: "a b".into(), value: "".into() })]).is_err());
    }

    #[test]
    fn requests_need_the_grant_and_a_detail_that_fits() {
        let session = SessionId::from_bytes([2; 16]);
        let request = |detail| {
            let operation = types::Operation { name: "session.delete".into(), detail };
            vec![types::FollowUp::Request(types::Request { operation, session: Some(session.to_string()) })]
        };
        let ask = |grants: &[Grant], detail| {
            Teller { plugin: PluginId::from_bytes([1; 16]), grants, now: NOW }.follow_ups(request(detail))
        };
        let granted = [Grant::Lifecycle];
        let expected = FollowUp::Request { operation: Box::new(Operation::SessionDelete { session }) };
        assert_eq!(ask(&granted, types::Detail::Plain), Ok(vec![expected]));
        assert!(ask(&granted, types::Detail::SessionRatePolicy("x".into())).is_err());
        assert!(ask(&[], types::Detail::Plain).is_err());
    }

    #[test]
    fn amended_labels_keep_the_rules_for_labels() {
        let set = |labels: &[(&str, &str)]| {
            let set = labels.iter().map(|(k, v)| types::Label { key: (*k).into(), value: (*v).into() }).collect();
            let change = types::SessionLabelsPatch { set, remove: vec![] };
            decide(types::Decision::Amend(types::Patch::SessionLabels(change)))
        };
        assert!(set(&[("team", "a")]).is_ok());
        assert!(set(&[("team", "a"), ("team", "b")]).is_err());
        assert!(set(&[("", "a")]).is_err());
    }
}
