//! `portcullis plugin test`: fixtures asked of a component that ships.

use portcullis_testing::text::{HTTP, Request, exporting};
use serde_json::Value;

use super::super::trial::Trial;
use super::*;

/// What a run said, and how it ended.
struct Run {
    said: String,
    ended: Result<(), String>,
}

/// A folder of fixtures for one of the plugins that ship.
struct Bench {
    folder: TempDir,
    component: PathBuf,
}

impl Bench {
    fn new(plugin: &str) -> Self {
        Self { folder: folder(), component: shipped(plugin) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, fixture: &Value) {
        std::fs::write(self.file(name), fixture.to_string()).unwrap();
    }

    fn kept(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.file(name)).unwrap()).unwrap()
    }

    async fn run(&self, bless: bool, from_decision: Option<PathBuf>) -> Run {
        let trial =
            Trial { component: self.component.clone(), fixtures: self.folder.path().to_owned(), bless, from_decision };
        let mut said = Vec::new();
        let ended = trial.run(workshop(), &mut |line| said.push(masked(line))).await;
        let whole = |error: crate::Failure| match error.source() {
            Some(why) => format!("{error}: {why}"),
            None => error.to_string(),
        };
        Run { said: said.join("\n"), ended: ended.map_err(whole) }
    }
}

/// A line without what changes from build to build and from run to run.
fn masked(line: &str) -> String {
    match line.split_once("  fuel ") {
        None => line.to_owned(),
        Some((head, spent)) => {
            let rest = spent.split_once('\n').map(|(_, rest)| format!("\n{rest}")).unwrap_or_default();
            assert!(spent.contains(" %), memory ") && spent.contains(" µs"), "{line}");
            format!("{head}  <spent>{rest}")
        }
    }
}

fn delete(labels: &Value, settings: &Value, expect: &Value) -> Value {
    json!({
        "call": "gate.before",
        "settings": settings,
        "context": { "session": { "labels": labels } },
        "operation": "session.delete",
        "expect": expect,
    })
}

#[tokio::test]
async fn a_fixture_passes_or_shows_what_differs() {
    let bench = Bench::new("grace-delete");
    let held = json!({ "deny": {
        "code": "legal_hold",
        "message": "the label legal-hold keeps this session from being deleted",
    } });
    bench.put("held.json", &delete(&json!({ "legal-hold": "yes" }), &json!({}), &json!({ "answer": held })));
    let run = bench.run(false, None).await;
    assert_eq!(run.ended, Ok(()));
    assert_eq!(run.said, "ok       held  <spent>\n1 as expected, 0 not");

    bench.put("lifted.json", &delete(&json!({}), &json!({ "grace": "PT1H" }), &json!({ "answer": "allow" })));
    let run = bench.run(false, None).await;
    assert!(run.ended.unwrap_err().starts_with("1 of 2 fixtures are not as expected"));
    expect_test::expect_file!["golden/difference.txt"].assert_eq(&format!("{}\n", run.said));

    // What it answers is taken as expected, and nothing else of the file changes.
    let run = bench.run(true, None).await;
    assert_eq!(run.ended, Ok(()));
    assert_eq!(run.said, "ok       held  <spent>\nblessed  lifted  <spent>\n2 as expected, 0 not");
    let kept = bench.kept("lifted.json");
    assert_eq!(kept["expect"]["answer"]["defer"]["until"], json!(1_767_225_600_000_u64 + 60 * 60 * 1000));
    assert_eq!(kept["context"], json!({ "session": { "labels": {} } }));
    assert_eq!(bench.run(false, None).await.ended, Ok(()));
}

#[tokio::test]
async fn everything_that_is_expected_is_compared() {
    let bench = Bench::new("grace-delete");
    let check = async |expect: Value, wrong: Option<&str>| {
        bench.put("one.json", &delete(&json!({ "legal-hold": "" }), &json!({}), &expect));
        let run = bench.run(false, None).await;
        match wrong {
            None => assert_eq!(run.ended, Ok(()), "{}", run.said),
            Some(wrong) => assert!(run.ended.is_err() && run.said.contains(wrong), "{}", run.said),
        }
    };
    check(json!({ "fuel-at-most": 5_000_000, "writes": {}, "log": [] }), None).await;
    check(json!({ "fuel-at-most": 1 }), Some("expected at most")).await;
    check(json!({ "failure": "plugin_trap" }), Some("-   \"failure\": \"plugin_trap\"")).await;
    check(json!({ "writes": { "a": "b" } }), Some("-   \"a = \\\"b\\\"\"")).await;
    check(json!({ "writes": { "a": null } }), Some("-   \"a is removed\"")).await;
    check(json!({ "log": ["hello"] }), Some("-   \"hello\"")).await;
}

#[tokio::test]
async fn settings_are_validated_and_plugins_described() {
    let bench = Bench::new("grace-delete");
    let problem = json!({ "field": "/grace", "message": "write an ISO 8601 duration such as PT72H or P3D" });
    bench.put(
        "bad.json",
        &json!({ "call": "settings.validate", "settings": { "grace": "soon" }, "expect": { "answer": { "problems": [problem] } } }),
    );
    bench.put(
        "good.json",
        &json!({ "call": "settings.validate", "settings": { "grace": "PT1H" }, "expect": { "answer": "ok" } }),
    );
    bench.put("who.json", &json!({ "call": "describe.describe" }));
    let run = bench.run(true, None).await;
    assert_eq!(run.ended, Ok(()), "{}", run.said);
    assert_eq!(bench.kept("who.json")["expect"]["answer"]["name"], "grace-delete");
    assert_eq!(bench.run(false, None).await.ended, Ok(()));
}

#[tokio::test]
async fn what_cannot_be_asked_fails_and_says_why() {
    let bench = Bench::new("grace-delete");
    let check = async |fixture: Value, why: &str| {
        bench.put("one.json", &fixture);
        let run = bench.run(false, None).await;
        let told = format!("{} {}", run.said, run.ended.unwrap_err());
        assert!(told.contains(why), "{told}");
    };
    check(json!({ "call": "gate.before", "expect": {} }), "the call gate.before needs `operation`").await;
    check(json!({ "call": "timer.fired", "timer": { "key": "k" } }), "does not export timer.fired").await;
    check(json!({ "call": "gate.before", "operation": "session.delete" }), "nothing is expected of it").await;
    check(json!({ "call": "gate.sideways" }), "unknown variant `gate.sideways`").await;
    check(json!({ "call": "gate.before", "operations": "x" }), "unknown field `operations`").await;
    let context = |context: Value| json!({ "call": "gate.before", "operation": "session.delete", "context": context, "expect": {} });
    check(context(json!({ "phase": "later" })), "there is no later").await;
    check(context(json!({ "session": { "status": "asleep" } })), "the contract has no \"asleep\"").await;
    check(context(json!({ "nwo": 7 })), "nwo").await;
    std::fs::remove_file(bench.file("one.json")).unwrap();
    assert!(bench.run(false, None).await.ended.unwrap_err().starts_with("there are no fixtures in "));
}

#[tokio::test]
async fn a_recorded_decision_becomes_a_fixture() {
    let bench = Bench::new("grace-delete");
    let decisions = folder();
    let file = decisions.path().join("decision.json");
    let record = |name: &str, code: &str| {
        let fixture: super::super::fixture::Fixture =
            serde_json::from_value(delete(&json!({ "legal-hold": "" }), &json!({}), &json!({}))).unwrap();
        json!({
            "id": "dec_1",
            "answers": [{
                "binding": "bind_1",
                "name": name,
                "decision": { "is": "deny", "code": code, "message": "the label legal-hold keeps this session from being deleted" },
            }],
            "input": {
                "contract": "0.1.0",
                "context": fixture.context(),
                "operation": { "name": "session.delete", "detail": "plain" },
                "links": [{ "binding": "bind_1", "settings": "{}", "grants": [], "reads": [] }],
            },
        })
    };
    let ask = async |decision: Value| {
        std::fs::write(&file, decision.to_string()).unwrap();
        bench.run(false, Some(file.clone())).await
    };
    let run = ask(record("grace-delete", "legal_hold")).await;
    assert_eq!((run.said.as_str(), run.ended), ("ok       dec_1  <spent>\n1 as expected, 0 not", Ok(())));
    // It stays, and has to be blessed before it is one of the fixtures.
    let kept = bench.kept("dec_1.json");
    assert_eq!((&kept["reads"], &kept["grants"]), (&json!([]), &json!([])));
    assert!(bench.run(false, None).await.ended.is_err());
    assert_eq!(bench.run(true, None).await.ended, Ok(()));
    assert_eq!(bench.run(false, None).await.ended, Ok(()));

    let run = ask(record("grace-delete", "held")).await;
    assert!(
        run.said.contains("answer, then and now:") && run.said.contains("-     \"code\": \"held\""),
        "{}",
        run.said
    );
    let run = ask(record("other", "legal_hold")).await;
    assert_eq!(run.ended, Err("grace-delete took no part in this decision; asked were other".to_owned()));
    let mut erased = record("grace-delete", "legal_hold");
    erased["input"] = Value::Null;
    assert!(ask(erased).await.ended.unwrap_err().contains("has no input"));
}

#[tokio::test]
async fn what_an_observer_would_send_is_compared_and_not_sent() {
    let request = Request {
        method: "POST",
        url: "https://crm.example.org/gone",
        headers: &[("x", "y")],
        secret_headers: &[("authorization", "token")],
        body: "{}",
    };
    let (data, call) = request.sent();
    let body = format!("{call} i32.const 8192");
    let guest = exporting("observer", &["after", "on-event"], "i32", &body).importing(HTTP).with(&data);
    let bench = Bench::new("grace-delete");
    let component = bench.file("teller.wasm");
    let guest = guest.wanting(&[("http", "to tell"), ("secrets", "to be known")]);
    std::fs::write(&component, guest.build()).unwrap();
    let bench = Bench { component, ..bench };
    let sent = json!({
        "method": "POST",
        "url": "https://crm.example.org/gone",
        "headers": [["x", "y"]],
        "secret-headers": [["authorization", "token"]],
        "body": "{}",
    });
    let fixture = |hosts: &[&str], expect: &Value| {
        json!({
            "call": "observer.after",
            "operation": "session.delete",
            "http-hosts": hosts,
            "secrets": { "token": "hush" },
            "expect": { "requests": expect },
        })
    };
    bench.put("allowed.json", &fixture(&["*.example.org"], &json!([sent])));
    bench.put("not-allowed.json", &fixture(&["example.com"], &json!([])));
    let run = bench.run(false, None).await;
    assert_eq!(run.ended, Ok(()), "{}", run.said);
    bench.put("allowed.json", &fixture(&["*.example.org"], &json!([])));
    assert!(bench.run(false, None).await.said.contains("requests:"));
    bench.run(true, None).await.ended.unwrap();
    assert_eq!(bench.kept("allowed.json")["expect"]["requests"], json!([sent]));
}
