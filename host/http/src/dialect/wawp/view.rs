//! Sessions as this dialect shows them: times are ISO 8601, users are `<digits>@c.us`, and what is unset is `null` where clients look for it.

use portcullis_core::session::{LoggedOutBy, PairingMethod};
use portcullis_core::{Intent, Session, Status, Timestamp};
pub(super) use portcullis_webhook::wawp::me;
use serde::Serialize;
use serde_json::Value;

use crate::routes::EncodeContext;

/// The session object, which is a superset of every answer about a session.
#[derive(Serialize)]
pub(super) struct SessionView<'a> {
    name: &'a str,
    status: &'static str,
    config: Config,
    me: Option<Value>,
    instance_id: &'a str,
    server_name: &'a str,
    /// The name again, as the answer to a creation has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_name: Option<&'a str>,
    /// A picture of the code to scan, as a data URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) qr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passkey: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated: Option<bool>,
}

/// What clients expect to be there and nobody reads.
#[derive(Serialize)]
struct Config {
    webhooks: [(); 0],
    proxy: Option<()>,
}

/// The view of a session.
pub(super) fn session<'a>(session: &'a Session, context: &EncodeContext<'a>) -> SessionView<'a> {
    let passkey = matches!(session.status, Status::Pairing { method: PairingMethod::Passkey, .. });
    SessionView {
        name: &session.names.wawp_name,
        status: status(session),
        config: Config { webhooks: [], proxy: None },
        me: session.linked_device().map(me),
        instance_id: &session.names.instance_id,
        server_name: context.gateway_id,
        session_name: None,
        qr: None,
        delete_at: session.delete_due().map(iso),
        passkey: passkey.then_some(true),
        simulated: context.simulated.then_some(true),
    }
}

/// The dialect's word for a session's status. Whoever waits to be deleted is stopped; an engine that is unlinked by the API waits for a scan.
pub(super) fn status(session: &Session) -> &'static str {
    if matches!(session.intent, Intent::Removed { .. }) {
        return "STOPPED";
    }
    match session.status {
        Status::Stopped | Status::Removing { .. } => "STOPPED",
        Status::Starting { .. } | Status::Reconnecting { .. } => "STARTING",
        Status::Pairing { .. } | Status::LoggedOut { by: LoggedOutBy::Api, .. } => "SCAN_QR_CODE",
        Status::Online { .. } => "WORKING",
        Status::LoggedOut { by: LoggedOutBy::Phone, .. } | Status::Failed { .. } => "FAILED",
    }
}

/// A point in time as ISO 8601, in UTC.
pub(super) fn iso(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    // Beyond the year 9999 there is nothing to write; nobody waits for it either.
    jiff::Timestamp::from_millisecond(millis)
        .unwrap_or(jiff::Timestamp::MAX)
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

#[cfg(test)]
pub(super) mod test {
    use std::sync::LazyLock;

    use portcullis_core::session::{FailureCause, PairingCode, RemovalStep};
    use portcullis_core::{Attempt, Names, OrgId, Secret, SessionId, Unlink};
    use serde_json::json;

    use super::super::params::test::asking;
    use super::*;
    use crate::exchange::Incoming;

    /// A session in this status.
    pub(in crate::dialect::wawp) fn session_with(status: Status) -> Session {
        let names = Names::new(0x0123_4567_89ab_cdef_0123_3eb0_bcb2_e3d4, None);
        let now = Timestamp::from_millis(0);
        let (id, org) = (SessionId::from_bytes([5; 16]), OrgId::from_bytes([1; 16]));
        Session { status, ..Session::new(id, org, names, now) }
    }

    /// A request that says nothing.
    static REQUEST: LazyLock<Incoming> = LazyLock::new(|| asking("", ""));

    /// What encoding knows besides the answer.
    pub(in crate::dialect::wawp) fn context() -> EncodeContext<'static> {
        EncodeContext {
            gateway_id: "node-1",
            simulated: false,
            public_url: "https://gateway.example.com",
            now: Timestamp::from_millis(1_767_225_600_000),
            session: "3EB0BCB2E3D4",
            found: None,
            request: &REQUEST,
            plan_active: false,
            may_manage: true,
        }
    }

    pub(in crate::dialect::wawp) fn pairing(method: PairingMethod, code: Option<&str>) -> Status {
        let expires_at = Timestamp::from_millis(1_767_225_660_000);
        let code = code.map(|text| PairingCode { text: Secret::new(text), expires_at, ordinal: 1 });
        Status::Pairing { attempt: Attempt::default(), method, code, deadline: expires_at }
    }

    #[test]
    fn every_status_has_a_word() {
        let check = |status: Status, expected: &str| {
            // Events say the same, but for what is being removed: they tell of it when it is gone.
            let by = if let Status::LoggedOut { by, .. } = status { Some(by) } else { None };
            let told = portcullis_webhook::wawp::status_word(status.name(), by);
            assert_eq!(told.unwrap_or("STOPPED"), expected);
            assert_eq!(super::status(&session_with(status)), expected);
        };
        let (attempt, deadline) = (Attempt::default(), Timestamp::from_millis(1));
        check(Status::Stopped, "STOPPED");
        check(Status::Starting { attempt, deadline, tries: 0 }, "STARTING");
        check(Status::Reconnecting { attempt, since: deadline, tries: 1, deadline }, "STARTING");
        check(pairing(PairingMethod::Qr, None), "SCAN_QR_CODE");
        check(pairing(PairingMethod::Code, Some("ABCD-1234")), "SCAN_QR_CODE");
        check(pairing(PairingMethod::Passkey, None), "SCAN_QR_CODE");
        check(Status::Online { attempt }, "WORKING");
        check(Status::LoggedOut { by: LoggedOutBy::Api, unlink: Unlink::Confirmed }, "SCAN_QR_CODE");
        check(Status::LoggedOut { by: LoggedOutBy::Phone, unlink: Unlink::Confirmed }, "FAILED");
        check(Status::Failed { cause: FailureCause::PairingExpired, retry: None }, "FAILED");
        check(Status::Removing { step: RemovalStep::Erase }, "STOPPED");
    }

    #[test]
    fn a_session_that_waits_to_be_deleted_says_until_when() {
        let due = Timestamp::from_millis(1_767_225_600_000);
        let intent = Intent::Removed { due, reason: String::new(), since: due, was_running: true };
        let pending = Session { intent, ..session_with(Status::Stopped) };
        let view = json!(session(&pending, &context()));
        assert_eq!((&view["status"], &view["delete_at"]), (&json!("STOPPED"), &json!("2026-01-01T00:00:00.000Z")));
        let removing = Session { status: Status::Removing { step: RemovalStep::Erase }, ..pending };
        assert_eq!(json!(session(&removing, &context()))["delete_at"], Value::Null);
    }

    #[test]
    fn a_passkey_is_asked_for_beside_the_status() {
        let passkey = json!(session(&session_with(pairing(PairingMethod::Passkey, None)), &context()));
        assert_eq!((&passkey["status"], &passkey["passkey"]), (&json!("SCAN_QR_CODE"), &json!(true)));
        let scanned = json!(session(&session_with(pairing(PairingMethod::Qr, None)), &context()));
        assert_eq!(scanned["passkey"], Value::Null);
    }

    #[test]
    fn times_are_iso_8601() {
        let check = |millis: u64, expected: &str| assert_eq!(iso(Timestamp::from_millis(millis)), expected);
        check(0, "1970-01-01T00:00:00.000Z");
        check(1_767_225_600_000, "2026-01-01T00:00:00.000Z");
        check(1_767_225_600_120, "2026-01-01T00:00:00.120Z");
        assert!(iso(Timestamp::MAX).starts_with("9999-12-"));
    }
}
