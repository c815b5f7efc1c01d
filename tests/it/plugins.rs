//! Policy through the whole gateway: hostile plugins, admission, settings, and the plugins that ship.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::Reply;
use crate::gateway::{Gateway, eventually};
use crate::guest::{Manner, component_text};
use crate::world::{Org, text};

/// Wide by the clock, because tests share the machine: these guests are stopped by fuel, memory and the contract.
const PATIENT: &str = "[plugins]\ngate_wall_ms = 20000\nchain_wall_ms = 60000\n";

/// Every way to misbehave, with the code of the failure.
const HOSTILE: [(Manner, &str); 8] = [
    (Manner::Spin, "plugin_fuel"),
    (Manner::Grow, "plugin_memory"),
    (Manner::Trap, "plugin_trap"),
    (Manner::Recurse, "plugin_trap"),
    (Manner::NoSuchCase, "plugin_bad_output"),
    (Manner::Nowhere, "plugin_bad_output"),
    (Manner::NoCode, "plugin_bad_output"),
    (Manner::Endless, "plugin_bad_output"),
];

#[tokio::test]
async fn a_hostile_plugin_costs_its_organisation_what_its_binding_says() {
    let gateway = Gateway::start_with(PATIENT).await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let session = org.session().await;
    let path = format!("/api/v1/sessions/{session}");
    for (number, (manner, code)) in HOSTILE.into_iter().enumerate() {
        let plugin = org.upload(manner.component(&format!("guest-{number}"))).await;
        let binding = org.bind(&plugin, json!({})).await;

        let labels = json!({ "try": number.to_string() });
        let denied = org.client.put(&format!("{path}/labels"), &labels).await.refused(403, "forbidden");
        assert_eq!(denied["details"]["code"], code, "{manner:?}: {denied}");
        assert_eq!(denied["details"]["reason"], "vetoed");
        let decision = text(&denied["details"], "decisionId");
        let explained = org.client.get(&format!("/api/v1/decisions/{decision}")).await.expect(200);
        assert_eq!(explained["answers"][0]["failure"], code);
        assert_eq!(explained["verdict"]["is"], "denied");

        // The next request is served, of this organisation and of another.
        org.client.get(&path).await.expect(200);
        other.session().await;

        let allow = json!({ "onFailure": "allow" });
        org.client.patch(&format!("/api/v1/bindings/{binding}"), &allow).await.expect(200);
        let changed = org.client.put(&format!("{path}/labels"), &labels).await;
        assert_eq!(changed.expect(200)["labels"], labels, "{manner:?}");
        assert!(changed.header("x-decision-id").is_some());
        org.client.delete(&format!("/api/v1/bindings/{binding}")).await.expect(204);
    }
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}

#[tokio::test]
async fn a_plugin_that_spins_past_its_time_is_cut_off() {
    // One millisecond is less than its fuel lasts, on any machine.
    let gateway = Gateway::start_with("[plugins]\ngate_wall_ms = 1\nchain_wall_ms = 60000\n").await;
    let org = gateway.org("Acme").await;
    let plugin = org.upload(Manner::Spin.component("spin")).await;
    org.bind(&plugin, json!({})).await;
    let denied = org.client.post("/api/v1/sessions", &json!({})).await.refused(403, "forbidden");
    assert!(["plugin_deadline", "plugin_fuel"].contains(&text(&denied["details"], "code").as_str()), "{denied}");
}

#[tokio::test]
async fn a_plugin_that_only_monitors_is_recorded_and_changes_nothing() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let plugin = org.upload(Manner::Trap.component("trap")).await;
    let monitor = json!({ "plugin": plugin, "mode": "monitor", "hooks": ["session.create"] });
    org.client.post("/api/v1/bindings", &monitor).await.expect(201);
    let created = org.client.post("/api/v1/sessions", &json!({})).await;
    created.expect(201);
    let decision = created.header("x-decision-id").unwrap();
    let explained = org.client.get(&format!("/api/v1/decisions/{decision}")).await.expect(200);
    assert_eq!(explained["answers"][0]["failure"], "plugin_trap");
    assert_eq!(explained["answers"][0]["mode"], "monitor");
    assert_eq!(explained["verdict"]["is"], "allowed");
}

#[tokio::test]
async fn what_cannot_be_a_plugin_is_refused_with_advice() {
    let gateway = Gateway::start_with("[limits]\ncomponent_bytes = 200000\n").await;
    let org = gateway.org("Acme").await;
    let exporting =
        |name: &str| component_text(&format!("(component (instance $i) (export \"{name}\" (instance $i)))"));
    let importing = |name: &str| component_text(&format!("(component (import \"{name}\" (instance)))"));
    let mut cut = Manner::Allow.component("cut");
    // Not between two sections, where what is left would be a component, too.
    cut.truncate(cut.len() / 2 - 1);
    let refused = [
        (b"garbage".to_vec(), 400, "validation_error", "not_a_component"),
        (vec![0; 4096], 400, "validation_error", "not_a_component"),
        (component_text("(module)"), 400, "validation_error", "not_a_component"),
        (cut, 400, "validation_error", "malformed_component"),
        (exporting("portcullis:policy/gate@0.2.0"), 422, "unprocessable", "unknown_contract_version"),
        (exporting("portcullis:policy/gate@9.0.0"), 422, "unprocessable", "unknown_contract_version"),
        (importing("foo:bar/baz"), 422, "unprocessable", "unknown_import"),
        (importing("wasi:http/outgoing-handler@0.2.0"), 422, "unprocessable", "unknown_import"),
        (component_text("(component)"), 422, "unprocessable", "no_exports"),
        (exporting("portcullis:policy/gate@0.1.0"), 422, "unprocessable", "no_describe"),
        (exporting("portcullis:policy/describe@0.1.0"), 422, "unprocessable", "contract_mismatch"),
        (Manner::Allow.component("Not A Name"), 422, "unprocessable", "bad_description"),
    ];
    for (bytes, status, code, reason) in refused {
        let reply = org.client.send("POST", "/api/v1/plugins", Bytes::from(bytes)).await;
        let error = reply.refused(status, code);
        assert_eq!(error["details"]["reason"], reason, "{error}");
        assert!(text(&error, "message").len() > 20, "{error} gives no advice");
    }
    let large = Bytes::from(vec![0; 200_001]);
    org.client.send("POST", "/api/v1/plugins", large).await.refused(413, "payload_too_large");
    org.client.send("POST", "/api/v1/plugins", Bytes::new()).await.refused(400, "validation_error");
    org.client.post("/api/v1/plugins", &json!({ "catalog": "no-such" })).await.refused(404, "not_found");
    assert_eq!(org.client.get("/api/v1/plugins").await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn versions_grow_and_a_binding_can_go_back() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let plugin = org.upload(Manner::Allow.component("guest")).await;
    let second = org.client.send("POST", "/api/v1/plugins", Manner::Trap.component("guest").into()).await.expect(201);
    assert_eq!((text(&second, "id"), second["version"].clone()), (plugin.clone(), json!(2)));
    let again = org.client.send("POST", "/api/v1/plugins", Manner::Allow.component("guest").into()).await.expect(200);
    assert_eq!(again["version"], 1);

    let binding = org.bind(&plugin, json!({})).await;
    org.client.post("/api/v1/sessions", &json!({})).await.refused(403, "forbidden");
    let rollback = json!({ "version": 1 });
    org.client.patch(&format!("/api/v1/bindings/{binding}"), &rollback).await.expect(200);
    org.session().await;
    let missing = json!({ "version": 3 });
    org.client.patch(&format!("/api/v1/bindings/{binding}"), &missing).await.refused(404, "not_found");
    org.client.post("/api/v1/bindings", &json!({ "plugin": plugin, "version": 9 })).await.refused(404, "not_found");
}

#[tokio::test]
async fn an_upload_that_is_not_waited_for_ends_in_the_list_or_in_the_audit() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    org.client.post("/api/v1/plugins?wait=false", &json!({ "catalog": "grace-delete" })).await.expect(202);
    eventually("the plugin is listed", async || {
        let listed = org.client.get("/api/v1/plugins").await.expect(200);
        (listed["data"][0]["describe"]["name"] == "grace-delete").then_some(())
    })
    .await;
    let garbage = Bytes::from_static(b"garbage");
    org.client.send("POST", "/api/v1/plugins?wait=false", garbage).await.expect(202);
    eventually("the refusal is audited", async || {
        let audit = org.client.get("/api/v1/audit?limit=5").await.expect(200);
        let entries = audit["data"].as_array().unwrap().clone();
        let told = |entry: &Value| entry["outcome"] == "refused" && entry["code"] == "not_a_component";
        entries.iter().any(told).then_some(())
    })
    .await;
}

#[tokio::test]
async fn settings_are_the_plugins_to_judge() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("grace-delete").await;
    let bind = async |settings: Value| {
        org.client.post("/api/v1/bindings", &json!({ "plugin": plugin, "settings": settings })).await
    };
    for (settings, field) in [
        (json!({ "grace": "three days" }), "/grace"),
        (json!({ "grace": "P1M" }), "/grace"),
        (json!({ "grace": 5 }), "/grace"),
        (json!({ "legalHoldLabel": "" }), "/legalHoldLabel"),
        (json!({ "grase": "PT1H" }), "/grase"),
    ] {
        let error = bind(settings).await.refused(422, "unprocessable");
        assert_eq!(error["details"]["reason"], "invalid_settings");
        assert_eq!(error["details"]["problems"][0]["field"], field, "{error}");
        assert!(error["details"]["problems"][0]["message"].is_string());
    }
    let binding = text(&bind(json!({ "grace": "PT1H" })).await.expect(201), "id");
    let path = format!("/api/v1/bindings/{binding}");
    let change = json!({ "settings": { "grace": "never" } });
    org.client.patch(&path, &change).await.refused(422, "unprocessable");
    assert_eq!(org.client.get(&path).await.expect(200)["settings"], json!({ "grace": "PT1H" }));
}

#[tokio::test]
async fn a_deletion_waits_for_its_grace_and_stops_at_a_legal_hold() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("grace-delete").await;
    let binding = org.bind(&plugin, json!({ "grace": "PT72H" })).await;
    let session = org.working().await;
    let path = format!("/api/v1/sessions/{session}");

    let pending = org.client.delete(&path).await.expect(202);
    let due = pending["deleteAt"].as_u64().unwrap();
    assert_eq!(due - pending["updatedAt"].as_u64().unwrap(), 72 * 60 * 60 * 1000);
    assert_eq!(pending["status"], "stopped");
    assert_eq!(org.client.delete(&path).await.expect(202)["deleteAt"], json!(due), "again is the same");
    let refused = org.client.act(&format!("{path}:start")).await.refused(409, "conflict");
    assert_eq!(refused["details"]["reason"], "pending_delete");

    let restored = org.client.act(&format!("{path}:restore")).await.expect(200);
    assert!(restored.get("deleteAt").is_none());
    org.reaches(&session, "working").await;
    let again = org.client.act(&format!("{path}:restore")).await.refused(409, "conflict");
    assert_eq!(again["details"]["reason"], "not_pending_delete");

    org.client.put(&format!("{path}/labels"), &json!({ "legal-hold": "case 7" })).await.expect(200);
    let vetoed = org.client.delete(&path).await.refused(403, "forbidden");
    assert_eq!(
        (&vetoed["details"]["code"], &vetoed["details"]["plugin"]),
        (&json!("legal_hold"), &json!("grace-delete"))
    );

    // A hold that is set during the grace stops the deletion when it is due.
    let short = json!({ "settings": { "grace": "PT1S" } });
    org.client.patch(&format!("/api/v1/bindings/{binding}"), &short).await.expect(200);
    org.client.put(&format!("{path}/labels"), &json!({})).await.expect(200);
    org.client.delete(&path).await.expect(202);
    org.client.put(&format!("{path}/labels"), &json!({ "legal-hold": "" })).await.expect(200);
    eventually("the deletion is taken back", async || {
        let session = org.client.get(&path).await.expect(200);
        session.get("deleteAt").is_none().then_some(())
    })
    .await;

    org.client.put(&format!("{path}/labels"), &json!({})).await.expect(200);
    org.client.delete(&path).await.expect(202);
    org.gone(&session).await;
    let decisions = org.client.get(&format!("/api/v1/decisions?session={session}")).await.expect(200);
    assert_eq!(decisions["data"][0]["phase"], "due");
    let audit = org.client.get("/api/v1/audit?limit=1").await.expect(200);
    assert_eq!((&audit["data"][0]["outcome"], &audit["data"][0]["sessionId"]), (&json!("erased"), &json!(session)));
}

#[tokio::test]
async fn a_plugin_of_the_platform_is_asked_for_every_organisation_and_shown_to_none() {
    let gateway = Gateway::start_with(PATIENT).await;
    let operator = gateway.operator();
    let org = gateway.org("Acme").await;
    let ours = org.upload(Manner::NoCode.component("ours")).await;
    org.bind(&ours, json!({})).await;
    let uploaded = operator.send("POST", "/api/v1/plugins", Manner::Trap.component("house-rules").into()).await;
    let plugin = text(&uploaded.expect(201), "id");
    let bound = operator.post("/api/v1/bindings", &json!({ "plugin": plugin, "order": 99 })).await.expect(201);

    // The platform's denial comes first, whatever the order within an owner is, and all are reported.
    let denied = org.client.post("/api/v1/sessions", &json!({})).await.refused(403, "forbidden");
    let vetoes = denied["details"]["vetoes"].as_array().unwrap();
    let by: Vec<_> = vetoes.iter().map(|veto| (text(veto, "plugin"), text(veto, "code"))).collect();
    let expected = [("house-rules", "plugin_trap"), ("ours", "plugin_bad_output")];
    assert_eq!(by, expected.map(|(plugin, code)| (plugin.to_owned(), code.to_owned())));

    let theirs = text(&bound, "id");
    let bindings = org.client.get("/api/v1/bindings").await.expect(200);
    assert!(!bindings.to_string().contains(&theirs), "{bindings}");
    org.client.get(&format!("/api/v1/bindings/{theirs}")).await.refused(404, "not_found");
    org.client.delete(&format!("/api/v1/bindings/{theirs}")).await.refused(404, "not_found");
    org.client.get(&format!("/api/v1/plugins/{plugin}")).await.refused(404, "not_found");
    org.client.post("/api/v1/bindings", &json!({ "plugin": plugin })).await.refused(404, "not_found");
    // It is asked about the organisation's plugins, too; the organisation's own are not, or they could never be taken away.
    let denied = org.client.post("/api/v1/bindings", &json!({ "plugin": ours })).await.refused(403, "forbidden");
    assert_eq!(denied["details"]["vetoes"].as_array().unwrap().len(), 1, "{denied}");
    operator.delete(&format!("/api/v1/bindings/{theirs}")).await.expect(204);
    let denied = org.client.post("/api/v1/sessions", &json!({})).await.refused(403, "forbidden");
    assert_eq!(denied["details"]["vetoes"].as_array().unwrap().len(), 1);
    org.client.post("/api/v1/bindings", &json!({ "plugin": ours, "mode": "monitor" })).await.expect(201);
}

#[tokio::test]
async fn a_binding_is_for_the_sessions_and_operations_that_it_names() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let plugin = org.upload(Manner::Trap.component("trap")).await;
    let binding = json!({ "plugin": plugin, "selector": { "team": "b" }, "hooks": ["session.stop"] });
    org.client.post("/api/v1/bindings", &binding).await.expect(201);
    let labelled = async |labels: Value| {
        text(&org.client.post("/api/v1/sessions", &json!({ "labels": labels })).await.expect(201), "id")
    };
    let (theirs, other) = (labelled(json!({ "team": "b", "x": "y" })).await, labelled(json!({ "team": "a" })).await);
    let stop = async |id: &str| org.client.act(&format!("/api/v1/sessions/{id}:stop")).await;
    stop(&theirs).await.refused(403, "forbidden");
    stop(&other).await.expect(200);
    org.client.delete(&format!("/api/v1/sessions/{theirs}")).await.expect(204);
}

async fn choose(org: &Org, session: &str, policy: &str) -> Reply {
    org.client.put(&format!("/api/v1/sessions/{session}/rate-policy"), &json!({ "policy": policy })).await
}

#[tokio::test]
async fn the_rate_ladder_sells_its_upper_rungs() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("rate-ladder").await;
    org.bind(&plugin, json!({})).await;
    let session = org.session().await;

    let unknown = choose(&org, &session, "turbo").await.refused(403, "forbidden");
    assert_eq!(unknown["details"]["code"], "unknown_rate_policy");
    for paid in ["high_throughput", "unlimited"] {
        let refused = choose(&org, &session, paid).await.refused(403, "forbidden");
        assert_eq!(refused["details"]["code"], "subscription_required");
        let created = org.client.post("/api/v1/sessions", &json!({ "ratePolicy": paid })).await;
        assert_eq!(created.refused(403, "forbidden")["details"]["code"], "subscription_required");
    }
    assert_eq!(choose(&org, &session, "strict").await.expect(200)["ratePolicy"], "strict");
    assert_eq!(choose(&org, &session, "standard").await.expect(200)["ratePolicy"], "standard_policy");

    let plan = json!({ "plan": { "name": "pro", "active": true } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &plan).await.expect(200);
    assert_eq!(choose(&org, &session, "unlimited").await.expect(200)["ratePolicy"], "unlimited");
}

#[tokio::test]
async fn the_rate_ladder_paces_what_is_sent() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("rate-ladder").await;
    let plan = json!({ "plan": { "name": "pro", "active": true } });
    gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &plan).await.expect(200);
    org.bind(&plugin, json!({ "limits": { "unlimited": { "sendMessagePerMinute": 2 } } })).await;
    let session = org.working().await;
    choose(&org, &session, "unlimited").await.expect(200);
    let message = json!({ "type": "text", "to": "6281@s.whatsapp.net", "text": "hi" });
    let path = format!("/api/v1/sessions/{session}/messages");
    org.client.post(&path, &message).await.expect(200);
    org.client.post(&path, &message).await.expect(200);
    let limited = org.client.post(&path, &message).await;
    let error = limited.refused(429, "rate_limited");
    let seconds = error["details"]["retryAfterSeconds"].as_u64().unwrap();
    assert!((1..=60).contains(&seconds), "{error}");
    assert_eq!(limited.header("retry-after"), Some(seconds.to_string().as_str()));
}

/// Deletes new sessions until one is refused; how many were deleted or deferred before, and the refusal.
async fn delete_until_refused(org: &Org, status: u16) -> (usize, String, Reply) {
    for deleted in 0..100 {
        let session = org.session().await;
        let reply = org.client.delete(&format!("/api/v1/sessions/{session}")).await;
        if reply.status == 429 {
            return (deleted, session, reply);
        }
        reply.expect(status);
    }
    panic!("a hundred deletes went through")
}

#[tokio::test]
async fn the_eleventh_delete_within_a_minute_is_refused_and_not_counted() {
    let gateway = Gateway::start_with(PATIENT).await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let plugin = org.catalogue("delete-quota").await;
    let binding = org.bind(&plugin, json!({})).await;

    let (deleted, kept, refusal) = delete_until_refused(&org, 204).await;
    assert_eq!(deleted, 10);
    let error = refusal.refused(429, "rate_limited");
    assert_eq!(error["message"], "this organisation deletes at most 10 sessions a minute and 100 an hour");
    let seconds = error["details"]["retryAfterSeconds"].as_u64().unwrap();
    assert!((1..=60).contains(&seconds), "{error}");
    assert_eq!(refusal.header("retry-after"), Some(seconds.to_string().as_str()));
    let decision = text(&error["details"], "decisionId");
    let explained = org.client.get(&format!("/api/v1/decisions/{decision}")).await.expect(200);
    assert_eq!(explained["answers"][0]["name"], "delete-quota", "{explained}");

    // The session is as it was, and another organisation is not concerned.
    let path = format!("/api/v1/sessions/{kept}");
    org.client.get(&path).await.expect(200);
    let theirs = other.session().await;
    other.client.delete(&format!("/api/v1/sessions/{theirs}")).await.expect(204);

    // Nor are refused deletes counted: after ten more of them, there is room for exactly one under a bound of eleven an hour.
    for _ in 0..10 {
        org.client.delete(&path).await.refused(429, "rate_limited");
    }
    let wider = json!({ "settings": { "perMinute": 1000, "perHour": 11 } });
    org.client.patch(&format!("/api/v1/bindings/{binding}"), &wider).await.expect(200);
    org.client.delete(&path).await.expect(204);
    let (deleted, ..) = delete_until_refused(&org, 204).await;
    assert_eq!(deleted, 0);
}

#[tokio::test]
async fn a_deferred_delete_is_counted_when_it_is_asked_for_and_not_again_when_it_is_due() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let quota = org.catalogue("delete-quota").await;
    let binding = org.bind(&quota, json!({ "perHour": 2 })).await;
    let grace = org.catalogue("grace-delete").await;
    org.bind(&grace, json!({ "grace": "PT1S" })).await;

    let sessions = [org.session().await, org.session().await];
    for session in &sessions {
        org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(202);
    }
    let (deferred, kept, _) = delete_until_refused(&org, 202).await;
    assert_eq!(deferred, 0, "a grace period is a way around the quota");
    // The quota is used up, and what is due is deleted all the same.
    for session in &sessions {
        org.gone(session).await;
    }
    let wider = json!({ "settings": { "perHour": 3 } });
    org.client.patch(&format!("/api/v1/bindings/{binding}"), &wider).await.expect(200);
    org.client.delete(&format!("/api/v1/sessions/{kept}")).await.expect(202);
    let (deferred, ..) = delete_until_refused(&org, 202).await;
    assert_eq!(deferred, 0, "the due deletes were not counted, so three of three are used up");
}
