//! Data of every released format: it opens, it is sound, and what was written is read.
//!
//! `tests/fixtures/format-N` is the data directory of a gateway whose data had format N, with what that gateway answered about it.
//! None is ever changed. When the format gets a new number, the next one is made by
//!
//! ```text
//! UPDATE_FIXTURE=1 cargo test -p portcullis-tests --test it formats
//! ```
//!
//! which makes the directory of the present format, unless there is one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::gateway::Gateway;
use crate::world::text;

/// What a fixture holds besides `expected.json`.
const FILES: [&str; 4] = ["keys", "master-key", "operator-key", "portcullis.redb"];
/// Nothing goes by itself: not for its age, and not because somebody delivers.
const CONFIG: &str = "[retention]\ndecisions_days = 0\nevents_days = 36500\n";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The format of a gateway's data, as its backups say it.
async fn format(gateway: &Gateway) -> u64 {
    let backup = gateway.operator().get("/api/v1/admin/backup").await;
    assert_eq!(backup.status, 200);
    u64::from_be_bytes(backup.body[16..24].try_into().unwrap())
}

/// Whether all of `expected` is in `found`: of lists every entry, in whatever place, and of objects every field.
fn holds(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| holds(found, value)))
        }
        (Value::Array(found), Value::Array(expected)) => {
            expected.iter().all(|value| found.iter().any(|found| holds(found, value)))
        }
        (found, expected) => found == expected,
    }
}

/// Makes one of everything that stays, in a gateway that is new; what is asked about it afterwards.
async fn furnish(gateway: &Gateway) -> Vec<String> {
    let org = gateway.org("Fixture").await;
    let acme = &org.client;
    let of = |path: String| {
        let sign = if path.contains('?') { '&' } else { '?' };
        format!("{path}{sign}org={}", org.id)
    };
    let plugin = org.catalogue("grace-delete").await;
    org.bind(&plugin, json!({ "legalHoldLabel": "hold" })).await;
    acme.put(&format!("/api/v1/plugins/{plugin}/secrets/token"), &json!({ "value": "hush" })).await.expect(204);
    let linked = org.working().await;
    acme.put(&format!("/api/v1/sessions/{linked}/labels"), &json!({ "team": "sales" })).await.expect(200);
    let message = json!({ "type": "text", "to": "6281@s.whatsapp.net", "text": "hi" });
    acme.post(&format!("/api/v1/sessions/{linked}/messages"), &message).await.expect(200);
    acme.delete(&format!("/api/v1/sessions/{linked}")).await.expect(202);
    acme.act(&format!("/api/v1/sessions/{linked}:restore")).await.expect(200);
    acme.act(&format!("/api/v1/sessions/{linked}:stop")).await.expect(200);
    let plain = text(&acme.post("/api/v1/sessions", &json!({ "label": "Front desk" })).await.expect(201), "id");
    let settings =
        json!({ "autoRead": true, "presenceTyping": true, "rejectCalls": true, "rejectedCallText": "later" });
    acme.put(&format!("/api/v1/sessions/{plain}/settings"), &settings).await.expect(200);
    let proxy =
        json!({ "protocol": "http", "host": "proxy.example.com", "port": 8080, "username": "u", "password": "p" });
    acme.put(&format!("/api/v1/sessions/{plain}/proxy"), &proxy).await.expect(200);
    let hook =
        json!({ "url": "https://example.com/hook", "events": ["session.status"], "secret": "s", "active": false });
    acme.post("/api/v1/webhooks", &hook).await.expect(201);
    // An organisation that is erased leaves slots of the key file that are free.
    let erased = gateway.org("Erased").await;
    erased.session().await;
    gateway.operator().delete(&format!("/api/v1/orgs/{}", erased.id)).await.expect(204);

    let decisions = acme.get("/api/v1/decisions").await.expect(200);
    let mut asked = vec![
        format!("/api/v1/orgs/{}", org.id),
        format!("/api/v1/orgs/{}/keys", org.id),
        "/api/v1/audit?limit=200".to_owned(),
    ];
    for path in ["sessions", "webhooks", "plugins", "bindings", "audit?limit=200"] {
        asked.push(of(format!("/api/v1/{path}")));
    }
    asked.push(of(format!("/api/v1/sessions/{plain}/settings")));
    asked.push(of(format!("/api/v1/sessions/{plain}/proxy")));
    asked.push(of(format!("/api/v1/plugins/{plugin}/secrets")));
    asked.push(of(format!("/api/v1/decisions/{}", text(&decisions["data"][0], "id"))));
    asked
}

/// Keeps the data of a gateway of the present format, unless there is such data.
async fn make() {
    let mut gateway = Gateway::start_with(CONFIG).await;
    let to = fixtures().join(format!("format-{}", format(&gateway).await));
    if to.exists() {
        return;
    }
    let asked = furnish(&gateway).await;
    assert!(gateway.terminate().await.success());
    fs::create_dir_all(&to).unwrap();
    for file in FILES {
        fs::copy(gateway.data().join(file), to.join(file)).unwrap();
    }
    gateway.restart().await;
    let mut expected = Map::new();
    for path in asked {
        expected.insert(path.clone(), gateway.operator().get(&path).await.expect(200));
    }
    fs::write(to.join("expected.json"), format!("{:#}\n", Value::Object(expected))).unwrap();
}

#[tokio::test]
async fn data_of_every_format_is_brought_to_the_present_one() {
    if std::env::var_os("UPDATE_FIXTURE").is_some() {
        make().await;
    }
    let mut formats = Vec::new();
    for fixture in fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()) {
        let name = fixture.file_name().unwrap().to_str().unwrap().to_owned();
        formats.push(name.clone());
        let mut gateway = Gateway::start_with(CONFIG).await;
        assert!(gateway.terminate().await.success());
        fs::remove_dir_all(gateway.data()).unwrap();
        fs::create_dir(gateway.data()).unwrap();
        for file in FILES {
            let to = gateway.data().join(file);
            fs::copy(fixture.join(file), &to).unwrap();
            // What is kept with sources has the permissions of sources.
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
        gateway.assert_sound().await;
        gateway.restart().await;
        let key = fs::read_to_string(fixture.join("operator-key")).unwrap();
        let operator = Client::new(gateway.address, Some(key.trim()));
        let expected: Value = serde_json::from_slice(&fs::read(fixture.join("expected.json")).unwrap()).unwrap();
        let expected = expected.as_object().unwrap();
        assert!(expected.len() > 10, "{name} is hardly asked about anything");
        for (path, expected) in expected {
            let found = operator.get(path).await.expect(200);
            assert!(holds(&found, expected), "{name}: {path} answered {found:#}\nand not {expected:#}");
        }
        // It is the present one's data now, with everything that the present one does with it.
        operator.act("/api/v1/admin/master-key:rotate").await.expect(200);
        assert!(gateway.terminate().await.success());
        gateway.assert_sound().await;
    }
    let gateway = Gateway::start().await;
    let present = format!("format-{}", format(&gateway).await);
    assert!(formats.contains(&present), "there is no fixture of {present}; this module says how it is made");
}

#[test]
fn what_is_missing_is_seen() {
    let found = json!({ "data": [{ "id": "a", "label": "x" }, { "id": "b" }], "more": 1 });
    assert!(holds(&found, &json!({ "data": [{ "id": "b" }] })));
    for missing in
        [json!({ "data": [{ "id": "c" }] }), json!({ "less": 1 }), json!({ "data": [{ "id": "b", "label": "x" }] })]
    {
        assert!(!holds(&found, &missing), "{missing}");
    }
}
