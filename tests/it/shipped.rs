//! The smaller plugins that ship, in the real gateway: from the catalogue, bound, and met by requests.

use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::{Gateway, eventually, program};
use crate::world::{Org, text};

/// A gateway with an organisation in which a plugin of the catalogue is bound.
async fn bound(name: &str, settings: Value) -> (Gateway, Org) {
    // Wide by the clock, because tests share the machine.
    let gateway = Gateway::start_with("[plugins]\ngate_wall_ms = 20000\nchain_wall_ms = 60000\n").await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue(name).await;
    org.bind(&plugin, settings).await;
    (gateway, org)
}

#[tokio::test]
async fn names_of_new_sessions_follow_rules() {
    let settings = json!({
        "displayName": { "required": true, "prefix": "Acme " },
        "instanceName": { "characters": "a-z0-9-" },
        "labels": { "team": "desk" },
    });
    let (_gateway, org) = bound("name-rules", settings).await;
    let create = async |body: Value| org.client.post("/api/v1/sessions", &body).await;

    let created = create(json!({ "label": "  Acme   Bern ", "labels": { "x": "y" } })).await.expect(201);
    assert_eq!(created["label"], "Acme Bern");
    assert_eq!(created["labels"], json!({ "team": "desk", "x": "y" }));

    let refused = create(json!({ "label": "Bern" })).await.refused(403, "forbidden");
    assert_eq!(refused["details"]["code"], "display_name");
    assert!(text(&refused, "message").contains("must begin with \"Acme \""), "{refused}");
    let refused = create(json!({})).await.refused(403, "forbidden");
    assert_eq!(refused["details"]["code"], "display_name");
}

#[tokio::test]
async fn what_is_asked_outside_of_the_hours_waits_or_comes_back() {
    let (_gateway, org) = bound("office-hours", json!({ "operations": [] })).await;
    let session = org.session().await;
    let path = format!("/api/v1/sessions/{session}");
    let now = org.client.get(&path).await.expect(200)["updatedAt"].as_u64().unwrap();
    let bindings = org.client.get("/api/v1/bindings").await.expect(200);
    let binding = format!("/api/v1/bindings/{}", text(&bindings["data"][0], "id"));
    let change = async |settings: Value| {
        org.client.patch(&binding, &json!({ "settings": settings })).await.expect(200);
    };
    let then = day(now, 3);
    change(json!({ "days": [then], "from": "00:00", "to": "24:00" })).await;

    let refused = org.client.delete(&path).await;
    let error = refused.refused(403, "forbidden");
    assert_eq!(error["details"]["code"], "outside_office_hours");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((2 * 86_400..=3 * 86_400).contains(&seconds), "{seconds}");

    change(json!({ "days": [then], "from": "00:00", "to": "24:00", "deletes": "defer" })).await;
    let pending = org.client.delete(&path).await.expect(202);
    assert_eq!(pending["deleteAt"].as_u64().unwrap() % 86_400_000, 0, "the next opening is a midnight: {pending}");
    org.client.act(&format!("{path}:restore")).await.expect(200);

    let always = json!({ "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00" });
    change(always).await;
    org.client.delete(&path).await.expect(204);
}

#[tokio::test]
async fn a_session_is_deleted_once_its_name_was_typed() {
    let (_gateway, org) = bound("confirm-delete", json!({ "exemptLabel": "disposable" })).await;
    let named = json!({ "label": "Front desk", "labels": { "team": "b" } });
    let session = text(&org.client.post("/api/v1/sessions", &named).await.expect(201), "id");
    let path = format!("/api/v1/sessions/{session}");

    let asked = org.client.delete(&path).await.refused(428, "confirmation_required");
    let confirmation = &asked["details"]["confirmation"];
    assert_eq!(confirmation["answer_required"], true);
    assert!(text(confirmation, "prompt").ends_with("type its name to go on: Front desk"), "{confirmation}");

    let with = |asked: &Value, answer: &str| {
        format!("{path}?confirmation={}&answer={answer}", text(&asked["details"]["confirmation"], "token"))
    };
    let again = org.client.delete(&with(&asked, "front%20desk")).await.refused(428, "confirmation_required");
    assert_eq!(again["details"]["confirmation"]["rejected"], "confirmation_wrong_answer");
    org.client.get(&path).await.expect(200);
    org.client.delete(&with(&again, "Front%20desk")).await.expect(204);

    let exempt = json!({ "label": "Front desk", "labels": { "disposable": "" } });
    let session = text(&org.client.post("/api/v1/sessions", &exempt).await.expect(201), "id");
    org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(204);
}

#[tokio::test]
async fn a_delete_that_was_confirmed_is_not_confirmed_again_when_it_is_due() {
    let (_gateway, org) = bound("confirm-delete", json!({ "type": "nothing" })).await;
    let grace = org.catalogue("grace-delete").await;
    org.bind(&grace, json!({ "grace": "PT1S" })).await;
    let session = org.session().await;
    let path = format!("/api/v1/sessions/{session}");
    let asked = org.client.delete(&path).await.refused(428, "confirmation_required");
    let token = text(&asked["details"]["confirmation"], "token");
    org.client.delete(&format!("{path}?confirmation={token}")).await.expect(202);
    org.gone(&session).await;
}

/// A gateway with an organisation in which churn is bound, with all that it wants.
async fn subscribed(settings: Value) -> (Gateway, Org, String) {
    let (gateway, org) = bound("churn", settings).await;
    let bindings = org.client.get("/api/v1/bindings").await.expect(200);
    let binding = format!("/api/v1/bindings/{}", text(&bindings["data"][0], "id"));
    let grants = json!({ "grants": ["kv", "sessions", "lifecycle"] });
    org.client.patch(&binding, &grants).await.expect(200);
    (gateway, org, binding)
}

/// Posts a fact.
async fn fact(org: &Org, id: &str, name: &str, session: Option<&str>, data: Value) {
    let fact = json!({ "id": id, "name": name, "session": session, "data": data });
    org.client.post("/api/v1/events", &fact).await.expect(202);
}

/// Waits until a delete by hand is denied with this code: until then the plugin has not heard of the fact.
async fn denied(org: &Org, session: &str, code: &str) {
    let path = format!("/api/v1/sessions/{session}?dry_run=true");
    eventually(&format!("a delete of {session} is denied with {code}"), async || {
        let verdict = org.client.delete(&path).await.expect(200)["verdict"].clone();
        (verdict["denials"][0]["code"] == code).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_subscription_ends_in_a_deletion_and_a_renewed_one_does_not() {
    let (_gateway, org, _) = subscribed(json!({ "grace": "PT2S", "recheck": "PT1S" })).await;
    let [gone, renewed, trial] = [org.session().await, org.session().await, org.session().await];
    denied(&org, &gone, "subscription_active").await;
    org.client.put(&format!("/api/v1/sessions/{trial}/labels"), &json!({ "trial": "" })).await.expect(200);

    for (number, session) in [&gone, &renewed, &trial].into_iter().enumerate() {
        fact(&org, &format!("cancel-{number}"), "subscription.cancelled", Some(session), json!({})).await;
    }
    fact(&org, "renew", "subscription.renewed", Some(&renewed), json!({})).await;
    org.gone(&gone).await;
    denied(&org, &renewed, "subscription_active").await;
    denied(&org, &trial, "in_trial").await;

    // The plugin has asked for it, and the audit says so.
    let audit = org.client.get("/api/v1/audit?limit=50").await.expect(200);
    let entries = audit["data"].as_array().unwrap();
    let asked = entries.iter().find(|entry| entry["operation"] == "session.delete" && entry["outcome"] != "erased");
    assert_eq!(asked.unwrap()["actor"]["kind"], "plugin", "{audit}");

    org.client.put(&format!("/api/v1/sessions/{trial}/labels"), &json!({})).await.expect(200);
    org.gone(&trial).await;
    org.client.get(&format!("/api/v1/sessions/{renewed}")).await.expect(200);
}

#[tokio::test]
async fn a_fact_about_all_ends_every_session_that_is_not_in_use() {
    let (_gateway, org, _) = subscribed(json!({ "grace": "PT1S", "recheck": "PT1S" })).await;
    let mut idle = Vec::new();
    for _ in 0..15 {
        idle.push(org.session().await);
    }
    let used = org.working().await;
    fact(&org, "forgotten", "subscription.cancelled", None, json!({})).await;
    fact(&org, "over", "subscription.cancelled", None, json!({ "all": true })).await;
    for session in &idle {
        org.gone(session).await;
    }
    denied(&org, &used, "session_connected").await;
    org.client.act(&format!("/api/v1/sessions/{used}:stop")).await.expect(200);
    org.gone(&used).await;
}

#[tokio::test]
async fn what_the_plugin_cannot_know_stays() {
    let (_gateway, org, binding) = subscribed(json!({})).await;
    let session = org.session().await;
    org.client.patch(&binding, &json!({ "grants": [] })).await.expect(200);
    let refused = org.client.delete(&format!("/api/v1/sessions/{session}")).await.refused(403, "forbidden");
    assert_eq!(refused["details"]["code"], "subscription_unknown");
}

#[tokio::test]
async fn what_the_fixtures_of_a_shipped_plugin_say_holds_for_its_component() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    for name in ["churn", "rate-ladder"] {
        let mut test = program();
        test.args(["plugin", "test"]).arg(plugins.join(format!("dist/{name}.wasm")));
        let output = test.arg("--fixtures").arg(plugins.join(name).join("fixtures")).output().await.unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success(), "{name}: {said}");
    }
}

/// The name of the day, in UTC, so many days after `now`.
fn day(now: u64, days: u64) -> &'static str {
    let today = now / 86_400_000;
    ["thu", "fri", "sat", "sun", "mon", "tue", "wed"][usize::try_from((today + days) % 7).unwrap()]
}
