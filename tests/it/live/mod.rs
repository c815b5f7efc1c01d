//! Live events: every listener hears everything once and in order, comes back without loss, and hears nothing that is not theirs.

mod ends;
pub(crate) mod listener;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::Gateway;
use crate::world::{Org, text};
use listener::{Frame, Listener, Socket, ids, own_key};

/// Somebody writes to a session.
async fn write_to(client: &Client, session: &str, text: &str) {
    let path = format!("/api/v1/sessions/{session}/simulator:receive");
    client.post(&path, &json!({ "from": "628555@s.whatsapp.net", "text": text })).await.expect(204);
}

/// The organisation tells a fact, which is an event.
async fn tell(client: &Client, id: usize) {
    let fact = json!({ "id": format!("fact-{id}"), "name": "something.happened", "data": {} });
    client.post("/api/v1/events", &fact).await.expect(202);
}

/// Tells so many facts, several at a time.
async fn tell_all(client: &Client, ids: std::ops::Range<usize>) {
    use futures_util::{StreamExt, stream};
    stream::iter(ids).for_each_concurrent(16, |id| tell(client, id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_hears_everything_once_and_in_one_order_whoever_writes() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let sessions = [org.working().await, org.working().await, org.working().await];
    let mut plain = Listener::connect(&org.client, "").await;
    let mut newer = Listener::with(&org.client, "", &[], true).await;
    newer.expect("connected").await;
    let mut socket = Socket::connect(&org.client, &json!({})).await;
    let write = async |session: &str| {
        for n in 0..20 {
            write_to(&org.client, session, &n.to_string()).await;
        }
    };
    tokio::join!(write(&sessions[0]), write(&sessions[1]), write(&sessions[2]));

    let heard = plain.take(60).await;
    assert_eq!(newer.take(60).await, heard, "over HTTP/2");
    assert_eq!(socket.take(60).await, heard, "through the socket");
    let mut by_session: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for event in &heard {
        assert_eq!((&event["event"], &event["organization"]), (&json!("message"), &json!(org.id)), "{event}");
        let said = (event["seq"].as_u64().unwrap(), text(&event["payload"], "body"));
        by_session.entry(text(event, "session")).or_default().push(said);
    }
    assert_eq!(by_session.len(), 3);
    for said in by_session.values() {
        let first = said[0].0;
        let expected: Vec<_> = (0..20).map(|n| (first + n, n.to_string())).collect();
        assert_eq!(*said, expected, "an ordinal is missing, or out of order");
    }
}

#[tokio::test]
async fn who_comes_back_goes_on_where_they_were_even_after_a_crash() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let mut listener = Listener::connect(&org.client, "").await;
    tell_all(&org.client, 0..10).await;
    let mut heard = listener.take(4).await;
    // It has come further than it was looked at, and only what was looked at counts.
    let last = listener.next().await.unwrap();
    heard.push(last.data);
    let last = last.id.unwrap();
    drop(listener);
    tell_all(&org.client, 10..20).await;
    gateway.kill().await;
    gateway.restart().await;
    let org = org.at(&gateway);
    let mut listener = Listener::resume(&org.client, "", &last).await;
    // The address says still from where on it was asked for at first.
    let mut again = Listener::resume(&org.client, "since=0", &last).await;
    tell_all(&org.client, 20..25).await;
    let rest = listener.take(20).await;
    assert_eq!(again.take(20).await, rest);
    // An event's own id says the same.
    let since = text(&heard[4], "id");
    let mut named = Listener::connect(&org.client, &format!("since={since}")).await;
    assert_eq!(named.take(20).await, rest);
    heard.extend(rest);
    let mut facts: Vec<_> = heard.iter().map(|event| text(&event["payload"], "id")).collect();
    facts.sort();
    let mut expected: Vec<_> = (0..25).map(|n| format!("fact-{n}")).collect();
    expected.sort();
    assert_eq!(facts, expected, "something was lost or told twice");
    let mut all = Listener::connect(&org.client, "since=0").await;
    assert_eq!(all.take(25).await, heard);
}

#[tokio::test]
async fn an_event_with_two_parts_can_be_cut_between_them() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    org.working().await;
    let query = "since=0&events=session.linked,auth.code";
    let mut listener = Listener::connect(&org.client, query).await;
    let parts = [listener.next().await.unwrap(), listener.next().await.unwrap()];
    let [Frame { id: Some(first), .. }, Frame { id: Some(second), .. }] = &parts else { panic!("{parts:?}") };
    assert_eq!((parts[0].event.as_str(), parts[1].event.as_str()), ("session.linked", "auth.code"));
    assert_eq!(*first, format!("{second}.0"));
    let mut resumed = Listener::resume(&org.client, query, first).await;
    assert_eq!(resumed.next().await.unwrap(), parts[1]);
    // Each part has an id of its own, behind which it can be gone on as well.
    tell(&org.client, 1).await;
    let [first, second] = parts.map(|part| text(&part.data, "id"));
    assert_ne!(first, second);
    let of_second = Listener::connect(&org.client, &format!("since={first}&events=fact,auth.code")).await.take(2).await;
    assert_eq!(ids(&of_second)[0], second);
    let behind = Listener::connect(&org.client, &format!("since={second}&events=fact,auth.code")).await.take(1).await;
    assert_eq!(behind[0], of_second[1]);
}

#[tokio::test]
async fn a_socket_replays_what_its_client_missed_and_goes_on_from_there() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    tell_all(&org.client, 0..30).await;
    let all = Listener::connect(&org.client, "since=0").await.take(30).await;
    let ids = ids(&all);
    let mut socket = Socket::connect(&org.client, &json!({ "since": ids[9] })).await;
    tell(&org.client, 30).await;
    let heard = socket.take(21).await;
    assert_eq!(heard[..20], all[10..]);
    assert_eq!(heard[20]["payload"]["id"], "fact-30");

    // What the address says goes before what the ticket says.
    let ticket = Socket::ticket(&org.client, &json!({ "since": ids[9] })).await;
    let mut socket = Socket::open(&org.client, &format!("ticket={ticket}&since={}", ids[28])).await.unwrap();
    socket.expect("connected").await;
    assert_eq!(socket.next().await.unwrap(), all[29]);
    let ticket = Socket::ticket(&org.client, &json!({})).await;
    assert_eq!(Socket::open(&org.client, &format!("ticket={ticket}&since=yesterday")).await.err(), Some(400));

    // Nobody has this event: what happens from now on is told all the same.
    let mut socket = Socket::connect(&org.client, &json!({ "since": "evt_01ARZ3NDEKTSV4RRFFQ69G5FAV" })).await;
    assert_eq!(socket.expect("error").await, json!({ "event": "error", "error": "replay_failed" }));
    tell(&org.client, 31).await;
    assert_eq!(socket.expect("fact").await["payload"]["id"], "fact-31");
}

#[tokio::test]
async fn a_socket_replays_a_thousand_events_and_no_more() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    tell_all(&org.client, 0..1002).await;
    let all = Listener::connect(&org.client, "since=0").await.take(1002).await;
    let ids = ids(&all);
    let mut socket = Socket::connect(&org.client, &json!({ "since": ids[1] })).await;
    assert_eq!(socket.take(1000).await, all[2..]);
    let mut socket = Socket::connect(&org.client, &json!({ "since": ids[0] })).await;
    socket.expect("error").await;
}

#[tokio::test]
async fn a_place_that_is_not_there_is_said_to_be_missing() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    tell_all(&org.client, 0..3).await;
    // From a gateway whose data were lost, as if from the future.
    let mut listener = Listener::connect(&org.client, "since=1000").await;
    assert_eq!(listener.expect("gap").await["through"], 3);
    assert_eq!(listener.last.as_deref(), Some("3"));
    tell(&org.client, 3).await;
    assert_eq!(listener.expect("fact").await["payload"]["id"], "fact-3");
    // An event that nobody knows any more: everything that is still there.
    let mut listener = Listener::connect(&org.client, "since=evt_01ARZ3NDEKTSV4RRFFQ69G5FAV").await;
    assert_eq!(listener.expect("gap").await["through"], 0);
    assert_eq!(listener.take(4).await.len(), 4);
}

#[tokio::test]
async fn only_what_was_asked_for_is_told() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (one, other) = (org.working().await, org.working().await);
    let mut messages = Listener::connect(&org.client, "events=message,%20session.labels").await;
    let mut of_one = Listener::connect(&org.client, &format!("session={one}")).await;
    let mut socket =
        Socket::connect(&org.client, &json!({ "scope": "session", "session": one, "events": ["message"] })).await;
    let bound = json!({ "name": "bound", "capabilities": ["events"], "sessionId": one });
    let (_, bound) = own_key(&gateway, &org.id, &bound).await;
    let mut own = Listener::connect(&bound, "").await;
    let mut own_socket = Socket::connect(&bound, &json!({})).await;
    tell(&org.client, 0).await;
    // What comes in is told when the engine has reported it.
    write_to(&org.client, &other, "to the other").await;
    assert_eq!(messages.expect("message").await["session"], json!(other));
    org.client.put(&format!("/api/v1/sessions/{other}/labels"), &json!({ "a": "b" })).await.expect(200);
    write_to(&org.client, &one, "to the one").await;

    messages.expect("session.labels").await;
    let last = messages.expect("message").await;
    for heard in [
        of_one.expect("message").await,
        own.expect("message").await,
        socket.expect("message").await,
        own_socket.expect("message").await,
    ] {
        assert_eq!(heard, last);
    }
    // What is not one's own is not there.
    bound.get(&format!("/api/v1/events?session={other}")).await.refused(404, "not_found");
    let strangers = gateway.org("Other").await;
    strangers.client.get(&format!("/api/v1/events?session={one}")).await.refused(404, "not_found");
    strangers.client.get(&format!("/api/v1/events?org={}", org.id)).await.refused(404, "not_found");
    gateway.capable(&org, &["read", "manage"]).await.get("/api/v1/events").await.refused(403, "forbidden");
    for query in ["events=nothing", "session=sess_1", "since=yesterday", "since=1.x"] {
        org.client.get(&format!("/api/v1/events?{query}")).await.refused(400, "validation_error");
    }
    let header = vec![("last-event-id".to_owned(), "nonsense".to_owned())];
    org.client.send_with("GET", "/api/v1/events", header, Bytes::new()).await.refused(400, "validation_error");
}

#[tokio::test]
async fn codes_are_told_to_who_may_manage() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let follower = gateway.capable(&org, &["read", "events"]).await;
    let mut manager = Listener::connect(&org.client, "events=auth.qr,session.labels").await;
    let mut member = Listener::connect(&follower, "events=auth.qr,session.labels").await;
    let session = org.session().await;
    let code = org.client.get(&format!("/api/v1/sessions/{session}/qr")).await.expect(200);
    org.client.put(&format!("/api/v1/sessions/{session}/labels"), &json!({ "a": "b" })).await.expect(200);
    assert_eq!(manager.expect("auth.qr").await["payload"]["code"], code["code"]);
    member.expect("session.labels").await;
}

/// Opens a listener with a ticket, as a page in a browser does.
async fn with_ticket(org: &Org, ticket: &str, more: &str) -> Listener {
    Listener::connect(&Client::new(org.client.address, None), &format!("ticket={ticket}{more}")).await
}

#[tokio::test]
async fn a_ticket_opens_one_stream_and_says_which() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.working().await;
    let wishes = json!({ "scope": "session", "session": session, "events": ["message"] });
    let ticket = Socket::ticket(&org.client, &wishes).await;
    let mut listener = with_ticket(&org, &ticket, "").await;
    tell(&org.client, 0).await;
    write_to(&org.client, &session, "hi").await;
    listener.expect("message").await;
    let last = listener.last.unwrap();

    let stranger = gateway.stranger();
    stranger.get(&format!("/api/v1/events?ticket={ticket}")).await.refused(401, "unauthorized");
    assert_eq!(Socket::open(&stranger, &format!("ticket={ticket}")).await.err(), Some(401));
    stranger.get("/api/v1/events?ticket=rt_nonsense").await.refused(401, "unauthorized");
    let fresh = async || Socket::ticket(&org.client, &wishes).await;
    org.client.get(&format!("/api/v1/events?ticket={}", fresh().await)).await.refused(401, "unauthorized");
    let widened = format!("/api/v1/events?ticket={}&events=*", fresh().await);
    stranger.get(&widened).await.refused(400, "validation_error");

    // With another ticket the page goes on where it was.
    write_to(&org.client, &session, "again").await;
    let mut listener = with_ticket(&org, &fresh().await, &format!("&since={last}")).await;
    assert_eq!(listener.expect("message").await["payload"]["body"], "again");
}

#[tokio::test]
async fn the_firehose_tells_of_all_organisations_and_is_the_operators() {
    let gateway = Gateway::start().await;
    let (one, other) = (gateway.org("One").await, gateway.org("Other").await);
    let firehose = json!({ "scope": "firehose" });
    one.client.post("/api/v1/realtime/ticket", &firehose).await.refused(403, "forbidden");
    let operator = gateway.operator();
    let mut socket = Socket::connect(&operator, &firehose).await;
    tell(&one.client, 1).await;
    tell(&other.client, 2).await;
    let third = gateway.org("A third, which was not there before").await;
    tell(&third.client, 3).await;
    let mut heard: Vec<_> =
        socket.take(3).await.iter().map(|event| (text(&event["payload"], "id"), text(event, "organization"))).collect();
    heard.sort();
    let expected = [("fact-1", one.id.clone()), ("fact-2", other.id), ("fact-3", third.id)];
    assert_eq!(heard, expected.map(|(id, org)| (id.to_owned(), org)));

    // There is no order among organisations, and so nowhere to go on from.
    let since = json!({ "scope": "firehose", "since": "evt_01ARZ3NDEKTSV4RRFFQ69G5FAV" });
    Socket::connect(&operator, &since).await.expect("error").await;
    let ticket = Socket::ticket(&operator, &firehose).await;
    let stream = format!("/api/v1/events?ticket={ticket}");
    gateway.stranger().get(&stream).await.refused(400, "validation_error");
    // One organisation's stream the operator follows as its members do.
    let mut listener = Listener::connect(&operator, &format!("org={}&since=0", one.id)).await;
    listener.expect("fact").await;
}

#[tokio::test]
async fn pages_of_known_origins_may_listen() {
    let gateway = Gateway::start_with("cors_origins = [\"https://app.example.com\"]\n").await;
    let org = gateway.org("Acme").await;
    let origin = vec![("origin".to_owned(), "https://app.example.com".to_owned())];
    let reply = org.client.send_with("GET", "/api/v1/events", origin, Bytes::new()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_socket_is_not_opened_over_http_2() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let ticket = Socket::ticket(&org.client, &Value::Object(serde_json::Map::new())).await;
    let path = format!("/api/v1/realtime?ticket={ticket}");
    let request = hyper::Request::get(path).body(http_body_util::Full::new(Bytes::new())).unwrap();
    let reply = gateway.stranger().exchange_h2(request).await;
    assert!(text(&reply.refused(400, "validation_error"), "message").contains("HTTP/1.1"));
    // The ticket is still good.
    assert!(Socket::open(&gateway.stranger(), &format!("ticket={ticket}")).await.is_ok());
}
