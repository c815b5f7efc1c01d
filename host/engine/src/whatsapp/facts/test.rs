//! What each event of the client means.

use whatsapp_rust::types::events::{
    ClientOutdated, ConnectFailure, ConnectFailureReason, Connected, Disconnected, LoggedOut, PairError,
    PairPasskeyError, PairPasskeyRequest, PairSuccess, PairingCode, PairingCodeError, PairingCodeRefresh,
    PairingQrCode, PairingQrCodesExhausted, SelfPushNameUpdated, StreamReplaced, TempBanReason, TemporaryBan,
};
use whatsapp_rust::types::message::MessageSource;
use whatsapp_rust::wacore::chrono;

use super::*;

fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

fn check(event: &Event, expected: &Meaning) {
    assert!(interest().wants(event.kind()), "nobody would hear of {:?}", event.kind());
    assert_eq!(meaning(event), *expected);
}

fn over(cause: FailureCause) -> Meaning {
    Meaning::Over { cause, lasts: None }
}

#[test]
fn connections_come_and_go() {
    check(&Event::Connected(Connected::builder().build()), &Meaning::Up);
    let reason = whatsapp_rust::wacore::net::DisconnectReason::StreamEnded;
    check(&Event::Disconnected(Disconnected::builder().reason(reason).build()), &Meaning::Down);
    let name = SelfPushNameUpdated::builder().from_server(true).old_name(String::new()).new_name("Ada".into()).build();
    check(&Event::SelfPushNameUpdated(name), &Meaning::Named);
}

#[test]
fn codes_are_secrets_with_a_lifetime() {
    let lives = Duration::from_secs(20);
    let qr = PairingQrCode::builder().code("ref,a,b,c,1".into()).timeout(lives).build();
    check(&Event::PairingQrCode(qr), &Meaning::Qr { text: Secret::new("ref,a,b,c,1"), lives });
    let code = PairingCode::builder().code("ABCD1234".into()).timeout(lives).build();
    check(&Event::PairingCode(code), &Meaning::Code { text: Secret::new("ABCD1234"), lives });
    let spent = PairingCodeRefresh::builder().force_manual(false).build();
    check(&Event::PairingCodeRefresh(spent), &Meaning::CodeSpent);
    let exhausted = PairingQrCodesExhausted::builder().disconnected(true).build();
    check(&Event::PairingQrCodesExhausted(exhausted), &Meaning::QrExhausted);
}

#[test]
fn pairing_succeeds_or_is_refused() {
    let (id, lid) = (jid("15550000001:7@s.whatsapp.net"), jid("9990001:7@lid"));
    let success = PairSuccess::builder().id(id.clone()).lid(lid.clone());
    let success = success.business_name(String::new()).platform(String::new()).build();
    check(&Event::PairSuccess(success), &Meaning::Linked);
    let error = PairError::builder().id(id).lid(lid).business_name(String::new()).platform(String::new());
    check(&Event::PairError(error.error("hmac".into()).build()), &over(FailureCause::PairingRefused));
    let unanswered = PairingCodeError::builder().error("timed out".into()).build();
    check(&Event::PairingCodeError(unanswered), &Meaning::Nothing);
    let rejection = whatsapp_rust::pair_code::PairCodeRejection::from_server(400, "bad-request");
    let refused = PairingCodeError::builder().maybe_rejection(rejection).error("no".into()).build();
    check(&Event::PairingCodeError(refused), &over(FailureCause::PairingRefused));
}

#[test]
fn a_passkey_is_asked_for_and_one_that_fails_refuses_the_pairing() {
    let asked = PairPasskeyRequest::builder().request_options_json("{}".into()).build();
    check(&Event::PairPasskeyRequest(asked), &Meaning::Passkey);
    let failed = PairPasskeyError::builder().error("no".into()).continuation(false).build();
    check(&Event::PairPasskeyError(failed), &over(FailureCause::PairingRefused));
}

#[test]
fn a_device_is_logged_out_whether_told_while_connected_or_when_connecting() {
    for on_connect in [false, true] {
        let event = LoggedOut::builder().on_connect(on_connect).reason(ConnectFailureReason::LoggedOut).build();
        check(&Event::LoggedOut(event), &Meaning::LoggedOut);
    }
}

/// The story: an account was locked, and the gateway said that WhatsApp had confirmed a logout, and forgot the device.
#[test]
fn a_locked_account_keeps_its_device() {
    let event = LoggedOut::builder().on_connect(true).reason(ConnectFailureReason::AccountLocked).build();
    check(&Event::LoggedOut(event), &over(FailureCause::ConnectionRefused));
}

#[test]
fn what_ends_a_client_for_good_has_a_cause() {
    check(&Event::StreamReplaced(StreamReplaced::builder().build()), &over(FailureCause::Replaced));
    check(&Event::ClientOutdated(ClientOutdated::builder().build()), &over(FailureCause::ClientOutdated));
    let ban = TemporaryBan::builder().code(TempBanReason::BlockedByUsers).expire(chrono::Duration::seconds(90)).build();
    let banned = Meaning::Over { cause: FailureCause::Banned, lasts: Some(Duration::from_secs(90)) };
    check(&Event::TemporaryBan(ban), &banned);
    let no_end = TemporaryBan::builder().code(TempBanReason::BlockedByUsers).expire(chrono::Duration::zero()).build();
    check(&Event::TemporaryBan(no_end), &over(FailureCause::Banned));
}

#[test]
fn a_refused_connection_is_over_unless_the_client_tries_it_again() {
    use ConnectFailureReason as Reason;
    for (reason, expected) in [
        (Reason::Generic, over(FailureCause::ConnectionRefused)),
        (Reason::BadUserAgent, over(FailureCause::ConnectionRefused)),
        (Reason::TempBanned, over(FailureCause::ConnectionRefused)),
        (Reason::InternalServerError, Meaning::Nothing),
        (Reason::ServiceUnavailable, Meaning::Nothing),
    ] {
        check(&Event::ConnectFailure(ConnectFailure::builder().reason(reason).build()), &expected);
    }
}

#[test]
fn receipts_of_others_for_our_messages_are_progress_and_nothing_else_is() {
    let receipt = |r#type, is_from_me| {
        let chat = jid("15550000002@s.whatsapp.net");
        let source =
            MessageSource { sender: jid("15550000002:3@s.whatsapp.net"), chat, is_from_me, ..Default::default() };
        let ids = vec!["A".to_owned(), "B".to_owned()];
        let at = chrono::DateTime::from_timestamp(1, 0).unwrap();
        let receipt = Receipt::builder().source(source).message_ids(ids).timestamp(at).r#type(r#type).offline(false);
        Event::Receipt(receipt.build())
    };
    let expected = |stage| {
        let messages = vec!["A".to_owned(), "B".to_owned()];
        Meaning::Progress(Progress { messages, chat: "15550000002@s.whatsapp.net".to_owned(), stage })
    };
    check(&receipt(ReceiptType::Delivered, false), &expected(MessageStage::Delivered));
    check(&receipt(ReceiptType::Read, false), &expected(MessageStage::Read));
    check(&receipt(ReceiptType::Played, false), &expected(MessageStage::Played));
    for nothing in [ReceiptType::Retry, ReceiptType::Sender, ReceiptType::ReadSelf, ReceiptType::ServerError] {
        check(&receipt(nothing, false), &Meaning::Nothing);
    }
    check(&receipt(ReceiptType::Read, true), &Meaning::Nothing);
}

#[test]
fn two_refusals_limit_the_account_and_others_only_the_message() {
    let now = Timestamp::from_millis(7);
    for code in ["463", "475"] {
        let Some(Fact::Limited { limit }) = limit(code, now) else { panic!("{code} limits the account") };
        assert_eq!((limit.code.as_str(), limit.until, limit.since), (code, None, now));
    }
    for code in ["400", "404", "479", "500"] {
        assert_eq!(limit(code, now), None);
    }
}

#[test]
fn a_device_is_an_account() {
    let pn = jid("15550000001:7@s.whatsapp.net");
    let expected = Device { jid: "15550000001@s.whatsapp.net".to_owned(), lid: None, push_name: None };
    assert_eq!(device(&pn, None, ""), expected);
    assert_eq!(
        device(&pn, Some(&jid("9990001:7@lid")), "Ada"),
        Device { lid: Some("9990001@lid".to_owned()), push_name: Some("Ada".to_owned()), ..expected }
    );
}
