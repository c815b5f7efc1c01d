//! What is done about policies besides asking them: facts, secrets, signatures, ceilings, roll-outs, replays and scans.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use expect_test::expect_file;
use serde_json::{Value, json};

use crate::client::{Client, Reply};
use crate::gateway::Gateway;
use crate::guest::Manner;
use crate::transcript::Transcript;
use crate::world::{ALL, Org, text};

/// Wide by the clock, because tests share the machine.
const PATIENT: &str = "[plugins]\ngate_wall_ms = 20000\nchain_wall_ms = 60000\n";

// === facts ===

fn fact(id: &str, data: &Value) -> Value {
    json!({ "id": id, "name": "subscription.cancelled", "data": data })
}

#[tokio::test]
async fn a_fact_is_told_once() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let tell = async |body: Value| org.client.post("/api/v1/events", &body).await;
    org.client.post("/api/v1/events?dry_run=true", &fact("inv_7", &json!({}))).await.expect(200);
    let told = tell(fact("inv_7", &json!({ "plan": "pro", "seats": 3 }))).await.expect(202);
    assert_eq!((told["id"].clone(), told["name"].clone()), (json!("inv_7"), json!("subscription.cancelled")));
    let again = tell(fact("inv_7", &json!({ "seats": 3, "plan": "pro" }))).await.expect(200);
    assert_eq!(again, told);
    let other = tell(fact("inv_7", &json!({ "plan": "free" }))).await.refused(409, "conflict");
    assert_eq!(other["details"]["reason"], "fact_taken");
    assert_ne!(tell(fact("inv_8", &json!({}))).await.expect(202)["event"], told["event"]);
    let audit = org.client.get("/api/v1/audit?limit=3").await.expect(200);
    let operations: Vec<_> = audit["data"].as_array().unwrap().iter().map(|entry| text(entry, "operation")).collect();
    assert_eq!(
        operations.iter().filter(|operation| *operation == "event.tell").count(),
        3,
        "the refused one as well: {audit}"
    );
    for (field, body) in [
        ("name", json!({ "id": "a", "name": "session.deleted" })),
        ("name", json!({ "id": "a", "name": "no spaces" })),
        ("id", json!({ "id": "", "name": "a" })),
        ("data", json!({ "id": "a", "name": "a", "data": "x".repeat(33_000) })),
    ] {
        let error = tell(body).await.refused(400, "validation_error");
        assert_eq!(error["details"]["field"], field, "{error}");
    }
}

#[tokio::test]
async fn a_bound_key_tells_facts_of_its_own_session_only() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (own, sibling) = (org.session().await, org.session().await);
    let key = json!({ "name": "bound", "capabilities": ALL, "sessionId": own });
    let bound = Client::new(gateway.address, Some(&gateway.key(&org.id, &key).await));
    let about = |session: &str| json!({ "id": session, "name": "trial.ended", "session": session });
    let told = bound.post("/api/v1/events", &about(&own)).await.expect(202);
    assert_eq!(text(&told, "session"), own);
    bound.post("/api/v1/events", &about(&sibling)).await.refused(404, "not_found");
    bound.post("/api/v1/events", &fact("a", &json!({}))).await.refused(404, "not_found");
    let gone = "sess_01BX5ZZKBKACTAV9WEVGEMMVRZ";
    org.client.post("/api/v1/events", &about(gone)).await.refused(404, "not_found");
}

// === secrets ===

#[tokio::test]
async fn secrets_are_put_and_never_shown() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("grace-delete").await;
    let path = format!("/api/v1/plugins/{plugin}/secrets");
    for name in ["token", "hook.key"] {
        org.client.put(&format!("{path}/{name}"), &json!({ "value": "the hidden value" })).await.expect(204);
    }
    let listed = org.client.get(&path).await.expect(200);
    let names: Vec<_> = listed["data"].as_array().unwrap().iter().map(|secret| text(secret, "name")).collect();
    assert_eq!(names, ["hook.key", "token"]);
    for told in [listed, org.client.get("/api/v1/audit").await.expect(200)] {
        assert!(!told.to_string().contains("hidden"), "{told}");
    }
    org.client.delete(&format!("{path}/token")).await.expect(204);
    org.client.delete(&format!("{path}/token")).await.refused(404, "not_found");
    let put =
        async |name: &str, value: &str| org.client.put(&format!("{path}/{name}"), &json!({ "value": value })).await;
    put("no%20spaces", "x").await.refused(400, "validation_error");
    put("empty", "").await.refused(400, "validation_error");
    put("long", &"x".repeat(4097)).await.refused(400, "validation_error");
    for number in 1..32 {
        put(&format!("secret-{number}"), "x").await.expect(204);
    }
    let full = put("one-too-many", "x").await.refused(403, "forbidden");
    assert_eq!(full["details"]["reason"], "quota_reached");
    let nowhere = "/api/v1/plugins/plug_01BX5ZZKBKACTAV9WEVGEMMVRZ/secrets";
    org.client.get(nowhere).await.refused(404, "not_found");
    org.client.put(&format!("{nowhere}/a"), &json!({ "value": "x" })).await.refused(404, "not_found");
}

// === signatures and ceilings ===

struct Signer {
    pair: Ed25519KeyPair,
    id: String,
}

impl Signer {
    async fn register(client: &Client) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = STANDARD.encode(pair.public_key().as_ref());
        let publisher = json!({ "name": "A publisher", "publicKey": key });
        let made = client.post("/api/v1/publishers", &publisher).await.expect(201);
        assert_eq!(text(&made, "publicKey"), key);
        Self { pair, id: text(&made, "id") }
    }

    /// The header for a component.
    fn signature(&self, component: &[u8]) -> (String, String) {
        let hex: String = digest(&SHA256, component).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let signature = self.pair.sign(format!("portcullis-plugin-v1\n{hex}\n").as_bytes());
        ("portcullis-signature".to_owned(), format!("{}:{}", self.id, STANDARD.encode(signature)))
    }
}

async fn upload(client: &Client, component: &[u8], signature: Option<(String, String)>) -> Reply {
    let headers = signature.into_iter().collect();
    client.send_with("POST", "/api/v1/plugins", headers, Bytes::copy_from_slice(component)).await
}

#[tokio::test]
async fn a_signature_holds_for_its_component_alone() {
    let gateway = Gateway::start().await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let signer = Signer::register(&org.client).await;
    let (one, two) = (Manner::Allow.component("one"), Manner::Allow.component("two"));
    let mut forged = signer.signature(&one);
    forged.1.truncate(forged.1.len() - 8);
    for wrong in [signer.signature(&two), forged] {
        let refused = upload(&org.client, &one, Some(wrong)).await.refused(400, "validation_error");
        assert_eq!(refused["details"]["reason"], "invalid_signature", "{refused}");
    }
    let nonsense = ("portcullis-signature".to_owned(), "nonsense".to_owned());
    upload(&org.client, &one, Some(nonsense)).await.refused(400, "validation_error");
    // Another organisation's publisher is nobody here.
    upload(&other.client, &one, Some(signer.signature(&one))).await.refused(400, "validation_error");

    let unsigned = upload(&org.client, &one, None).await.expect(201);
    assert!(unsigned.get("signer").is_none());
    let signed = upload(&org.client, &one, Some(signer.signature(&one))).await.expect(200);
    assert_eq!((text(&signed, "signer"), &signed["version"]), (signer.id.clone(), &json!(1)));
    // Bytes that were signed once stay so.
    assert_eq!(text(&upload(&org.client, &one, None).await.expect(200), "signer"), signer.id);
}

#[tokio::test]
async fn where_signatures_are_required_nothing_else_is_bound() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let signer = Signer::register(&org.client).await;
    let component = Manner::Allow.component("guest");
    let plugin = text(&upload(&org.client, &component, None).await.expect(201), "id");
    let before = org.bind(&plugin, json!({})).await;
    org.client.put("/api/v1/plugins/rules", &json!({ "requireSignature": true })).await.expect(200);

    let refused = upload(&org.client, &Manner::Trap.component("guest"), None).await.refused(403, "forbidden");
    assert_eq!(refused["details"]["reason"], "signature_required");
    org.client.post("/api/v1/bindings", &json!({ "plugin": plugin })).await.refused(403, "forbidden");
    // What is bound stays bound, and can be changed in what the signature does not vouch for.
    org.client.patch(&format!("/api/v1/bindings/{before}"), &json!({ "mode": "off" })).await.expect(200);
    upload(&org.client, &component, Some(signer.signature(&component))).await.expect(200);
    org.bind(&plugin, json!({})).await;
    org.client.delete(&format!("/api/v1/publishers/{}", signer.id)).await.expect(204);
    org.client.post("/api/v1/bindings", &json!({ "plugin": plugin })).await.refused(403, "forbidden");

    // The organisation can take its own rule back, and not the operator's.
    let path = format!("/api/v1/orgs/{}", org.id);
    let rules = json!({ "pluginRules": { "requireSignature": true } });
    gateway.operator().patch(&path, &rules).await.expect(200);
    let rules = org.client.put("/api/v1/plugins/rules", &json!({ "requireSignature": false })).await.expect(200);
    assert_eq!(rules, json!({ "requireSignature": false, "operatorRequiresSignature": true }));
    org.client.post("/api/v1/bindings", &json!({ "plugin": plugin })).await.refused(403, "forbidden");
}

#[tokio::test]
async fn the_platforms_own_plugins_are_signed_if_the_configuration_says_so() {
    let gateway = Gateway::start_with("[plugins]\nrequire_signature = true\n").await;
    let operator = gateway.operator();
    let component = Manner::Allow.component("house-rules");
    upload(&operator, &component, None).await.refused(403, "forbidden");
    let signer = Signer::register(&operator).await;
    upload(&operator, &component, Some(signer.signature(&component))).await.expect(201);
    // Organisations are their own masters.
    upload(&gateway.org("Acme").await.client, &component, None).await.expect(201);
}

#[tokio::test]
async fn no_binding_has_more_than_the_operators_ceiling() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("churn").await;
    let wanted = org.client.get(&format!("/api/v1/plugins/{plugin}")).await.expect(200)["describe"]["wants"].clone();
    // Whoever grants something reads why.
    let wanted = wanted.as_array().unwrap();
    assert!(wanted.iter().all(|want| text(want, "why").len() > 10), "{wanted:?}");
    let wants: Vec<_> = wanted.iter().map(|want| text(want, "grant")).collect();
    let path = format!("/api/v1/orgs/{}", org.id);
    let ceiling = |grants: Value| json!({ "pluginRules": { "ceiling": grants } });
    gateway.operator().patch(&path, &ceiling(json!(["sessions"]))).await.expect(200);
    let bind = json!({ "plugin": plugin, "grants": wants });
    let refused = org.client.post("/api/v1/bindings", &bind).await.refused(400, "validation_error");
    assert_eq!(refused["details"]["field"], "grants", "{refused}");
    let lifted = gateway.operator().patch(&path, &ceiling(Value::Null)).await.expect(200);
    assert!(lifted["pluginRules"].get("ceiling").is_none(), "{lifted}");
    org.client.post("/api/v1/bindings", &bind).await.expect(201);
}

// === roll-outs ===

#[tokio::test]
async fn a_candidate_is_promoted_and_taken_back() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let plugin = org.upload(Manner::Allow.component("guest")).await;
    let binding = org.bind(&plugin, json!({})).await;
    org.client.send("POST", "/api/v1/plugins", Manner::Trap.component("guest").into()).await.expect(201);
    let path = format!("/api/v1/bindings/{binding}");
    let nothing = org.client.act(&format!("{path}:promote")).await.refused(409, "conflict");
    assert_eq!(nothing["details"]["reason"], "no_candidate");
    org.client.act(&format!("{path}:rollback")).await.refused(409, "conflict");

    let patch = async |candidate: Value| org.client.patch(&path, &json!({ "candidate": candidate })).await;
    patch(json!({ "version": 9 })).await.refused(404, "not_found");
    patch(json!({ "version": 2, "percent": 101 })).await.refused(400, "validation_error");
    let tried = patch(json!({ "version": 2 })).await.expect(200);
    assert_eq!(tried["candidate"], json!({ "version": 2, "percent": 0, "asked": 0, "diverged": 0 }));
    assert!(patch(Value::Null).await.expect(200).get("candidate").is_none());
    patch(json!({ "version": 2 })).await.expect(200);

    // In the shadow it is asked, compared, and changes nothing.
    let session = org.session().await;
    let state = org.client.get(&path).await.expect(200);
    assert_eq!((&state["candidate"]["asked"], &state["candidate"]["diverged"]), (&json!(1), &json!(1)), "{state}");

    let promoted = org.client.act(&format!("{path}:promote")).await.expect(200);
    assert_eq!((&promoted["version"], &promoted["previousVersion"]), (&json!(2), &json!(1)));
    assert!(promoted.get("candidate").is_none());
    org.client.delete(&format!("/api/v1/sessions/{session}")).await.refused(403, "forbidden");
    let back = org.client.act(&format!("{path}:rollback")).await.expect(200);
    assert_eq!((&back["version"], &back["previousVersion"]), (&json!(1), &json!(2)));
    org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(204);
    org.client.act(&format!("{path}:resume")).await.expect(200);
    for (millis, status) in [(json!(250), 200), (json!(251), 400), (json!(0), 400), (Value::Null, 200)] {
        assert_eq!(org.client.patch(&path, &json!({ "wallMillis": millis })).await.status, status, "{millis}");
    }
}

// === decisions, replays and scans ===

/// An organisation with a grace period, a session that was deleted and restored, and one that is kept from deletion.
async fn with_history(gateway: &Gateway) -> (Org, String, String) {
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("grace-delete").await;
    let settings = json!({ "grace": "PT72H" });
    let body = json!({ "plugin": plugin, "settings": settings, "hooks": ["session.delete"] });
    org.client.post("/api/v1/bindings", &body).await.expect(201);
    let (session, held) = (org.session().await, org.session().await);
    let path = format!("/api/v1/sessions/{session}");
    org.client.delete(&path).await.expect(202);
    org.client.act(&format!("{path}:restore")).await.expect(200);
    let hold = format!("/api/v1/sessions/{held}");
    org.client.put(&format!("{hold}/labels"), &json!({ "legal-hold": "case 7" })).await.expect(200);
    org.client.delete(&hold).await.refused(403, "forbidden");
    (org, plugin, held)
}

#[tokio::test]
async fn decisions_are_found_by_what_they_are_about() {
    let gateway = Gateway::start_with(PATIENT).await;
    let (org, plugin, held) = with_history(&gateway).await;
    let find = async |query: &str| {
        let found = org.client.get(&format!("/api/v1/decisions?{query}")).await.expect(200);
        found["data"].as_array().unwrap().clone()
    };
    let newest = &find("").await[0];
    let at = newest["at"].as_u64().unwrap();
    for (query, count) in [
        (String::new(), 2),
        (format!("session={held}"), 1),
        ("operation=session.delete".to_owned(), 2),
        ("operation=session.start".to_owned(), 0),
        ("verdict=denied".to_owned(), 1),
        ("verdict=deferred".to_owned(), 1),
        ("verdict=limited".to_owned(), 0),
        (format!("plugin={plugin}"), 2),
        (format!("binding={}", text(&newest["answers"][0], "binding")), 2),
        ("binding=bind_01BX5ZZKBKACTAV9WEVGEMMVRZ".to_owned(), 0),
        (format!("since={at}&verdict=denied"), 1),
        (format!("since={}", at + 1), 0),
        (format!("until={}", at + 1), 2),
        ("limit=1".to_owned(), 1),
    ] {
        assert_eq!(find(&query).await.len(), count, "{query}");
    }
    for query in ["operation=nothing", "verdict=perhaps", "since=yesterday", "plugin=x"] {
        org.client.get(&format!("/api/v1/decisions?{query}")).await.refused(400, "validation_error");
    }
}

#[tokio::test]
async fn a_delete_that_a_limit_stopped_is_recorded_as_limited() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("delete-quota").await;
    org.bind(&plugin, json!({ "perMinute": 1 })).await;
    let (one, two) = (org.session().await, org.session().await);
    org.client.delete(&format!("/api/v1/sessions/{one}")).await.expect(204);
    org.client.delete(&format!("/api/v1/sessions/{two}")).await.refused(429, "rate_limited");
    let found = org.client.get("/api/v1/decisions?verdict=limited").await.expect(200);
    let record = &found["data"][0];
    assert_eq!((&record["ended"], &record["refusedWith"]), (&json!("limited"), &json!("rate_limited")));
    let why = record["why"].to_string();
    assert!(why.contains("a limit of delete-quota was used up"), "{why}");
}

#[tokio::test]
async fn a_replay_tells_what_other_settings_would_have_changed() {
    let gateway = Gateway::start_with(PATIENT).await;
    let (org, plugin, held) = with_history(&gateway).await;
    let replay = async |body: Value| org.client.post(&format!("/api/v1/plugins/{plugin}:replay"), &body).await;

    let same = replay(json!({})).await.expect(200);
    assert_eq!((&same["asked"], &same["same"], &same["changed"]), (&json!(2), &json!(2), &json!(0)), "{same}");
    assert_eq!((&same["neverAsked"], &same["complete"]), (&json!(false), &json!(true)));

    let hour = replay(json!({ "settings": { "grace": "PT1H" } })).await.expect(200);
    assert_eq!((&hour["same"], &hour["changed"]), (&json!(1), &json!(1)), "{hour}");
    let change = &hour["changes"][0];
    let hours =
        |said: &Value| (said["decision"]["until"].as_u64().unwrap() - change["at"].as_u64().unwrap()) / 3_600_000;
    assert_eq!((hours(&change["before"]), hours(&change["after"])), (72, 1));
    assert_eq!((&change["verdictBefore"], &change["verdictAfter"]), (&json!("deferred"), &json!("deferred")));

    // Under another label nothing would have kept the session from being deleted.
    let label = replay(json!({ "settings": { "legalHoldLabel": "other" }, "session": held })).await.expect(200);
    let change = &label["changes"][0];
    assert_eq!((&change["verdictBefore"], &change["verdictAfter"]), (&json!("denied"), &json!("deferred")), "{label}");
    replay(json!({ "settings": { "grace": "never" } })).await.refused(422, "unprocessable");
    replay(json!({ "last": 1001 })).await.refused(400, "validation_error");
    replay(json!({ "version": 7 })).await.refused(404, "not_found");

    // Whoever may not read decisions may not have them replayed.
    let author = gateway.capable(&org, &["plugins"]).await;
    author.post(&format!("/api/v1/plugins/{plugin}:replay"), &json!({})).await.refused(403, "forbidden");
    let audit = org.client.get("/api/v1/decisions").await.expect(200);
    assert_eq!(audit["data"].as_array().unwrap().len(), 2, "a replay left a decision");

    // What was erased is counted, and what a plugin never took part in is asked about by its hooks.
    let (_, quota) =
        (org.client.act(&format!("/api/v1/sessions/{held}:stop")).await, org.catalogue("delete-quota").await);
    let never = org.client.post(&format!("/api/v1/plugins/{quota}:replay"), &json!({})).await.expect(200);
    assert_eq!((&never["neverAsked"], &never["asked"]), (&json!(true), &json!(2)), "{never}");
}

#[tokio::test]
async fn a_scan_tells_what_would_be_answered_about_every_session() {
    let gateway = Gateway::start_with(PATIENT).await;
    let (org, plugin, held) = with_history(&gateway).await;
    let scan = async |body: Value| org.client.post(&format!("/api/v1/plugins/{plugin}:scan"), &body).await;
    let all = scan(json!({ "operation": "session.delete" })).await.expect(200);
    assert_eq!((&all["sessions"], &all["answers"]), (&json!(2), &json!({ "defer": 1, "deny": 1 })), "{all}");
    let denied = all["rows"].as_array().unwrap().iter().find(|row| row["answer"]["decision"]["is"] == "deny").unwrap();
    assert_eq!(text(denied, "sessionId"), held);

    let first = scan(json!({ "operation": "session.delete", "limit": 1 })).await.expect(200);
    let cursor = first["nextCursor"].clone();
    let second = scan(json!({ "operation": "session.delete", "limit": 1, "cursor": cursor })).await.expect(200);
    assert_eq!((&first["answers"], &second["answers"]), (&json!({ "defer": 1 }), &json!({ "deny": 1 })));
    assert!(second.get("nextCursor").is_none(), "{second}");

    scan(json!({ "operation": "session.create" })).await.refused(400, "validation_error");
    scan(json!({ "settings": { "grace": "never" } })).await.refused(422, "unprocessable");
    let author = gateway.capable(&org, &["plugins"]).await;
    author.post(&format!("/api/v1/plugins/{plugin}:scan"), &json!({})).await.refused(403, "forbidden");
    assert_eq!(org.client.get("/api/v1/decisions").await.expect(200)["data"].as_array().unwrap().len(), 2);
}

// === the documents ===

/// The whole of it once, as a client reads it.
#[tokio::test]
async fn the_documents_of_policy() {
    let gateway = Gateway::start_with(PATIENT).await;
    let (org, plugin, _) = with_history(&gateway).await;
    let acme = org.client.clone();
    let bindings = acme.get("/api/v1/bindings").await.expect(200);
    let binding = format!("/api/v1/bindings/{}", text(&bindings["data"][0], "id"));
    let path = format!("/api/v1/plugins/{plugin}");
    let mut golden = Transcript::default();

    golden.section("facts");
    for body in [fact("inv_7", &json!({ "plan": "pro" })), fact("inv_7", &json!({ "plan": "pro" }))] {
        golden.ask(&acme, "POST", "/api/v1/events", body).await;
    }
    golden.ask(&acme, "POST", "/api/v1/events", fact("inv_7", &json!({}))).await;
    golden.ask(&acme, "POST", "/api/v1/events?dry_run=true", fact("inv_8", &json!({}))).await;

    golden.section("secrets");
    golden.ask(&acme, "PUT", &format!("{path}/secrets/token"), json!({ "value": "hush" })).await;
    golden.ask(&acme, "GET", &format!("{path}/secrets"), Value::Null).await;
    golden.ask(&acme, "DELETE", &format!("{path}/secrets/token"), Value::Null).await;

    golden.section("publishers and rules");
    let publisher = json!({ "name": "House", "publicKey": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" });
    let made = golden.ask(&acme, "POST", "/api/v1/publishers", publisher).await.json();
    golden.ask(&acme, "POST", "/api/v1/publishers", json!({ "name": "House", "publicKey": "short" })).await;
    golden.ask(&acme, "GET", "/api/v1/publishers", Value::Null).await;
    golden.ask(&acme, "PUT", "/api/v1/plugins/rules", json!({ "requireSignature": true })).await;
    golden.ask(&acme, "GET", "/api/v1/plugins/rules", Value::Null).await;
    golden.ask(&acme, "POST", "/api/v1/plugins", json!({ "catalog": "delete-quota" })).await;
    golden.ask(&acme, "PUT", "/api/v1/plugins/rules", json!({ "requireSignature": false })).await;
    golden.ask(&acme, "DELETE", &format!("/api/v1/publishers/{}", text(&made, "id")), Value::Null).await;

    golden.section("a roll-out");
    let candidate = json!({ "candidate": { "version": 1, "settings": { "grace": "PT1H" }, "percent": 10 } });
    golden.ask(&acme, "PATCH", &binding, candidate).await;
    golden.ask(&acme, "POST", &format!("{binding}:promote"), Value::Null).await;
    golden.ask(&acme, "POST", &format!("{binding}:rollback"), Value::Null).await;
    golden.ask(&acme, "POST", &format!("{binding}:resume"), Value::Null).await;

    golden.section("replays and scans");
    golden.ask(&acme, "POST", &format!("{path}:replay"), json!({ "settings": { "grace": "PT1H" } })).await;
    golden.ask(&acme, "POST", &format!("{path}:scan"), json!({ "operation": "session.delete" })).await;
    expect_file!["../golden/router/policies.txt"].assert_eq(golden.text());
}

/// Under a key of small order anybody can sign; and a key under two names would still be trusted when one of them is gone.
#[tokio::test]
async fn a_key_that_proves_nothing_or_is_there_already_is_no_publishers() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let register = async |key: &str| {
        let publisher = json!({ "name": "p", "publicKey": key });
        org.client.post("/api/v1/publishers", &publisher).await
    };
    for weak in ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        register(weak).await.refused(400, "validation_error");
    }
    // RFC 8032, 7.1, test 1.
    let good = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    register(good).await.expect(201);
    register(good).await.refused(400, "validation_error");
}

#[tokio::test]
async fn a_misspelt_filter_finds_nothing_instead_of_everything() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    org.client.get("/api/v1/decisions?verdct=denied").await.refused(400, "validation_error");
    org.client.get("/api/v1/decisions?verdict=denied&limit=1").await.expect(200);
}

#[tokio::test]
async fn a_dry_run_does_not_tell_what_is_to_be_typed() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let plugin = org.catalogue("confirm-delete").await;
    org.bind(&plugin, json!({})).await;
    let session = org.session().await;
    let tried = org.client.delete(&format!("/api/v1/sessions/{session}?dry_run=true")).await.expect(200);
    let prompt = &tried["verdict"]["prompts"][0];
    assert_eq!((&prompt["answerRequired"], &prompt["answer"]), (&json!(true), &Value::Null), "{tried}");
}
