//! The process: its key, its ways to begin and to end, what it leaves on the disk, and its command line.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::gateway::{Gateway, eventually, program};
use crate::world::text;

/// The component of a plugin that ships.
const GRACE_DELETE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/grace-delete.wasm");

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn the_operators_key_is_made_once_and_only_its_owner_reads_it() {
    let mut gateway = Gateway::start().await;
    let key = gateway.operator_key.clone();
    assert!(key.starts_with("wa_") && key.len() == 67, "{key}");
    let mode = |name: &str| std::fs::metadata(gateway.data().join(name)).unwrap().permissions().mode() & 0o777;
    for name in ["operator-key", "master-key", "keys", "portcullis.redb"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode(""), 0o700);
    gateway.operator().get("/api/v1/orgs").await.expect(200);
    assert!(gateway.terminate().await.success());
    gateway.restart().await;
    gateway.operator().get("/api/v1/orgs").await.expect(200);
    gateway.terminate().await;
    assert_eq!(gateway.stderr().matches(&key).count(), 1, "{}", gateway.stderr());
    assert_eq!(std::fs::read_to_string(gateway.data().join("operator-key")).unwrap().trim(), key);

    // No secret lies in the clear anywhere else.
    for entry in std::fs::read_dir(gateway.data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && !path.ends_with("operator-key") {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(key.len()).any(|window| window == key.as_bytes());
            assert!(!found, "the operator's key is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn a_signal_lets_the_request_under_way_end() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let body = json!({ "label": "the last one" }).to_string();
    let head = format!(
        "POST /api/v1/sessions HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        org.client.key.as_deref().unwrap(),
        body.len()
    );
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The gateway says that it waits for the body: the request is under way.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");

    gateway.signal(Signal::TERM);
    eventually("new connections are refused", async || {
        TcpStream::connect(gateway.address).await.is_err().then_some(())
    })
    .await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    assert!(gateway.ended().await.success());

    gateway.assert_sound().await;
    gateway.restart().await;
    let listed = org.at(&gateway).client.get("/api/v1/sessions").await.expect(200);
    assert_eq!(listed["data"][0]["label"], "the last one");
    gateway.signal(Signal::INT);
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn a_data_directory_has_one_gateway() {
    let mut gateway = Gateway::start().await;
    let mut second = program();
    second.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(gateway.data());
    let second = second.output().await.unwrap();
    assert!(!second.status.success());
    assert!(stderr(&second).starts_with("error: "), "{}", stderr(&second));
    assert!(stderr(&second).contains("is in use by another process"), "{}", stderr(&second));
    assert!(!gateway.check().await.status.success(), "a running gateway's data was checked");
    gateway.operator().get("/api/v1/orgs").await.expect(200);
    gateway.terminate().await;
    gateway.assert_sound().await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    let missing = program().args(["check", "--data-dir"]).arg(&nowhere).output().await.unwrap();
    assert!(!missing.status.success() && stderr(&missing).contains("there is no data directory"));

    let config = directory.path().join("config.toml");
    std::fs::write(&config, "lisen = 3").unwrap();
    let mut wrong = program();
    wrong.args(["serve", "--data-dir"]).arg(&nowhere).arg("--config").arg(&config);
    let wrong = wrong.output().await.unwrap();
    assert!(!wrong.status.success() && stderr(&wrong).contains("lisen"), "{}", stderr(&wrong));
    assert!(!nowhere.exists(), "a configuration that is refused leaves nothing behind");

    let gateway = Gateway::start().await;
    let mut taken = program();
    taken.args(["serve", "--listen", &gateway.address.to_string(), "--data-dir"]).arg(&nowhere);
    let taken = taken.output().await.unwrap();
    assert!(!taken.status.success() && stderr(&taken).contains("error: "), "{}", stderr(&taken));
}

#[tokio::test]
async fn the_command_line_administers_a_running_gateway() {
    let gateway = Gateway::start().await;
    let operator = gateway.operator_key.clone();
    let org = gateway.say(&operator, &["org", "create", "Acme"]).await;
    assert!(org.starts_with("org_"), "{org}");
    assert_eq!(gateway.say(&operator, &["org", "list"]).await, format!("{org}  Acme"));
    let key = gateway.say(&operator, &["key", "create", "--org", &org, "--capability", "manage,send,plugins"]).await;
    assert!(key.starts_with("wa_"), "{key}");

    let pushed = gateway.say(&key, &["plugin", "push", GRACE_DELETE]).await;
    assert!(pushed.starts_with("plug_") && pushed.contains("version 1  grace-delete  sha256:"), "{pushed}");
    assert!(gateway.say(&key, &["plugin", "list"]).await.contains("grace-delete"));

    let session = gateway.say(&key, &["session", "create", "--label", "Sales line", "--start"]).await;
    assert!(session.starts_with("sess_"), "{session}");
    let listed = gateway.say(&operator, &["session", "list", "--org", &org]).await;
    assert!(listed.starts_with(&format!("{session}  scan_qr_code")) && listed.ends_with("Sales line"), "{listed}");
    assert!(gateway.say(&key, &["session", "qr", &session]).await.lines().count() > 10);

    let plugin = pushed.split_whitespace().next().unwrap();
    let acme = Client::new(gateway.address, Some(&key));
    acme.post("/api/v1/bindings", &json!({ "plugin": plugin, "settings": { "grace": "PT1H" } })).await.expect(201);
    let deferred = gateway.say(&key, &["session", "delete", &session]).await;
    assert!(deferred.starts_with("deletion scheduled for "), "{deferred}");
    let bindings = acme.get("/api/v1/bindings").await.expect(200);
    acme.delete(&format!("/api/v1/bindings/{}", text(&bindings["data"][0], "id"))).await.expect(204);
    assert_eq!(gateway.say(&key, &["session", "delete", &session]).await, "deleted");
    assert_eq!(gateway.say(&key, &["session", "list"]).await, "");

    for (key, arguments, said) in [
        ("", ["session", "list"].as_slice(), "no key"),
        ("wa_wrong", &["session", "list"], "401"),
        (&key, &["org", "create", "x"], "403"),
        (&key, &["session", "delete", &session], "404"),
        (&key, &["plugin", "push", "no-such-file.wasm"], "cannot read no-such-file.wasm"),
    ] {
        let output = gateway.command(key, arguments).await;
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn a_confirmation_is_given_on_the_command_line() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let key = gateway.key(&org.id, &json!({ "name": "k", "capabilities": ["manage"] })).await;
    let session = gateway.say(&key, &["session", "create", "--label", "Front desk"]).await;
    let plugin = org.catalogue("confirm-delete").await;
    org.bind(&plugin, json!({})).await;
    let asked = gateway.command(&key, &["session", "delete", &session]).await;
    assert!(!asked.status.success() && stderr(&asked).contains("428"), "{}", stderr(&asked));
    let said = String::from_utf8(asked.stdout).unwrap();
    assert!(said.contains("type its name to go on: Front desk") && said.contains(" --answer TEXT"), "{said}");
    let token = said.split_whitespace().skip_while(|word| *word != "--confirmation").nth(1).unwrap();
    let confirmed = ["session", "delete", &session, "--confirmation", token, "--answer", "Front desk"];
    assert_eq!(gateway.say(&key, &confirmed).await, "deleted");
}

#[tokio::test]
async fn a_list_on_the_command_line_goes_past_the_first_page() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let mut made = Vec::new();
    for _ in 0..53 {
        made.push(org.session().await);
    }
    let listed = gateway.say(org.client.key.as_deref().unwrap(), &["session", "list"]).await;
    let listed: Vec<_> = listed.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    made.reverse();
    assert_eq!(listed, made);
}

#[tokio::test]
async fn the_demo_plays_to_its_end() {
    let output = program().args(["demo", "--exit"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", stderr(&output));
    for step in ["grace-delete", "QR code", "legal", "restore"] {
        assert!(said.contains(step), "the demo says nothing of {step}: {said}");
    }
    // The story: what a reply no longer said was told as nothing at all.
    let cut_short = said.lines().find(|line| line.ends_with(' ') || line.ends_with(':'));
    assert_eq!(cut_short, None, "{said}");
}

#[tokio::test]
async fn nothing_personal_lies_in_the_clear() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let secrets =
        ["Display-Name-Of-Somebody", "Label-Value-Of-Somebody", "628314159265", "Text-For-Somebody", "628271828182"];
    let [label, value, phone, words, recipient] = secrets;
    let created = json!({ "label": label, "labels": { "who": value }, "start": true });
    let id = text(&org.client.post("/api/v1/sessions", &created).await.expect(201), "id");
    let path = format!("/api/v1/sessions/{id}");
    org.client.get(&format!("{path}/qr")).await.expect(200);
    org.client.post(&format!("{path}/simulator:scan"), &json!({ "phone": phone })).await.expect(204);
    org.reaches(&id, "working").await;
    let message = json!({ "type": "text", "to": format!("{recipient}@s.whatsapp.net"), "text": words });
    org.client.post(&format!("{path}/messages"), &message).await.expect(200);
    let incoming = json!({ "from": format!("{recipient}@s.whatsapp.net"), "text": words });
    org.client.post(&format!("{path}/simulator:receive"), &incoming).await.expect(204);
    assert!(gateway.terminate().await.success());

    let mut files = 0;
    let mut paths = vec![gateway.data()];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        files += 1;
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} lies in the clear in {}", path.display());
        }
    }
    assert!(files >= 3, "the data was not found");
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_what_it_began() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let component = std::fs::read(GRACE_DELETE).unwrap();
    let head = format!(
        "POST /api/v1/plugins HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n",
        org.client.key.as_deref().unwrap(),
        component.len()
    );
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&component).await.unwrap();
    drop(stream);
    eventually("the plugin is listed", async || {
        let listed = org.client.get("/api/v1/plugins").await.expect(200);
        (listed["data"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
}

/// A leaked key of the operator's must not open the gateway for ever.
#[tokio::test]
async fn the_operators_key_can_be_replaced_while_the_gateway_is_stopped() {
    let mut gateway = Gateway::start().await;
    let old = gateway.operator_key.clone();
    gateway.terminate().await;
    let replaced = program().args(["operator-key", "--data-dir"]).arg(gateway.data()).output().await.unwrap();
    assert!(replaced.status.success(), "{}", stderr(&replaced));
    let new = std::fs::read_to_string(gateway.data().join("operator-key")).unwrap().trim().to_owned();
    assert!(new != old && stderr(&replaced).contains(&new), "{}", stderr(&replaced));
    gateway.restart().await;
    gateway.operator().get("/api/v1/orgs").await.expect(401);
    Client::new(gateway.address, Some(&new)).get("/api/v1/orgs").await.expect(200);
}

#[tokio::test]
async fn checking_a_directory_without_data_makes_none() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["check", "operator-key"] {
        let output = program().args([command, "--data-dir"]).arg(directory.path()).output().await.unwrap();
        assert!(!output.status.success() && stderr(&output).contains("there is no data"), "{}", stderr(&output));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// A client that has connected and said nothing has nothing to lose, so nobody waits for it.
#[tokio::test]
async fn a_silent_connection_does_not_delay_the_end() {
    let mut gateway = Gateway::start().await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    // An answered request on another connection shows that the silent one was accepted.
    gateway.operator().get("/api/v1/orgs").await.expect(200);
    assert!(gateway.terminate().await.success());
    let mut said = Vec::new();
    silent.read_to_end(&mut said).await.unwrap();
    assert!(said.is_empty());
    assert!(!gateway.stderr().contains("did not end in time"), "{}", gateway.stderr());
}
