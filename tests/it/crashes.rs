//! Kills at bad moments: what was acknowledged is there, what was begun is finished, and the data is sound.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::workload::{Random, Workload};
use crate::world::{Org, text};

/// A seed that is in the output of a test that fails.
#[expect(clippy::print_stdout, reason = "the seed repeats what failed")]
fn seed() -> u64 {
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed:#x}");
    seed
}

#[tokio::test]
async fn a_deletion_that_is_pending_survives_a_kill() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("grace-delete").await;
    let binding = org.bind(&plugin, json!({ "grace": "PT72H" })).await;
    let (later, soon, working) = (org.session().await, org.session().await, org.working().await);
    let path = |id: &str| format!("/api/v1/sessions/{id}");
    let due = org.client.delete(&path(&later)).await.expect(202)["deleteAt"].clone();
    let short = json!({ "settings": { "grace": "PT3S" } });
    org.client.patch(&format!("/api/v1/bindings/{binding}"), &short).await.expect(200);
    org.client.delete(&path(&soon)).await.expect(202);
    gateway.kill().await;

    gateway.restart().await;
    let org = org.at(&gateway);
    let pending = org.client.get(&path(&later)).await.expect(200);
    assert_eq!((&pending["deleteAt"], &pending["status"]), (&due, &json!("stopped")));
    // What was connected is connected again, without being asked.
    org.reaches(&working, "working").await;
    org.gone(&soon).await;
    let restored = org.client.act(&format!("{}:restore", path(&later))).await.expect(200);
    assert!(restored.get("deleteAt").is_none(), "{restored}");

    gateway.kill().await;
    gateway.assert_sound().await;
    gateway.restart().await;
    let org = org.at(&gateway);
    assert!(org.client.get(&path(&later)).await.expect(200).get("deleteAt").is_none());
    org.client.get(&path(&soon)).await.refused(404, "not_found");
}

#[tokio::test]
async fn what_was_set_up_is_there_after_a_kill() {
    let mut gateway = Gateway::start().await;
    let (org, erased, suspended) = (gateway.org("Acme").await, gateway.org("Erased").await, gateway.org("Held").await);
    let operator = gateway.operator();
    operator.delete(&format!("/api/v1/orgs/{}", erased.id)).await.expect(204);
    operator.patch(&format!("/api/v1/orgs/{}", suspended.id), &json!({ "suspended": true })).await.expect(200);
    let keys = format!("/api/v1/orgs/{}/keys", org.id);
    let revoked = operator.post(&keys, &json!({ "name": "r", "capabilities": ["read"] })).await.expect(201);
    operator.delete(&format!("{keys}/{}", text(&revoked, "id"))).await.expect(204);
    let plugin = org.catalogue("grace-delete").await;
    org.bind(&plugin, json!({ "legalHoldLabel": "court" })).await;
    let held = json!({ "labels": { "court": "yes" }, "label": "held" });
    let session = org.client.post("/api/v1/sessions", &held).await.expect(201);
    let sender = org.working().await;
    org.client.put(&format!("/api/v1/sessions/{sender}/rate-policy"), &json!({ "policy": "strict" })).await.expect(200);
    let message = json!({ "type": "text", "to": "628555@s.whatsapp.net", "text": "hi" });
    let messages = format!("/api/v1/sessions/{sender}/messages");
    org.client.post(&messages, &message).await.expect(200);
    let audit = org.client.get("/api/v1/audit").await.expect(200);
    gateway.kill().await;
    gateway.assert_sound().await;

    gateway.restart().await;
    let again = org.at(&gateway);
    // Policy is in force from the first request on, and what was sent still counts.
    let path = format!("/api/v1/sessions/{}", text(&session, "id"));
    let vetoed = again.client.delete(&path).await.refused(403, "forbidden");
    assert_eq!(vetoed["details"]["code"], "legal_hold");
    assert_eq!(again.client.get(&path).await.expect(200), session);
    again.reaches(&sender, "working").await;
    let used = again.client.get(&format!("/api/v1/sessions/{sender}/rate-policy")).await.expect(200);
    assert_eq!(used["used"]["today"], 1);
    let remembered = again.client.get("/api/v1/audit").await.expect(200);
    for entry in audit["data"].as_array().unwrap() {
        assert!(remembered["data"].as_array().unwrap().contains(entry), "{entry} is not in the audit any more");
    }
    for gone in [erased.at(&gateway).client, Client::new(gateway.address, revoked["key"].as_str())] {
        gone.get("/api/v1/sessions").await.refused(401, "unauthorized");
    }
    let suspended = suspended.at(&gateway).client.post("/api/v1/sessions", &json!({})).await;
    assert_eq!(suspended.refused(403, "forbidden")["details"]["reason"], "suspended");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_every_kill() {
    let seed = seed();
    let mut gateway = Gateway::start().await;
    let org: Org = gateway.org("Acme").await;
    let quotas = json!({ "quotas": { "sessions": 10_000 } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &quotas).await.expect(200);
    let mut workload = Workload::new(org.clone(), seed);
    for round in 0..8 {
        workload.run_until_killed(&mut gateway).await;
        gateway.assert_sound().await;
        if round % 2 == 1 {
            // A crash of the recovery.
            gateway.restart().await;
            gateway.kill().await;
        }
        gateway.restart().await;
        workload.verify(&org.at(&gateway)).await;
    }
    assert!(gateway.terminate().await.success());
    gateway.assert_sound().await;
}

#[tokio::test]
async fn a_deletion_under_way_is_finished_after_a_kill() {
    let mut random = Random::new(seed());
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    for _ in 0..6 {
        let here = org.at(&gateway);
        let session = here.working().await;
        let path = format!("/api/v1/sessions/{session}");
        let (client, deleted) = (here.client.clone(), path.clone());
        let deleting = tokio::spawn(async move { client.try_send("DELETE", &deleted, Bytes::new()).await });
        eventually("the deletion begins", async || {
            let reply = here.client.get(&path).await;
            (reply.status == 404 || reply.json()["status"] == "stopped").then_some(())
        })
        .await;
        for _ in 0..random.below(200) {
            here.client.get(&path).await;
        }
        gateway.kill().await;
        // The reply may have been on its way.
        let _ = deleting.await.unwrap();
        gateway.assert_sound().await;

        gateway.restart().await;
        let here = org.at(&gateway);
        here.gone(&session).await;
        let audit = here.client.get("/api/v1/audit?limit=50").await.expect(200);
        let entries = audit["data"].as_array().unwrap().clone();
        let receipts = entries.iter().filter(|entry| entry["outcome"] == "erased" && entry["sessionId"] == *session);
        assert_eq!(receipts.count(), 1, "{audit}");
    }
}

#[tokio::test]
async fn an_organisation_is_erased_wholly_or_not_at_all() {
    let mut random = Random::new(seed());
    let mut gateway = Gateway::start().await;
    for _ in 0..6 {
        let (org, bystander) = (gateway.org("Acme").await, gateway.org("Bystander").await);
        let kept = bystander.session().await;
        let sessions = [org.session().await, org.working().await, org.session().await];
        let (operator, path) = (gateway.operator(), format!("/api/v1/orgs/{}", org.id));
        let deleted = path.clone();
        let erasing = tokio::spawn(async move { operator.try_send("DELETE", &deleted, Bytes::new()).await });
        for _ in 0..random.below(60) {
            bystander.client.get(&format!("/api/v1/sessions/{kept}")).await.expect(200);
        }
        gateway.kill().await;
        let acknowledged = erasing.await.unwrap().is_ok_and(|reply| reply.status == 204);
        gateway.assert_sound().await;

        gateway.restart().await;
        let (org, operator) = (org.at(&gateway), gateway.operator());
        bystander.at(&gateway).client.get(&format!("/api/v1/sessions/{kept}")).await.expect(200);
        let there = operator.get(&path).await.status == 200;
        println!("there {there}, acknowledged {acknowledged}");
        assert!(!(there && acknowledged), "an erasure that was acknowledged was forgotten");
        if there {
            for session in &sessions {
                org.client.get(&format!("/api/v1/sessions/{session}")).await.expect(200);
            }
            operator.delete(&path).await.expect(204);
        }
        org.client.get("/api/v1/sessions").await.refused(401, "unauthorized");
        operator.get(&path).await.refused(404, "not_found");
    }
    assert!(gateway.terminate().await.success());
    gateway.assert_sound().await;
}

#[tokio::test]
async fn an_upload_under_way_is_there_or_can_be_repeated() {
    let mut random = Random::new(seed());
    let mut gateway = Gateway::start().await;
    for _ in 0..6 {
        let org = gateway.org("Acme").await;
        let uploader = org.client.clone();
        let body = Bytes::from_static(b"{\"catalog\": \"rate-ladder\"}");
        let uploading = tokio::spawn(async move { uploader.try_send("POST", "/api/v1/plugins", body).await });
        for _ in 0..random.below(60) {
            org.client.get("/api/v1/plugins").await.expect(200);
        }
        gateway.kill().await;
        let acknowledged = uploading.await.unwrap().is_ok_and(|reply| reply.status == 201);
        gateway.assert_sound().await;

        gateway.restart().await;
        let org = org.at(&gateway);
        let listed = org.client.get("/api/v1/plugins").await.expect(200);
        let there = listed["data"].as_array().unwrap().len();
        assert!(there == 1 || !acknowledged && there == 0, "{listed}");
        let again = org.client.post("/api/v1/plugins", &json!({ "catalog": "rate-ladder" })).await;
        assert_eq!(again.status, if there == 1 { 200 } else { 201 }, "{again:?}");
        org.bind(&text(&again.json(), "id"), json!({})).await;
        org.session().await;
    }
}

/// Recovery and the first requests run at the same time; neither may trip over the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_asked_for_at_boot_is_carried_out() {
    let mut gateway = Gateway::start().await;
    for _ in 0..10 {
        let mut paths = Vec::new();
        for _ in 0..8 {
            let org = gateway.org("Acme").await;
            org.session().await;
            paths.push(format!("/api/v1/orgs/{}", org.id));
        }
        gateway.kill().await;
        gateway.restart().await;
        let mut erasing = JoinSet::new();
        for path in paths {
            let operator = gateway.operator();
            erasing.spawn(async move { operator.delete(&path).await });
        }
        for reply in erasing.join_all().await {
            reply.expect(204);
        }
    }
}
