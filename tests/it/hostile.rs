//! Attacks on the whole gateway by plugins whose every answer is in order: what they name, when they want it, and what they call themselves.
//!
//! The attacks on the runtime itself are in `host/policy/tests/hostile`; `docs/security.md` says what each class comes to.

use bytes::Bytes;
use portcullis_testing::text::{KV, NOT_FOUND, Probe, RESULT, SESSIONS, bytes, data, saying};
use portcullis_testing::{DATA, Guest};
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::guest::Manner;
use crate::world::{Org, text};

/// Wide by the clock, because tests share the machine.
const PATIENT: &str = "[plugins]\ngate_wall_ms = 20000\nchain_wall_ms = 60000\n";

/// The end of time, as two words.
const NEVER: [u32; 2] = [u32::MAX, u32::MAX];

/// Uploads the guest and binds it for changes of labels and for deletes; the binding's id.
async fn bind(org: &Org, guest: &Guest, grants: &[&str]) -> String {
    let plugin = org.upload(guest.build()).await;
    let binding = json!({ "plugin": plugin, "grants": grants, "hooks": ["session.labels", "session.delete"] });
    text(&org.client.post("/api/v1/bindings", &binding).await.expect(201), "id")
}

/// The guest, wanting everything that it could be granted.
fn wanting(guest: Guest) -> Guest {
    let names = ["kv", "sessions", "secrets", "lifecycle"];
    let (mut list, mut at) = (Vec::new(), 12_288);
    for name in names {
        let len = u32::try_from(name.len()).unwrap();
        list.extend([at, len, at, len]);
        at += len;
    }
    // The list is named at the end of the description, which begins at 64.
    guest
        .with(&data(12_288, names.concat().as_bytes()))
        .with(&data(12_400, &bytes(&list)))
        .with(&data(116, &bytes(&[12_400, 4])))
}

/// Every id that one organisation has names nothing for a plugin of another.
#[tokio::test]
async fn a_plugin_cannot_see_into_another_organisation() {
    let gateway = Gateway::start_with(PATIENT).await;
    let (victim, org) = (gateway.org("Victim").await, gateway.org("Acme").await);
    let (theirs, ours) = (victim.session().await, org.session().await);
    let keeper = victim.catalogue("grace-delete").await;
    victim.bind(&keeper, json!({})).await;

    let mut probe = Probe::default();
    let mut names = String::new();
    for name in [theirs.as_str(), &victim.id, &keeper, &org.id, "../../sessions"] {
        let at = DATA + u32::try_from(names.len()).unwrap();
        names.push_str(name);
        let call = format!("(call $session (i32.const {at}) (i32.const {}) (i32.const {RESULT}))", name.len());
        probe = probe.refused(&call, 8, NOT_FOUND);
    }
    let kept = format!("session:{theirs}:k");
    let at = DATA + u32::try_from(names.len()).unwrap();
    let call = format!("(call $get (i32.const {at}) (i32.const {}) (i32.const {RESULT}))", kept.len());
    names.push_str(&kept);
    probe = probe.refused(&call, 8, NOT_FOUND);
    let at = DATA + u32::try_from(names.len()).unwrap();
    names.push_str(&ours);
    let guest = probe
        // There is one session, and it is ours.
        .step(&format!(
            "(block (result i32)
                (call $count (i32.const 0) (i32.const 0) (i32.const {RESULT}))
                (i64.eq (i64.load offset=8 (i32.const {RESULT})) (i64.const 1)))"
        ))
        .step(&format!(
            "(block (result i32)
                (call $session (i32.const {at}) (i32.const {}) (i32.const {RESULT}))
                (i32.eqz (i32.load8_u (i32.const {RESULT}))))",
            ours.len()
        ))
        // Behind everything that there is, as a cursor of the other organisation's would be.
        .step(&format!(
            "(block (result i32)
                (call $sessions (i32.const 1) (i32.const {DATA}) (i32.const {}) (i32.const {RESULT}))
                (i32.or (i32.load8_u (i32.const {RESULT})) (i32.le_u (i32.load offset=8 (i32.const {RESULT})) (i32.const 1))))",
            theirs.len()
        ))
        .gate(&format!("{KV} {SESSIONS}"))
        .with(&data(DATA, names.as_bytes()));
    bind(&org, &wanting(guest), &["kv", "sessions"]).await;
    let labels = json!({ "seen": "nothing" });
    org.client.put(&format!("/api/v1/sessions/{ours}/labels"), &labels).await.expect(200);
    // Nor has the plugin been asked about what the other organisation does.
    victim.client.put(&format!("/api/v1/sessions/{theirs}/labels"), &labels).await.expect(200);
}

/// Answers that name the end of time, or a code of the gateway's, are answered like any others, and can be explained afterwards.
#[tokio::test]
async fn answers_at_the_edge_are_answers() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let [low, high] = NEVER;
    let deny = |code: &str, retry: bool| {
        saying(&[1, 0, DATA, u32::try_from(code.len()).unwrap(), DATA, 0, u32::from(retry), 0, low, high]).data(code)
    };
    let defer = || saying(&[2, 0, low, high, DATA, 0]);
    let confirm = || saying(&[4, 0, DATA, 4, low, high]).data("sure");
    let patch = |case: u32, text: &str| saying(&[3, 0, case, DATA, u32::try_from(text.len()).unwrap()]).data(text);
    let table: [(&str, Guest, &str, u16, Option<&str>); 9] = [
        ("a code of the gateway's", deny("not_found", false), "PUT", 403, Some("not_found")),
        ("a code of the runtime's", deny("plugin_fuel", false), "PUT", 403, Some("plugin_fuel")),
        ("a code of the server's", deny("internal", true), "PUT", 403, Some("internal")),
        ("a retry at the end of time", deny("no", true), "DELETE", 403, Some("no")),
        ("a deferral of what cannot wait", defer(), "PUT", 403, Some("cannot_wait")),
        ("a deferral to the end of time", defer(), "DELETE", 202, None),
        ("a question for ever", confirm(), "DELETE", 428, None),
        ("a patch for another operation", patch(2, "strict"), "PUT", 403, Some("patch_does_not_fit")),
        ("a text for a delete", patch(3, "boo"), "DELETE", 403, Some("patch_does_not_fit")),
    ];
    for (number, (name, guest, method, status, code)) in table.into_iter().enumerate() {
        let session = org.session().await;
        let binding = bind(&org, &guest.named(&format!("guest-{number}")), &[]).await;
        let path = format!("/api/v1/sessions/{session}");
        let reply = match method {
            "PUT" => org.client.put(&format!("{path}/labels"), &json!({ "a": "b" })).await,
            _ => org.client.delete(&path).await,
        };
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        if let Some(code) = code {
            let details = &reply.json()["error"]["details"];
            assert_eq!((&details["code"], &details["reason"]), (&json!(code), &json!("vetoed")), "{name}");
        }
        let decision = reply.header("x-decision-id").map(str::to_owned);
        let listed = org.client.get("/api/v1/decisions").await.expect(200);
        let decision = decision.unwrap_or_else(|| text(&listed["data"][0], "id"));
        org.client.get(&format!("/api/v1/decisions/{decision}")).await.expect(200);
        org.client.get(&path).await.expect(200);
        org.client.delete(&format!("/api/v1/bindings/{binding}")).await.expect(204);
    }
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}

/// So many follow-ups of this kind, one after the other from 8,192 on; each has these words.
fn extending(follow_ups: &[Vec<u32>]) -> Guest {
    let padded = |words: &Vec<u32>| {
        let mut words = words.clone();
        words.resize(20, 0);
        words
    };
    let list: Vec<u32> = follow_ups.iter().flat_map(padded).collect();
    saying(&[6, 0, 8192, u32::try_from(follow_ups.len()).unwrap()]).with(&data(8192, &bytes(&list)))
}

/// Events and timers are written in the operation's commit, so what is in them must be fit to be read again after a restart.
#[tokio::test]
async fn what_a_plugin_leaves_behind_can_be_read_again() {
    let mut gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let texts = ["session.deleted", "{\"session\":null}", "[1e308,-0.0,\"\\u0000\\ud83d\\ude00\"]", "plugin.event"];
    let mut all = String::new();
    let mut at = |text: &str| {
        let at = DATA + u32::try_from(all.len()).unwrap();
        all.push_str(text);
        [at, u32::try_from(text.len()).unwrap()]
    };
    let [name, null, numbers, own] = texts.map(&mut at);
    let event = |name: [u32; 2], json: [u32; 2]| [&[1, 0], name.as_slice(), &json].concat();
    let mut follow_ups = vec![event(name, null), event(own, numbers), event(name, numbers)];
    // Timers that are due at once, and one that never is.
    for key in 0..12 {
        follow_ups.push(vec![2, 0, DATA + key, 1, 0, 0, DATA, 0]);
    }
    follow_ups.push(vec![2, 0, DATA, 2, NEVER[0], NEVER[1], DATA, 0]);
    let guest = extending(&follow_ups).with(&data(DATA, all.as_bytes()));
    let binding = bind(&org, &guest, &[]).await;
    let path = format!("/api/v1/sessions/{session}/labels");
    for n in 0..10 {
        org.client.put(&path, &json!({ "n": n.to_string() })).await.expect(200);
    }
    gateway.kill().await;
    gateway.assert_sound().await;
    gateway.restart().await;
    let org = org.at(&gateway);
    let kept = org.client.get(&format!("/api/v1/sessions/{session}")).await.expect(200);
    assert_eq!(kept["labels"]["n"], "9");
    org.client.delete(&format!("/api/v1/bindings/{binding}")).await.expect(204);
    org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(204);
    gateway.terminate().await;
    gateway.assert_sound().await;
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}

/// Uploads that keep a compiler busy take the organisation's own turn; another organisation uploads, binds and is served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_one_organisation_do_not_keep_others_from_theirs() {
    let gateway = Gateway::start_with(PATIENT).await;
    let (org, other) = (gateway.org("Acme").await, gateway.org("Other").await);
    let heavy = |n: usize| Bytes::from(heavy(n));
    let attacks = async {
        let mut statuses = Vec::new();
        for n in 0..3 {
            let (one, two) = tokio::join!(
                org.client.send("POST", "/api/v1/plugins", heavy(2 * n)),
                org.client.send("POST", "/api/v1/plugins", heavy(2 * n + 1))
            );
            statuses.extend([one.status, two.status]);
        }
        statuses
    };
    let honest = async {
        for n in 0..3 {
            let plugin = other.upload(Manner::Allow.component(&format!("honest-{n}"))).await;
            other.bind(&plugin, json!({})).await;
            other.session().await;
        }
    };
    let (statuses, ()) = tokio::join!(attacks, honest);
    // One of two at once is taken, and the other is told that there is one under way.
    assert!(statuses.iter().all(|status| [201, 409, 422, 503].contains(status)), "{statuses:?}");
}

/// A plugin that takes a compiler a while.
fn heavy(n: usize) -> Vec<u8> {
    let sum = "(local.set 0 (i64.add (i64.mul (local.get 0) (local.get 0)) (i64.xor (local.get 0) (i64.const 77))))";
    let function = format!("(func (param i64) (result i64) {} local.get 0)", sum.repeat(2000 + n));
    Guest::allowing().named(&format!("heavy-{n}")).with(&function.repeat(10)).build()
}

/// Bombs for a compiler, each of which is a plugin with something behind it. They are compiled by the real program's child.
#[tokio::test]
async fn bombs_go_off_in_the_child_if_at_all() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let beside = |module: String| section(1, &crate::guest::component_text(&module));
    let nested = |depth: usize| {
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        for _ in 0..depth {
            component = [b"\0asm\x0d\0\x01\0".as_slice(), &section(4, &component)].concat();
        }
        section(4, &component)
    };
    let sum = "(local.set 0 (i64.add (i64.mul (local.get 0) (local.get 0)) (i64.xor (local.get 0) (i64.const 77))))";
    let bombs = [
        ("components in components", nested(5000)),
        ("blocks in blocks", beside(format!("(module (func {} {}))", "block ".repeat(50_000), "end ".repeat(50_000)))),
        ("a long function", beside(format!("(module (func (param i64) {}))", sum.repeat(50_000)))),
        ("many functions", beside(format!("(module {})", "(func)".repeat(20_000)))),
        ("a branch table", beside(format!("(module (func (br_table {} (i32.const 0))))", "0 ".repeat(200_000)))),
        (
            "many locals in many functions",
            beside(format!("(module {})", format!("(func {})", "(local i64 f32)".repeat(5000)).repeat(50))),
        ),
    ];
    for (number, (name, bomb)) in bombs.into_iter().enumerate() {
        let plugin = Guest::allowing().named(&format!("bomb-{number}")).build();
        let reply = org.client.send("POST", "/api/v1/plugins", [plugin, bomb].concat().into()).await;
        let reason = reply.json()["error"]["details"]["reason"].clone();
        println!("{name}: {} {reason}", reply.status);
        let known = ["invalid_component", "compile_timeout", "compile_out_of_memory", "too_many_resources"];
        assert!(reply.status == 201 || known.iter().any(|known| reason == *known), "{name}: {reply:?}");
        org.session().await;
    }
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}

/// A section of a component or module.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id];
    let mut len = content.len();
    while len > 0x7f {
        bytes.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    bytes.push(u8::try_from(len).unwrap());
    bytes.extend(content);
    bytes
}

/// What a plugin says of itself and of others is text, wherever it appears.
#[tokio::test]
async fn words_of_a_plugin_are_only_words() {
    let gateway = Gateway::start_with(PATIENT).await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    let message = "\u{202e}</script><script>alert(1)</script>\r\nSet-Cookie: a=b\n\"}]}";
    let len = u32::try_from(message.len()).unwrap();
    let guest = saying(&[1, 0, 8192, 2, DATA, len]).with(&data(DATA, message.as_bytes())).with(&data(8192, b"no"));
    bind(&org, &guest, &[]).await;
    let reply = org.client.put(&format!("/api/v1/sessions/{session}/labels"), &json!({ "a": "b" })).await;
    let error: Value = reply.refused(403, "forbidden");
    assert!(!text(&error, "message").contains(['\r', '\n']), "{error}");
    assert!(reply.header("set-cookie").is_none());
}
