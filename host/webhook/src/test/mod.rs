//! Events as every format tells them, and what holds of all formats.

mod schedules;
mod signatures;

use std::fmt::Write as _;

use expect_test::expect_file;
use portcullis_core::session::{AccountLimit, FailureCause, LoggedOutBy, PairingCode, PairingMethod};
use portcullis_core::webhook::DisabledBecause;
use portcullis_core::{
    Device, DomainEvent, EventBody, EventFormat, EventId, EventKind, MessageId, MessageStage, Names, OrgId,
    RetryPolicy, Secret, Session, SessionId, Timestamp, Unlink, Webhook, WebhookId, WebhookSpec,
};
use serde_json::Value;

use super::*;

const FORMATS: [EventFormat; 4] =
    [EventFormat::Router, EventFormat::Standard, EventFormat::Wawp, EventFormat::Evolution];
const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_120);
const PHONE: &str = "628123456789@s.whatsapp.net";

fn spec(format: EventFormat, events: &[&str]) -> WebhookSpec {
    WebhookSpec {
        format,
        url: "https://example.com/hook?of=acme".to_owned(),
        events: events.iter().map(|name| (*name).to_owned()).collect(),
        headers: std::collections::BTreeMap::new(),
        secret: None,
        retry: RetryPolicy::default(),
        active: true,
        path_per_event: false,
        inline_media: false,
    }
}

fn webhook(spec: WebhookSpec) -> Webhook {
    Webhook {
        id: WebhookId::from_bytes([4; 16]),
        org: OrgId::from_bytes([1; 16]),
        session: None,
        spec,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
        retired: None,
        disabled: None,
    }
}

fn device() -> Device {
    Device { jid: PHONE.to_owned(), lid: Some("123123@lid".to_owned()), push_name: Some("Sales".to_owned()) }
}

fn about() -> About {
    let names = Names::new(0x0123_4567_89ab_cdef_0123_3eb0_bcb2_e3d4, Some("sales".to_owned()));
    let (id, org) = (SessionId::from_bytes([5; 16]), OrgId::from_bytes([1; 16]));
    About::from(&Session { device: Some(device()), ..Session::new(id, org, names, NOW) })
}

fn event(body: EventBody) -> DomainEvent {
    let of_org = matches!(
        body.kind(),
        EventKind::PluginSuspended | EventKind::WebhookDisabled | EventKind::Fact | EventKind::PluginEvent
    );
    DomainEvent {
        id: EventId::new(NOW, 7),
        org: OrgId::from_bytes([1; 16]),
        session: (!of_org).then(|| SessionId::from_bytes([5; 16])),
        at: NOW,
        generation: 3,
        device: (!of_org && !body.outlives_session()).then(device),
        body,
    }
}

fn telling<'a>(event: &'a DomainEvent, about: &'a About) -> Telling<'a> {
    Telling {
        event,
        seq: 12,
        about: event.session.map(|_| about),
        server_url: Some("https://gateway.example.com"),
        engine: "SIMULATED",
    }
}

fn status(from: &str, to: &str) -> EventBody {
    EventBody::StatusChanged { from: from.to_owned(), to: to.to_owned(), cause: None, by: None }
}

fn failed(cause: FailureCause) -> EventBody {
    let (from, to) = ("pairing".to_owned(), "failed".to_owned());
    EventBody::StatusChanged { from, to, cause: Some(cause), by: None }
}

fn logged_out(by: LoggedOutBy) -> EventBody {
    let (from, to) = ("online".to_owned(), "logged-out".to_owned());
    EventBody::StatusChanged { from, to, cause: None, by: Some(by) }
}

fn code(method: PairingMethod, text: &str) -> EventBody {
    let expires_at = NOW.after(std::time::Duration::from_secs(20));
    EventBody::PairingCodeIssued { method, code: PairingCode { text: Secret::new(text), expires_at, ordinal: 1 } }
}

/// Events of every kind, and of some several.
fn samples() -> Vec<EventBody> {
    let delivery = MessageId::from_bytes([6; 16]);
    let limit = AccountLimit { code: "463".to_owned(), until: None, since: NOW };
    let text = |text: &str| text.to_owned();
    vec![
        EventBody::SessionCreated,
        status("stopped", "starting"),
        status("stopped", "pairing"),
        status("starting", "online"),
        status("online", "reconnecting"),
        status("online", "stopped"),
        status("stopped", "removing"),
        status("online", "removing"),
        failed(FailureCause::PairingExpired),
        failed(FailureCause::Banned),
        logged_out(LoggedOutBy::Api),
        logged_out(LoggedOutBy::Phone),
        code(PairingMethod::Qr, "2@x"),
        code(PairingMethod::Code, "ABCD-1234"),
        EventBody::PasskeyRequested,
        EventBody::Linked { device: device() },
        EventBody::Unlinked { unlink: Unlink::Confirmed },
        EventBody::AccountLimited { limit },
        EventBody::RatePolicyChanged { slug: text("strict") },
        EventBody::LabelsChanged,
        EventBody::SettingsChanged,
        EventBody::DeleteScheduled { due: NOW, reason: text("thirty days of grace") },
        EventBody::Restored,
        EventBody::DeleteCancelled { code: text("renewed"), reason: text("the plan was renewed") },
        EventBody::Deleting,
        EventBody::Deleted,
        EventBody::PluginSuspended { plugin: text("churn"), version: 2, org: OrgId::from_bytes([1; 16]) },
        EventBody::PolicyDenied { operation: text("session.delete"), code: text("not_now") },
        EventBody::MessageIn {
            message: text("3EB0A1"),
            from: text("4915112345678@s.whatsapp.net"),
            sender: None,
            name: None,
            sent_at: None,
            text: text("hi"),
        },
        EventBody::MessageIn {
            message: text("3EB0A4"),
            from: text("120363025246125486@g.us"),
            sender: Some(text("4915112345678@s.whatsapp.net")),
            name: Some(text("Ada")),
            sent_at: Some(Timestamp::from_millis(1_767_225_590_000)),
            text: text("hi all"),
        },
        EventBody::MessageOut {
            message: text("3EB0A2"),
            to: text("4915112345678@s.whatsapp.net"),
            delivery: Some(delivery),
            text: Some(text("hello")),
        },
        EventBody::MessageFailed { delivery, to: text("4915112345678@s.whatsapp.net"), code: text("send_refused") },
        EventBody::MessageStatus {
            messages: vec![text("3EB0A2"), text("3EB0A3")],
            chat: text("4915112345678@s.whatsapp.net"),
            stage: MessageStage::Read,
        },
        EventBody::WebhookDisabled { webhook: WebhookId::from_bytes([4; 16]), why: DisabledBecause::Gone },
        EventBody::WebhookTest { webhook: WebhookId::from_bytes([4; 16]) },
        EventBody::Fact { id: text("inv_7"), name: text("subscription.cancelled"), json: text(r#"{"plan": "pro"}"#) },
        EventBody::PluginEvent { plugin: text("churn"), name: text("at-risk"), json: text(r#"{"score": 7}"#) },
    ]
}

/// A picture is too long to read; that it scans is shown where pictures are made.
fn shortened(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("data:image/png;base64,") => *text = "data:image/png;base64,…".into(),
        Value::Array(entries) => entries.iter_mut().for_each(shortened),
        Value::Object(fields) => fields.values_mut().for_each(shortened),
        _ => {}
    }
}

fn golden(format: EventFormat) -> String {
    let (spec, about) = (spec(format, &["*"]), about());
    let mut golden = String::new();
    for body in samples() {
        let event = event(body);
        let kind = event.body.kind();
        match &event.body {
            EventBody::StatusChanged { from, to, .. } => writeln!(golden, "=== {} ({from} to {to})", kind.name()),
            _ => writeln!(golden, "=== {}", kind.name()),
        }
        .unwrap();
        for part in (0..).zip(parts(format, kind)).map(|(part, _)| part) {
            match message(&spec, part, &telling(&event, &about)) {
                Some(message) => {
                    let mut body: Value = serde_json::from_slice(&message.body).unwrap();
                    shortened(&mut body);
                    writeln!(golden, "--- {} {}\n{body:#}", message.name, message.id).unwrap();
                }
                None => writeln!(golden, "--- {} is not told", parts(format, kind)[usize::from(part)]).unwrap(),
            }
        }
    }
    golden
}

#[test]
fn every_event_is_told_in_the_words_of_its_format() {
    expect_file!["../../golden/router.txt"].assert_eq(&golden(EventFormat::Router));
    expect_file!["../../golden/standard.txt"].assert_eq(&golden(EventFormat::Standard));
    expect_file!["../../golden/wawp.txt"].assert_eq(&golden(EventFormat::Wawp));
    expect_file!["../../golden/evolution.txt"].assert_eq(&golden(EventFormat::Evolution));
}

#[test]
fn there_is_a_sample_of_every_kind() {
    let sampled: Vec<EventKind> = samples().iter().map(EventBody::kind).collect();
    for kind in EventKind::ALL {
        assert!(sampled.contains(kind), "{} has none", kind.name());
    }
}

#[test]
fn whatever_is_told_can_be_subscribed_to() {
    for format in FORMATS {
        let known = vocabulary(format);
        // A test is told unasked.
        for kind in EventKind::ALL.iter().filter(|kind| **kind != EventKind::WebhookTest) {
            for name in parts(format, *kind) {
                assert!(known.contains(name), "{name} is not among the names of {}", format.name());
            }
        }
        let unique: std::collections::BTreeSet<_> = known.iter().collect();
        assert_eq!(unique.len(), known.len(), "{}", format.name());
    }
    assert!(FORMATS.iter().all(|format| parts(*format, EventKind::WebhookTest).len() == 1));
    assert_eq!(wanted(&spec(EventFormat::Router, &["*", "webhook.test"]), EventKind::WebhookTest).count(), 0);
    // The native formats leave no kind out.
    for format in [EventFormat::Router, EventFormat::Standard] {
        assert!(EventKind::ALL.iter().all(|kind| !parts(format, *kind).is_empty()));
    }
}

/// Short losses of the connection used up numbers, and to whoever heard everything each looked like a lost event.
#[test]
fn what_counts_is_what_the_native_formats_tell() {
    const STATUSES: [&str; 8] =
        ["stopped", "starting", "pairing", "online", "reconnecting", "logged-out", "failed", "removing"];
    let changes = STATUSES.iter().flat_map(|from| STATUSES.iter().map(|to| status(from, to)));
    for body in changes.chain(samples()).filter(|body| body.kind() != EventKind::WebhookTest) {
        let event = event(body);
        let told = message(&spec(EventFormat::Router, &["*"]), 0, &telling(&event, &about())).is_some();
        assert_eq!(event.body.counts(), told, "{:?}", event.body);
    }
}

#[test]
fn an_endpoint_is_told_what_it_named() {
    let check = |format: EventFormat, events: &[&str], kind: EventKind, expected: &[u8]| {
        let spec = spec(format, events);
        assert_eq!(wanted(&spec, kind).collect::<Vec<_>>(), expected, "{} of {events:?}", kind.name());
    };
    check(EventFormat::Wawp, &["*"], EventKind::MessageIn, &[0, 1]);
    check(EventFormat::Wawp, &["message.any"], EventKind::MessageIn, &[1]);
    check(EventFormat::Wawp, &["message"], EventKind::MessageOut, &[]);
    check(EventFormat::Wawp, &["engine.event"], EventKind::StatusChanged, &[]);
    check(EventFormat::Wawp, &["*"], EventKind::LabelsChanged, &[]);
    check(EventFormat::Evolution, &["REMOVE_INSTANCE"], EventKind::Deleted, &[1]);
    check(EventFormat::Evolution, &["CONNECTION_UPDATE", "QRCODE_UPDATED"], EventKind::StatusChanged, &[0, 2]);
    check(EventFormat::Evolution, &["connection.update"], EventKind::StatusChanged, &[]);
    check(EventFormat::Router, &["auth.code"], EventKind::Linked, &[1]);
    check(EventFormat::Standard, &["*"], EventKind::Linked, &[0]);
    check(EventFormat::Standard, &[], EventKind::Deleted, &[]);
}

/// The code that links a phone is told where it is waited for, and nowhere else.
#[test]
fn secrets_are_told_to_those_who_wait_for_them_only() {
    const MARKER: &str = "marker";
    let about = about();
    for format in FORMATS {
        let spec = WebhookSpec { secret: Some(mint([7; 32])), ..spec(format, &["*"]) };
        let spec = WebhookSpec { headers: [("X-Token".to_owned(), Secret::new(MARKER))].into(), ..spec };
        for body in samples().into_iter().chain([code(PairingMethod::Qr, "2@secret")]) {
            let event = event(body);
            for part in wanted(&spec, event.body.kind()) {
                let Some(message) = message(&spec, part, &telling(&event, &about)) else { continue };
                let text = String::from_utf8(message.body).unwrap();
                let is_code = matches!(event.body, EventBody::PairingCodeIssued { .. });
                assert!(!text.contains(MARKER) && !text.contains("whsec_"), "{text}");
                assert!(is_code || !text.contains("2@"), "{text}");
            }
        }
    }
}

#[test]
fn a_session_of_which_nothing_is_known_is_told_in_the_native_formats_only() {
    let event = event(EventBody::Deleted);
    let about = about();
    let telling = Telling { about: None, server_url: None, ..telling(&event, &about) };
    let check = |format: EventFormat, is_told: bool| {
        assert_eq!(message(&spec(format, &["*"]), 0, &telling).is_some(), is_told, "{}", format.name());
    };
    check(EventFormat::Router, true);
    check(EventFormat::Standard, true);
    check(EventFormat::Wawp, false);
    check(EventFormat::Evolution, false);
}

#[test]
fn what_is_kept_of_an_erased_session_says_not_whose_it_was() {
    let event = event(EventBody::Deleted);
    let bare = about().bare();
    for format in FORMATS {
        let message = message(&spec(format, &["*"]), 0, &telling(&event, &bare)).unwrap();
        let text = String::from_utf8(message.body).unwrap();
        assert!(!text.contains("628123456789") && !text.contains("Sales"), "{text}");
    }
    let kept: About = serde_json::from_str(&serde_json::to_string(&bare).unwrap()).unwrap();
    assert_eq!(kept, bare);
}

#[test]
fn parts_have_ids_of_their_own_which_stay_the_same() {
    let id = EventId::new(NOW, 7);
    let ids: Vec<EventId> = (0..4).map(|part| message_id(id, part)).collect();
    assert_eq!(ids[0], id);
    assert_eq!(ids[1].to_string(), "evt_01KDVDNA3RT21RAXEKCVCZWQAJ");
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), 4);
    assert!(ids.iter().all(|other| other.to_bytes()[..6] == id.to_bytes()[..6]), "{ids:?} were not born together");
}

#[test]
fn an_endpoint_can_be_what_can_be_told_and_signed() {
    let check = |spec: &WebhookSpec, expected: &str| {
        let found = check(spec).map_err(|error| format!("{}: {}", error.field(), error.told()));
        assert_eq!(found.err().unwrap_or_default(), expected);
    };
    for format in FORMATS {
        let spec = WebhookSpec { secret: Some(mint([7; 32])), ..spec(format, vocabulary(format)) };
        check(&spec, "");
        check(&WebhookSpec { events: vec!["*".to_owned()], ..spec.clone() }, "");
        let strange = WebhookSpec { events: vec!["*".to_owned(), "no.such".to_owned()], ..spec };
        check(&strange, &format!("events: there is no event \"no.such\" in the format {}", format.name()));
    }
    let standard = spec(EventFormat::Standard, &["*"]);
    check(&standard, "secret: a webhook of the format standard needs a secret");
    for kind in ["whsk_", "whsec_"] {
        let next = mint_like(&Secret::new(kind), [7; 32]);
        assert!(next.reveal().starts_with(kind));
        check(&WebhookSpec { secret: Some(next), ..standard.clone() }, "");
    }
    let secret = |text: &str| WebhookSpec { secret: Some(Secret::new(text)), ..standard.clone() };
    check(&secret("hunter2"), "secret: a key begins with whsec_ or whsk_");
    let signed = secret(mint([7; 32]).reveal());
    let hasty = WebhookSpec { retry: RetryPolicy { attempts: 3, ..RetryPolicy::default() }, ..signed };
    check(&hasty, "retryPolicy: a webhook of the format standard has its own times of retry");
}

#[test]
fn a_header_of_the_gateways_is_not_the_owners() {
    for name in ["Content-Type", "HOST", "content-length", "Transfer-Encoding", "X-Webhook-Hmac", "Webhook-Id"] {
        assert!(is_reserved(name), "{name}");
    }
    for name in ["Authorization", "User-Agent", "X-Token", "jwt_key", "Webhook"] {
        assert!(!is_reserved(name), "{name}");
    }
    assert!(promises_json("content-type", "Application/JSON; charset=utf-8"));
    assert!(!promises_json("Content-Type", "text/plain") && !promises_json("Accept", "application/json"));
}

#[test]
fn users_are_on_another_server_in_wawp() {
    let check = |jid: &str, expected: &str| assert_eq!(wawp::user(jid), expected);
    check("628123456789@s.whatsapp.net", "628123456789@c.us");
    check("628123456789:7@s.whatsapp.net", "628123456789@c.us");
    check("120363041234567890@g.us", "120363041234567890@g.us");
    check("123@lid", "123@lid");
}
