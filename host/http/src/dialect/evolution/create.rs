//! A new instance: one body says what it is, how it behaves, where its events go and whether it connects at once.

use std::time::Duration;

use hyper::StatusCode;
use portcullis_core::operation::CreateSession;
use portcullis_core::{Operation, Secret, Session, WebhookSpec};
use portcullis_service::KEY_PREFIX;
use portcullis_service::Outcome;
use serde_json::{Map, Value, json};

use super::schema::{self, Field, Kind, Schema};
use super::settings::{self, ProxyNames};
use super::webhook::{self, EVENT_LIST};
use super::{mismatch, problem, view};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// The longest name, in characters.
const MAX_NAME: usize = 100;
/// How long a token is: a guess must be hopeless, and it must fit into a header.
const TOKEN: std::ops::RangeInclusive<usize> = 16..=256;
/// How long the answer waits for a first code.
const CODE_WAIT: Duration = Duration::from_secs(5);

/// Settings of other integrations are accepted in any form and ignored.
const CREATE: Schema = &[
    Field::required("instanceName", Kind::Text),
    Field::new("integration", Kind::Text),
    Field::new("token", Kind::Text),
    Field::new("number", Kind::Pattern("^\\d+[\\.@\\w-]+", is_number)),
    Field::new("qrcode", Kind::Flag),
    Field::new("businessId", Kind::Text),
    Field::new("rejectCall", Kind::Flag),
    Field::new("msgCall", Kind::Text),
    Field::new("groupsIgnore", Kind::Flag),
    Field::new("alwaysOnline", Kind::Flag),
    Field::new("readMessages", Kind::Flag),
    Field::new("readStatus", Kind::Flag),
    Field::new("syncFullHistory", Kind::Flag),
    Field::new("wavoipToken", Kind::Text),
    Field::new("proxyHost", Kind::Text),
    Field::new("proxyPort", Kind::Text),
    Field::new("proxyProtocol", Kind::Text),
    Field::new("proxyUsername", Kind::Text),
    Field::new("proxyPassword", Kind::Text),
    Field::new("webhook", Kind::Object(webhook::FIRST)),
    // The names of an older version, which are checked and mean nothing.
    Field::new("webhookUrl", Kind::Text),
    Field::new("webhookByEvents", Kind::Flag),
    Field::new("webhookBase64", Kind::Flag),
    Field::new("webhookEvents", Kind::List(&EVENT_LIST)),
];

/// Digits, and at least one more character of a JID after the first.
fn is_number(text: &str) -> bool {
    let mut bytes = text.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_digit());
    begins && bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte))
}

pub(super) fn create(incoming: &Incoming) -> Result<Asked, Problem> {
    let body = schema::read(incoming, CREATE)?;
    if schema::text(&body, "integration") != Some(view::INTEGRATION) {
        return Err(problem::bad("Invalid integration"));
    }
    let (name, token) = (name(&body)?, token(&body)?);
    let phone = schema::filled(&body, "number").map(phone).transpose()?;
    let proxy = schema::filled(&body, "proxyHost").map(|_| settings::proxy(&body, ProxyNames::CREATE)).transpose()?;
    let start = schema::flag(&body, "qrcode");
    let operation = Operation::SessionCreate(CreateSession {
        instance_name: Some(name),
        settings: settings::settings(&body)?,
        start,
        pairing_phone: phone.clone().filter(|_| start).map(Secret::new),
        expected_phone: phone,
        make_token: token.is_none(),
        token,
        proxy,
        webhooks: first_webhook(&body)?.into_iter().collect(),
        ..CreateSession::default()
    });
    Ok(Asked::Operate { operation, then: if start { WaitFor::PairingCode(CODE_WAIT) } else { WaitFor::Nothing } })
}

fn name(body: &Map<String, Value>) -> Result<String, Problem> {
    let name = schema::text(body, "instanceName").unwrap_or_default().trim();
    if name.is_empty() {
        return Err(problem::bad("The \"instanceName\" cannot be empty"));
    }
    // A name is a segment of paths.
    let fits = name.chars().count() <= MAX_NAME && !name.chars().any(|c| c == '/' || c.is_control());
    if fits && !matches!(name, "." | "..") {
        return Ok(name.to_owned());
    }
    Err(problem::bad(format!("The \"instanceName\" must be at most {MAX_NAME} characters without \"/\"")))
}

fn token(body: &Map<String, Value>) -> Result<Option<Secret>, Problem> {
    let Some(token) = schema::filled(body, "token") else { return Ok(None) };
    if token.starts_with(KEY_PREFIX) {
        return Err(problem::bad(format!("The \"token\" must not begin with \"{KEY_PREFIX}\", as keys do")));
    }
    let fits = TOKEN.contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        return Ok(Some(Secret::new(token)));
    }
    let (least, most) = (TOKEN.start(), TOKEN.end());
    Err(problem::bad(format!("The \"token\" must be {least} to {most} printable ASCII characters without spaces")))
}

/// The digits of a phone number, which may be followed by the rest of a JID.
pub(super) fn phone(number: &str) -> Result<String, Problem> {
    let digits: String =
        number.split(['@', ':']).next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    if (7..=15).contains(&digits.len()) {
        return Ok(digits);
    }
    Err(problem::bad("The \"number\" must be 7 to 15 digits with the country code"))
}

fn first_webhook(body: &Map<String, Value>) -> Result<Option<WebhookSpec>, Problem> {
    schema::object(body, "webhook").map(webhook::spec).transpose()
}

pub(super) fn created(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Operated(done) = answer else { return mismatch() };
    match (&done.outcome, &done.session) {
        (Outcome::DryRun(verdict), _) => problem::dry_run(verdict),
        (_, Some(session)) => Reply::json(StatusCode::CREATED, &view_of(session, &schema::again(context.request))),
        (_, None) => mismatch(),
    }
}

fn view_of(session: &Session, body: &Map<String, Value>) -> Value {
    let webhook = match first_webhook(body) {
        Ok(Some(spec)) => json!({
            "webhookUrl": spec.url,
            "webhookHeaders": spec.headers.iter().map(|(name, value)| (name.clone(), json!(value.reveal()))).collect::<Map<_, _>>(),
            "webhookByEvents": spec.path_per_event,
            "webhookBase64": spec.inline_media,
        }),
        _ => json!({}),
    };
    let mut view = json!({
        "instance": {
            "instanceName": session.names.instance_name,
            "instanceId": session.names.uuid,
            "integration": view::INTEGRATION,
            "webhookWaBusiness": null,
            "accessTokenWaBusiness": "",
            "status": view::state(session),
        },
        "hash": session.token.as_ref().map(Secret::reveal),
        "webhook": webhook,
        "websocket": {},
        "rabbitmq": {},
        "nats": {},
        "sqs": {},
        "settings": view::settings(&session.settings, true),
    });
    if schema::flag(body, "qrcode") {
        view["qrcode"] = view::code(session);
    }
    view
}

#[cfg(test)]
mod test {
    use super::*;

    fn body(field: &str, value: &str) -> Map<String, Value> {
        Map::from_iter([(field.to_owned(), json!(value))])
    }

    #[test]
    fn names_are_segments_of_paths() {
        let check = |given: &str, expected: Option<&str>| {
            assert_eq!(name(&body("instanceName", given)).ok().as_deref(), expected, "{given:?}");
        };
        check("t1", Some("t1"));
        check("  Vendas São Paulo: 1 ", Some("Vendas São Paulo: 1"));
        check(&"é".repeat(MAX_NAME), Some(&"é".repeat(MAX_NAME)));
        check(&"é".repeat(MAX_NAME + 1), None);
        check("", None);
        check("  ", None);
        check("a/b", None);
        check("a\nb", None);
        check("..", None);
    }

    #[test]
    fn tokens_are_long_and_fit_into_a_header() {
        let check = |given: &str, fits: bool| assert_eq!(token(&body("token", given)).is_ok(), fits, "{given:?}");
        check("", true);
        check("0123456789abcdef", true);
        check("0123456789abcde", false);
        check("0123456789 abcdef", false);
        check("0123456789abcdé…", false);
        check(&"x".repeat(257), false);
        assert_eq!(token(&body("token", "")).ok().flatten(), None);
    }

    #[test]
    fn numbers_have_the_form_that_clients_know() {
        let check = |text: &str, fits: bool| assert_eq!(is_number(text), fits, "{text:?}");
        check("628123456789", true);
        check("628123456789@s.whatsapp.net", true);
        check("1", false);
        check("+62", false);
        check("", false);
        for (number, expected) in [
            ("628123456789", Some("628123456789")),
            ("628123456789@s.whatsapp.net", Some("628123456789")),
            ("628123456789:3@s.whatsapp.net", Some("628123456789")),
            ("123456", None),
            ("1234567890123456", None),
        ] {
            assert_eq!(phone(number).ok().as_deref(), expected, "{number}");
        }
    }
}
