//! One rule written in four languages, each as its toolchain built it, run by the same gateway: all answer alike.
//!
//! `plugins/examples/build` builds them into `target/examples`. A language that was not built is left out, and said so.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::world::{Org, text};

/// Each language, and the class that it needs.
const LANGUAGES: [(&str, &str); 4] = [("rust", "standard"), ("js", "standard"), ("c", "standard"), ("python", "large")];

/// Wide by the clock, because tests share the machine. All other bounds are the usual ones of the classes.
const PATIENT: &str = "[plugins]\ngate_wall_ms = 20000\nchain_wall_ms = 60000\n";

/// Labels, settings, and whether the rule keeps the session.
type Case = (&'static [(&'static str, &'static str)], &'static str, bool);

const QUESTIONS: [Case; 8] = [
    (&[], "{}", false),
    (&[("team", "b")], "{}", false),
    (&[("legal-hold", "case 7")], "{}", true),
    (&[("legal-hold", "")], "{}", true),
    (&[("legal-hold", "false")], "{}", false),
    (&[("legal-hold", "case 7")], r#"{"label": "court"}"#, false),
    (&[("team", "b"), ("court", "\u{1f512}")], r#"{"label": "court"}"#, true),
    (&[("team", "b")], r#"{"label": "t\u0065am"}"#, true),
];

/// Settings that are refused, and the field that is told of. The gateway holds them against the plugin's schema first.
const REFUSED: [(&str, &str); 5] = [
    (r#"{"label": ""}"#, "/label"),
    (r#"{"label": 3}"#, "/label"),
    (r#"{"label": ["legal-hold"]}"#, "/label"),
    (r#"{"la/bel": "x"}"#, "/la~1bel"),
    (r#"["label"]"#, ""),
];

#[tokio::test]
async fn a_rule_answers_alike_in_every_language() {
    let gateway = Gateway::start_with(PATIENT).await;
    let mut asked = Vec::new();
    for (language, class) in LANGUAGES {
        let Some(component) = built(language) else { continue };
        let org = gateway.org(language).await;
        let path = format!("/api/v1/plugins?class={class}");
        let uploaded = org.client.send("POST", &path, component).await.expect(201);
        assert_eq!(uploaded["describe"]["name"], format!("legal-hold-{language}"));
        assert_eq!(uploaded["describe"]["hooks"], json!(["session.delete"]));
        judge_settings(&org, &text(&uploaded, "id"), language).await;
        asked.push((language, questions(&org, &text(&uploaded, "id")).await));
    }
    for pair in asked.windows(2) {
        assert_eq!(pair[0].1, pair[1].1, "{} and {} differ", pair[0].0, pair[1].0);
    }
}

/// Asks every question; the denials.
async fn questions(org: &Org, plugin: &str) -> Vec<Value> {
    let mut answers = Vec::new();
    for (labels, settings, kept) in QUESTIONS {
        let settings: Value = serde_json::from_str(settings).unwrap();
        let binding = org.bind(plugin, settings).await;
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let created = org.client.post("/api/v1/sessions", &json!({ "labels": labels })).await.expect(201);
        let reply = org.client.delete(&format!("/api/v1/sessions/{}", text(&created, "id"))).await;
        if kept {
            let details = reply.refused(403, "forbidden")["details"].clone();
            let decision = text(&details, "decisionId");
            let explained = org.client.get(&format!("/api/v1/decisions/{decision}")).await.expect(200);
            said(&explained["answers"][0]);
            answers.push(json!([details["code"], explained["answers"][0]["answer"]]));
        } else {
            reply.expect(204);
            answers.push(Value::Null);
        }
        org.client.delete(&format!("/api/v1/bindings/{binding}")).await.expect(204);
    }
    answers
}

async fn judge_settings(org: &Org, plugin: &str, language: &str) {
    for (settings, field) in REFUSED {
        let settings: Value = serde_json::from_str(settings).unwrap();
        let binding = json!({ "plugin": plugin, "settings": settings });
        let error = org.client.post("/api/v1/bindings", &binding).await;
        let problems = &error.refused(422, "unprocessable")["details"]["problems"];
        assert_eq!(problems[0]["field"], field, "{language}: {problems}");
        assert_eq!(problems.as_array().unwrap().len(), 1, "{language}: {problems}");
    }
}

#[expect(clippy::print_stdout, reason = "what a call costs is for whoever reads the output")]
fn said(answer: &Value) {
    println!("{answer}");
}

#[expect(clippy::print_stderr, reason = "what is not tested has to be seen")]
fn built(language: &str) -> Option<Bytes> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/examples").to_owned() + &format!("/{language}.wasm");
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes.into()),
        Err(_) => {
            eprintln!("SKIPPED: the example in {language} was not built; run plugins/examples/build {language}");
            None
        }
    }
}
