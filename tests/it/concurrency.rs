//! Many requests at once: bounds hold exactly, nothing is lost or done twice, and who finds no place is told when to come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_testing::Guest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Reply;
use crate::gateway::Gateway;
use crate::world::{Org, text};

/// Sends all of these requests at once.
async fn all_at_once(org: &Org, requests: impl IntoIterator<Item = (&'static str, String, Value)>) -> Vec<Reply> {
    let mut tasks = JoinSet::new();
    for (method, path, body) in requests {
        let client = org.client.clone();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        tasks.spawn(async move { client.send(method, &path, body.into()).await });
    }
    tasks.join_all().await
}

/// How many replies there are of each status; a 503 must say when to come back.
fn statuses(replies: &[Reply]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for reply in replies {
        *counts.entry(reply.status).or_default() += 1;
        assert_eq!(reply.status == 503, reply.header("retry-after").is_some(), "{reply:?}");
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_however_many_ask_at_once() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let quota = json!({ "quotas": { "sessions": 5 } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &quota).await.expect(200);
    let create = || ("POST", "/api/v1/sessions".to_owned(), json!({}));
    let replies = all_at_once(&org, (0..30).map(|_| create())).await;
    assert_eq!(statuses(&replies), BTreeMap::from([(201, 5), (403, 25)]));
    let listed = org.client.get("/api/v1/sessions").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_session_do_not_lose_each_other() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let id = org.session().await;
    let path = format!("/api/v1/sessions/{id}");
    let before = org.client.get(&path).await.expect(200)["generation"].as_u64().unwrap();
    let put = |n: u32| ("PUT", format!("{path}/labels"), json!({ "n": n.to_string() }));
    let replies = all_at_once(&org, (0..40).map(put)).await;
    let counts = statuses(&replies);
    assert!(counts.keys().all(|status| [200, 503].contains(status)), "{counts:?}");
    for reply in replies.iter().filter(|reply| reply.status == 503) {
        assert_eq!(reply.refused(503, "unavailable")["details"]["reason"], "contention");
    }
    // Each change is a generation, and the last one is what is there.
    let after = org.client.get(&path).await.expect(200);
    let done = u64::try_from(counts[&200]).unwrap();
    assert_eq!(after["generation"].as_u64().unwrap(), before + done);
    let last = replies.iter().filter(|reply| reply.status == 200).map(Reply::json);
    let last = last.max_by_key(|session| session["generation"].as_u64().unwrap()).unwrap();
    assert_eq!(after["labels"], last["labels"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_takes_all_its_places_waits_and_others_do_not() {
    let gateway = Gateway::start().await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let quota = json!({ "quotas": { "concurrency": 1, "sessions": 100 } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &quota).await.expect(200);
    let create = || ("POST", "/api/v1/sessions".to_owned(), json!({}));
    let (ours, theirs) =
        tokio::join!(all_at_once(&org, (0..30).map(|_| create())), all_at_once(&other, (0..10).map(|_| create())));
    assert_eq!(statuses(&theirs), BTreeMap::from([(201, 10)]));
    let counts = statuses(&ours);
    assert!(counts.keys().all(|status| [201, 503].contains(status)), "{counts:?}");
    for reply in ours.iter().filter(|reply| reply.status == 503) {
        assert_eq!(reply.refused(503, "unavailable")["details"]["reason"], "busy");
    }
    let listed = org.client.get("/api/v1/sessions").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), counts[&201]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_limit_holds_however_many_send_at_once() {
    let gateway = Gateway::impatient().await;
    let org = gateway.org("Acme").await;
    let id = org.working().await;
    let path = format!("/api/v1/sessions/{id}");
    org.client.put(&format!("{path}/rate-policy"), &json!({ "policy": "strict" })).await.expect(200);
    let message = json!({ "type": "text", "to": "628555@s.whatsapp.net", "text": "hi" });
    let send = || ("POST", format!("{path}/messages"), message.clone());
    let replies = all_at_once(&org, (0..12).map(|_| send())).await;
    let sent = replies.iter().filter(|reply| reply.status == 200).count();
    assert!(replies.iter().all(|reply| [200, 429].contains(&reply.status)), "{replies:?}");
    assert_eq!(sent, 1, "strict leaves ten seconds between two sends");
    let used = org.client.get(&format!("{path}/rate-policy")).await.expect(200);
    assert_eq!(used["used"]["today"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_deleted_once_however_many_ask() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let id = org.working().await;
    let delete = || ("DELETE", format!("/api/v1/sessions/{id}"), Value::Null);
    let replies = all_at_once(&org, (0..10).map(|_| delete())).await;
    let counts = statuses(&replies);
    assert!(counts.keys().all(|status| [202, 204, 404].contains(status)), "{counts:?}");
    org.gone(&id).await;
    let audit = org.client.get("/api/v1/audit").await.expect(200);
    let erased = audit["data"].as_array().unwrap().iter().filter(|entry| entry["outcome"] == "erased");
    let erased: Vec<_> = erased.map(|entry| text(entry, "sessionId")).collect();
    assert_eq!(erased, [id]);
}

/// The story: a binding was made and its plugin deleted at the same time, both were answered with success,
/// and the binding that was left pointed nowhere and so let everything through.
#[tokio::test]
async fn a_plugin_is_not_deleted_while_it_is_being_bound() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    for _ in 0..10 {
        let plugin = org.catalogue("grace-delete").await;
        let body = json!({ "plugin": plugin, "settings": {} });
        let path = format!("/api/v1/plugins/{plugin}");
        let (bound, deleted) = tokio::join!(org.client.post("/api/v1/bindings", &body), org.client.delete(&path));
        let (bound, deleted) = (bound.status == 201, deleted.status == 204);
        assert!(bound != deleted, "bound: {bound}, deleted: {deleted}");
        if bound {
            let bindings = org.client.get("/api/v1/bindings").await.expect(200);
            let binding = bindings["data"][0]["id"].as_str().unwrap().to_owned();
            org.client.delete(&format!("/api/v1/bindings/{binding}")).await.expect(204);
            org.client.delete(&path).await.expect(204);
        }
    }
}

/// Versions come and go under load, each way that there is; nobody is refused for it, and what was answered rules from the next request on.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_changed_under_load_without_a_refused_request() {
    const VERSIONS: u32 = 6;
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let version = |n: u32| {
        Guest::allowing().named("changing").with(&format!("(func $version (result i32) i32.const {n})")).build()
    };
    let plugin = org.upload(version(0)).await;
    let hooks = json!({ "plugin": plugin, "hooks": ["session.labels"], "onFailure": "deny" });
    let binding = text(&org.client.post("/api/v1/bindings", &hooks).await.expect(201), "id");
    let path = format!("/api/v1/bindings/{binding}");

    let over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (org, over) = (org.clone(), Arc::clone(&over));
        let labels = format!("/api/v1/sessions/{}/labels", org.session().await);
        load.spawn(async move {
            let mut requests = 0_u32;
            while !over.load(Ordering::Relaxed) {
                requests += 1;
                org.client.put(&labels, &json!({ "n": requests.to_string() })).await.expect(200);
            }
            requests
        });
    }
    for n in 1..VERSIONS {
        let uploaded = org.client.send("POST", "/api/v1/plugins", version(n).into()).await.expect(201);
        let number = uploaded["version"].clone();
        let candidate = json!({ "candidate": { "version": number, "percent": 50 } });
        org.client.patch(&path, &candidate).await.expect(200);
        org.client.act(&format!("{path}:promote")).await.expect(200);
        org.client.act(&format!("{path}:rollback")).await.expect(200);
        org.client.patch(&path, &json!({ "mode": "monitor" })).await.expect(200);
        org.client.patch(&path, &json!({ "mode": "enforce", "version": number })).await.expect(200);
    }
    over.store(true, Ordering::Relaxed);
    let served = load.join_all().await;
    assert!(served.iter().all(|requests| *requests > VERSIONS), "{served:?}");

    let denying = Guest::gate("unreachable").named("changing").build();
    let number = org.client.send("POST", "/api/v1/plugins", denying.into()).await.expect(201)["version"].clone();
    let labels = format!("/api/v1/sessions/{}/labels", org.session().await);
    org.client.put(&labels, &json!({ "n": "before" })).await.expect(200);
    org.client.patch(&path, &json!({ "version": number })).await.expect(200);
    org.client.put(&labels, &json!({ "n": "after" })).await.expect(403);

    // What stopped it is told to whoever wrote it, and to nobody else.
    let log = format!("/api/v1/plugins/{plugin}/log");
    let lines = org.client.get(&log).await.expect(200);
    assert_eq!((&lines["data"][0]["level"], &lines["data"][0]["binding"]), (&json!("error"), &json!(binding)));
    assert!(text(&lines["data"][0], "message").contains("unreachable"), "{lines}");
    gateway.org("Another").await.client.get(&log).await.expect(404);
}
