//! Linking: QR codes as text and as pictures, codes to type, and temporary links to a page that shows them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use portcullis_core::operation::{LinkChange, WhenPairing};
use portcullis_core::session::{PairingCode, PairingMethod};
use portcullis_core::{Operation, Secret, Session, Status};
use portcullis_service::Outcome;
use serde_json::{Value, json};

use super::sessions::after;
use super::{mismatch, operate, params, problem, told, view};
use crate::asked::{Answer, Asked, WaitFor};
use crate::dialect::{Problem, whole_seconds};
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

/// How long a request for a code waits for the first one.
const CODE_WAIT: Duration = Duration::from_secs(10);

/// The only format of a code is its text; a picture has an endpoint of its own.
pub(super) fn qr(incoming: &Incoming) -> Result<Asked, Problem> {
    match params::text(incoming, &["format"])?.as_deref() {
        None | Some("raw") => qr_image(incoming),
        Some(_) => Err(problem::invalid("format must be raw; pictures are at /v2/auth/qr-image")),
    }
}

pub(super) fn qr_image(incoming: &Incoming) -> Result<Asked, Problem> {
    let operation = Operation::SessionQr { session: params::session(incoming)? };
    Ok(Asked::Operate { operation, then: WaitFor::PairingCode(CODE_WAIT) })
}

pub(super) fn request_code(incoming: &Incoming) -> Result<Asked, Problem> {
    let session = params::session(incoming)?;
    let phone = digits(&params::required(incoming, &["phone_number", "phoneNumber", "phone"])?)?;
    // Clients are told to wait for SCAN_QR_CODE first, so that a QR code is shown already is no reason to refuse.
    let operation =
        Operation::SessionPairingCode { session, phone: Secret::new(phone), when_pairing: WhenPairing::Switch };
    Ok(Asked::Operate { operation, then: WaitFor::PairingCode(CODE_WAIT) })
}

/// The digits of a phone number, however it is written.
fn digits(text: &str) -> Result<String, Problem> {
    // Nobody writes 15 digits in more characters than this.
    let digits: String = text.chars().take(64).filter(char::is_ascii_digit).collect();
    if (7..=15).contains(&digits.len()) && text.len() <= 64 {
        Ok(digits)
    } else {
        Err(problem::invalid("phone_number must be 7 to 15 digits with the country code"))
    }
}

pub(super) fn rotate_link(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionLink { session: params::session(incoming)?, change: LinkChange::Rotate })
}

pub(super) fn revoke_link(incoming: &Incoming) -> Result<Asked, Problem> {
    operate(Operation::SessionLink { session: params::session(incoming)?, change: LinkChange::Revoke })
}

// === replies ===

/// The text with its end, as a JSON document in base 64.
pub(super) fn qr_text(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    shown(answer, PairingMethod::Qr, |code| {
        let document = json!({ "value": code.text, "expiry": code.expires_at });
        Some(json!({ "mimetype": "application/json", "data": STANDARD.encode(document.to_string()) }))
    })
}

pub(super) fn qr_picture(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    shown(answer, PairingMethod::Qr, |code| {
        let picture = portcullis_qr::data_url(code.text.reveal()).ok()?;
        Some(json!({ "qr": picture }))
    })
}

/// The only success with a `code` at its top, which elsewhere tells clients of a failure.
pub(super) fn typed_code(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    shown(answer, PairingMethod::Code, |code| Some(json!({ "code": code.text })))
}

fn shown(answer: Answer, wanted: PairingMethod, show: impl FnOnce(&PairingCode) -> Option<Value>) -> Reply {
    after(answer, |session| match &session.status {
        Status::Pairing { method, code: Some(code), .. } if *method == wanted => match show(code) {
            // A code is a credential: no cache may keep it.
            Some(body) => Reply::json(StatusCode::OK, &body).with("cache-control", "no-store"),
            None => mismatch(),
        },
        _ => told(&problem::no_code(view::status(session))),
    })
}

pub(super) fn link(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Session(session) = answer else { return mismatch() };
    link_of(context, &session)
}

pub(super) fn new_link(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    after(answer, |session| link_of(context, session))
}

fn link_of(context: &EncodeContext<'_>, session: &Session) -> Reply {
    let Some(link) = session.active_link(context.now) else {
        return Reply::json(StatusCode::OK, &json!({ "link": null }));
    };
    let body = json!({
        "link": format!("{}/temp-qr/{}", context.public_url, link.token.reveal()),
        "token": link.token,
        "expires_at": view::iso(link.expires_at),
        "expires_in": whole_seconds(link.expires_at.since(context.now)),
    });
    // So is a link.
    Reply::json(StatusCode::OK, &body).with("cache-control", "no-store")
}

pub(super) fn no_link(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let revoked = match &answer {
        Answer::Operated(done) => u8::from(matches!(done.outcome, Outcome::Done)),
        _ => 0,
    };
    after(answer, |_| Reply::json(StatusCode::OK, &json!({ "link": null, "revoked": revoked })))
}

#[cfg(test)]
mod test {
    use portcullis_core::Timestamp;
    use portcullis_core::session::TempLink;
    use portcullis_service::Done;

    use super::super::params::test::asking;
    use super::super::view::test::{context, pairing, session_with};
    use super::*;

    fn operated(status: Status) -> Answer {
        let session = Some(session_with(status).into());
        Answer::Operated(Done { session, outcome: Outcome::Unchanged, decision: None })
    }

    fn body(reply: &Reply) -> Value {
        serde_json::from_slice(&reply.body).unwrap()
    }

    #[test]
    fn a_phone_number_is_its_digits() {
        let check = |query: &str, expected: Option<&str>| {
            let found = match request_code(&asking(query, "")) {
                Ok(Asked::Operate { operation: Operation::SessionPairingCode { phone, when_pairing, .. }, .. }) => {
                    assert_eq!(when_pairing, WhenPairing::Switch);
                    Some(phone.reveal().to_owned())
                }
                Ok(asked) => panic!("{asked:?}"),
                Err(_) => None,
            };
            assert_eq!(found.as_deref(), expected, "{query}");
        };
        check("phone_number=628123456789", Some("628123456789"));
        check("phoneNumber=628123456789", Some("628123456789"));
        check("phone=%2B62+812-3456-789", Some("628123456789"));
        check("phone_number=(62)%208123456", Some("628123456"));
        check("", None);
        check("phone_number=123456", None);
        check("phone_number=1234567890123456", None);
        check("phone_number=abc", None);
        check(&format!("phone_number=628123456789{}", "-".repeat(60)), None);
    }

    #[test]
    fn the_text_of_a_code_is_a_document_with_its_end() {
        let reply = qr_text(&context(), operated(pairing(PairingMethod::Qr, Some("2@code"))));
        let shown = body(&reply);
        assert_eq!(shown["mimetype"], "application/json");
        let document = STANDARD.decode(shown["data"].as_str().unwrap()).unwrap();
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document, json!({ "value": "2@code", "expiry": 1_767_225_660_000_u64 }));
    }

    #[test]
    fn a_code_of_another_kind_or_none_is_refused_with_the_status() {
        let check = |status: Status, word: &str| {
            let reply = qr_picture(&context(), operated(status));
            let shown = body(&reply);
            assert_eq!((reply.status, &shown["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_session_status")));
            assert!(shown["message"].as_str().unwrap().contains(word), "{shown}");
        };
        check(pairing(PairingMethod::Qr, None), "SCAN_QR_CODE");
        check(pairing(PairingMethod::Code, Some("ABCD-1234")), "SCAN_QR_CODE");
        check(Status::Stopped, "STOPPED");
    }

    #[test]
    fn a_link_is_under_the_public_url_until_it_ends() {
        let expires_at = Timestamp::from_millis(context().now.as_millis() + 90_000);
        let mut session = session_with(Status::Stopped);
        session.link = Some(TempLink { token: Secret::new("ab12"), expires_at });
        let expected = json!({
            "link": "https://gateway.example.com/temp-qr/ab12",
            "token": "ab12",
            "expires_at": "2026-01-01T00:01:30.000Z",
            "expires_in": 90,
        });
        assert_eq!(body(&link(&context(), Answer::Session(session.clone().into()))), expected);
        let later = EncodeContext { now: expires_at, ..context() };
        assert_eq!(body(&link(&later, Answer::Session(session.into()))), json!({ "link": null }));
    }
}
