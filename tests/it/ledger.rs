//! The audit and the receipts, as somebody keeps copies of them who does not want to have to trust the gateway.

use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::world::text;

/// Verifies a copy; what was said, and whether it is good.
async fn verified(gateway: &Gateway, what: &str, file: &Path, more: &[&str]) -> (String, bool) {
    let mut arguments = vec![what, "verify", file.to_str().unwrap()];
    arguments.extend(more);
    let output = gateway.command("", &arguments).await;
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

#[tokio::test]
async fn a_copy_of_the_audit_tells_when_it_is_not_what_was_written() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    for _ in 0..3 {
        let session = text(&org.client.post("/api/v1/sessions", &json!({})).await.expect(201), "id");
        org.client.put(&format!("/api/v1/sessions/{session}/labels"), &json!({ "a": "b" })).await.expect(200);
        org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(204);
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("audit.jsonl");
    let key = org.client.key.clone().unwrap();
    let said = gateway.say(&key, &["audit", "export", "--to", copy.to_str().unwrap()]).await;
    let whole = std::fs::read_to_string(&copy).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(said, format!("{} lines", lines.len() - 1));
    assert!(lines.len() > 9, "{whole}");
    let (said, is_good) = verified(&gateway, "audit", &copy, &[]).await;
    assert!(is_good && said.contains(&format!("verified {} lines", lines.len() - 1)), "{said}");
    // It is in the same words again.
    let end: Value = serde_json::from_str(lines[lines.len() - 1]).unwrap();
    let public_key = text(&end["end"], "publicKey");
    assert!(verified(&gateway, "audit", &copy, &["--public-key", &public_key]).await.1);

    let check = async |what: &str, lines: Vec<String>, flaw: &str| {
        let changed = folder.path().join("changed.jsonl");
        std::fs::write(&changed, lines.join("\n") + "\n").unwrap();
        let (said, is_good) = verified(&gateway, "audit", &changed, &[]).await;
        assert!(!is_good && said.contains(flaw), "{what}: {said}");
    };
    let own = || lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let changed = |at: usize, from: &str, to: &str| {
        let mut lines = own();
        assert!(lines[at].contains(from), "{}", lines[at]);
        lines[at] = lines[at].replace(from, to);
        lines
    };
    let without = |at: usize| {
        let mut lines = own();
        lines.remove(at);
        lines
    };
    check("a line is left out", without(2), "number 4 where 3 belongs").await;
    check("the end is cut off", without(lines.len() - 1), "has no end").await;
    check("the last line is cut off", without(lines.len() - 2), "not the one that the gateway wrote").await;
    check("somebody else did it", changed(1, "\"actor\"", "\"actress\""), "are not those that the gateway has told")
        .await;
    check("what is sealed is another", changed(1, "\"sealed\":\"", "\"sealed\":\"AAAA"), "number 2 is not the one")
        .await;
    check(
        "the signature is another",
        changed(lines.len() - 1, "\"signature\":\"", "\"signature\":\"AAAA"),
        "signature",
    )
    .await;
    check("there is something else", [own(), vec!["hello".to_owned()]].concat(), "is no line of an export").await;
    let other = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let (said, is_good) = verified(&gateway, "audit", &copy, &["--public-key", other]).await;
    assert!(!is_good && said.contains("signature"), "another gateway's key: {said}");
}

#[tokio::test]
async fn a_deletion_leaves_a_receipt_that_anybody_can_verify() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let session = org.working().await;
    let receipt = format!("/api/v1/receipts/{session}");
    org.client.get(&receipt).await.expect(404);
    org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect(204);
    org.client.get(&format!("/api/v1/sessions/{session}")).await.expect(404);

    let signed = org.client.get(&receipt).await.expect(200);
    let kept = &signed["receipt"];
    assert_eq!((kept["sessionId"].as_str(), kept["unlink"].as_str()), (Some(&*session), Some("confirmed")));
    let times = ["askedAt", "beganAt", "rowsRemovedAt", "keyDestroyedAt"].map(|name| kept[name].as_u64().unwrap());
    assert!(times.is_sorted(), "{kept}");
    let line = org.client.get("/api/v1/audit?limit=1").await.expect(200);
    assert_eq!(&line["data"][0]["receipt"], kept, "the audit has it, too");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipt.json");
    let key = org.client.key.clone().unwrap();
    std::fs::write(&file, gateway.say(&key, &["receipt", "show", &session]).await).unwrap();
    let (said, is_good) = verified(&gateway, "receipt", &file, &[]).await;
    assert!(is_good && said.contains(&session), "{said}");
    let mut forged = signed.clone();
    forged["receipt"]["askedAt"] = json!(1);
    std::fs::write(&file, forged.to_string()).unwrap();
    let (said, is_good) = verified(&gateway, "receipt", &file, &[]).await;
    assert!(!is_good && said.contains("the signature is not the gateway's"), "{said}");

    // Another organisation has no receipt of it, and the platform has that of an organisation.
    let other = gateway.org("Other").await;
    other.client.get(&receipt).await.expect(404);
    gateway.operator().delete(&format!("/api/v1/orgs/{}", other.id)).await.expect(204);
    let of_org = gateway.operator().get(&format!("/api/v1/receipts/{}", other.id)).await.expect(200);
    assert_eq!(of_org["receipt"]["organizationId"].as_str(), Some(&*other.id));
    org.client.get(&format!("/api/v1/receipts/{}", other.id)).await.expect(404);
}

#[tokio::test]
async fn a_session_can_be_kept_without_its_credentials_before_it_goes() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let (session, other) = (org.working().await, org.working().await);
    org.client.put(&format!("/api/v1/sessions/{session}/labels"), &json!({ "team": "sales" })).await.expect(200);
    org.client.put(&format!("/api/v1/sessions/{other}/labels"), &json!({ "team": "other" })).await.expect(200);
    let hook = json!({ "url": "https://example.com/x", "events": ["*"], "secret": "hush-hush", "sessionId": session });
    org.client.post("/api/v1/webhooks", &hook).await.expect(201);
    let kept = org.client.get(&format!("/api/v1/sessions/{session}/export")).await.expect(200);
    assert_eq!(kept["session"]["id"].as_str(), Some(&*session));
    assert_eq!(kept["labels"], json!({ "team": "sales" }));
    assert_eq!(kept["webhooks"][0]["url"], "https://example.com/x");
    let lines = kept["audit"].as_array().unwrap();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line["sessionId"] == *session), "{kept}");
    let whole = kept.to_string();
    assert!(!whole.contains("hush-hush") && !whole.contains("other"), "{whole}");
}
