//! Nothing left: what is personal of a session is found in no file once the session is erased, nor in a copy made before.
//!
//! Every path by which something personal can come in is given a mark of its own. The marks are looked for in every file of
//! the data directory, byte for byte, while the session is there and when it is gone; then a copy of the data from before is
//! opened with the keys of after.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, eventually, program};
use crate::world::{Org, text};

/// Marks, by where they were written.
#[derive(Default)]
struct Marks(Vec<(&'static str, String)>);

impl Marks {
    fn make(&mut self, place: &'static str) -> String {
        let mark = format!("MARK{:03}of{place}", self.0.len());
        self.0.push((place, mark.clone()));
        mark
    }

    /// Those that stand in a file below a directory.
    fn found_in(&self, directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(self.found_in(&path));
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for (place, mark) in &self.0 {
                if bytes.windows(mark.len()).any(|window| window == mark.as_bytes()) {
                    found.push(format!("{place} in {}", path.display()));
                }
            }
        }
        found
    }
}

/// Writes a mark through everything that takes something personal about a session.
async fn mark_all(org: &Org, session: &str, marks: &mut Marks) {
    let client = &org.client;
    let path = |rest: &str| format!("/api/v1/sessions/{session}/{rest}");
    client.put(&path("labels"), &json!({ "a": marks.make("labels") })).await.expect(200);
    let settings = json!({ "alwaysOnline": false, "autoRead": true, "fullHistory": false, "ignoreGroups": false,
        "presenceTyping": false, "readStatus": false, "rejectCalls": true, "rejectedCallText": marks.make("settings") });
    client.put(&path("settings"), &settings).await.expect(200);
    let proxy = json!({ "host": format!("{}.example.com", marks.make("proxy-host").to_lowercase()), "port": 8080,
        "protocol": "http", "username": marks.make("proxy-user"), "password": marks.make("proxy-password") });
    client.put(&path("proxy"), &proxy).await.expect(200);
    let hook = json!({ "url": format!("https://example.com/{}", marks.make("webhook-url")), "events": ["*"],
        "secret": marks.make("webhook-secret"), "customHeaders": { "x-a": marks.make("webhook-header") }, "sessionId": session });
    client.post("/api/v1/webhooks", &hook).await.expect(201);
    let message = json!({ "type": "text", "to": "628555@s.whatsapp.net", "text": marks.make("message-out") });
    client.post(&path("messages"), &message).await.expect_any(&[200, 201]);
    let queued = json!({ "type": "text", "to": "628555@s.whatsapp.net", "text": marks.make("message-queued") });
    client.post(&path("messages?async=true"), &queued).await.expect(202);
    let received = json!({ "from": "628999@s.whatsapp.net", "text": marks.make("message-in") });
    client.post(&path("simulator:receive"), &received).await.expect_any(&[200, 204]);
    let fact = json!({ "id": marks.make("fact-id"), "name": "paid", "session": session, "data": { "who": marks.make("fact") } });
    client.post("/api/v1/events", &fact).await.expect(202);
}

impl crate::client::Reply {
    #[track_caller]
    fn expect_any(self, statuses: &[u16]) -> Value {
        let status = *statuses.iter().find(|status| **status == self.status).unwrap_or(&statuses[0]);
        self.expect(status)
    }
}

#[tokio::test]
async fn what_is_erased_is_in_no_file_and_no_copy() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let mut marks = Marks::default();
    let label = json!({ "label": marks.make("label"), "start": true });
    let session = text(&org.client.post("/api/v1/sessions", &label).await.expect(201), "id");
    let stays = text(&org.client.post("/api/v1/sessions", &json!({ "label": "another" })).await.expect(201), "id");
    org.link(&session).await;
    org.reaches(&session, "working").await;
    mark_all(&org, &session, &mut marks).await;
    assert_eq!(marks.found_in(&gateway.data()), Vec::<String>::new(), "what is kept is sealed");

    // A copy is made while nobody writes, with everything but the keys.
    gateway.kill().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(gateway.data().join("portcullis.redb"), copy.path().join("portcullis.redb")).unwrap();
    gateway.restart().await;
    let org = Org { client: Client::new(gateway.address, org.client.key.as_deref()), ..org };
    org.client.delete(&format!("/api/v1/sessions/{session}")).await.expect_any(&[204, 202]);
    eventually("its receipt", async || {
        let receipt = org.client.get(&format!("/api/v1/receipts/{session}")).await;
        (receipt.status == 200).then_some(())
    })
    .await;
    gateway.kill().await;
    gateway.assert_sound().await;
    let found = marks.found_in(&gateway.data());
    assert_eq!(found, Vec::<String>::new(), "{} marks written, {} found", marks.0.len(), found.len());

    let control = tempfile::tempdir().unwrap();
    std::fs::write(control.path().join("file"), format!("a file with {}", marks.0[3].1)).unwrap();
    assert_eq!(marks.found_in(control.path()).len(), 1, "whatever is there is found");

    // The copy opens with the keys of now, and the session in it does not.
    for file in ["keys", "master-key"] {
        std::fs::copy(gateway.data().join(file), copy.path().join(file)).unwrap();
    }
    assert_eq!(marks.found_in(copy.path()), Vec::<String>::new());
    let checked = program().args(["check", "--data-dir"]).arg(copy.path()).output().await.unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && said.contains("key"), "the session's rows opened: {said}");
    std::fs::remove_dir_all(gateway.data()).unwrap();
    std::fs::create_dir(gateway.data()).unwrap();
    for file in ["portcullis.redb", "keys", "master-key"] {
        std::fs::copy(copy.path().join(file), gateway.data().join(file)).unwrap();
    }
    gateway.restart().await;
    let client = Client::new(gateway.address, org.client.key.as_deref());
    client.get(&format!("/api/v1/sessions/{stays}")).await.expect(200);
    client.get(&format!("/api/v1/sessions/{session}")).await.expect(404);
    let listed = client.get("/api/v1/sessions").await.expect(200).to_string();
    assert!(marks.0.iter().all(|(_, mark)| !listed.contains(mark)), "{listed}");
}
