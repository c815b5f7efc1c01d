//! What authors of plugins do on the command line, against a running gateway and beside it.
//!
//! Projects that are written, built and followed to the letter are the business of `tests/authoring`; no toolchain is needed here.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;

use crate::gateway::{Gateway, program};
use crate::guest::Manner;
use crate::world::text;

const GRACE_DELETE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/grace-delete.wasm");

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The program beside any gateway, in a folder.
async fn alone(folder: &Path, arguments: &[&str]) -> Output {
    program().current_dir(folder).args(arguments).output().await.unwrap()
}

fn word(line: &str, number: usize) -> &str {
    line.split_whitespace().nth(number).unwrap_or_default()
}

#[tokio::test]
async fn a_plugin_is_signed_pushed_and_put_to_work() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let key = org.client.key.clone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("publisher.pem");
    let pem = pem.to_str().unwrap();

    let made = alone(folder.path(), &["plugin", "keygen", pem]).await;
    assert!(made.status.success(), "{}", stderr(&made));
    let public_key = stdout(&made).lines().next().unwrap().strip_prefix("public key: ").unwrap().to_owned();
    let unknown = gateway.command(&key, &["plugin", "push", GRACE_DELETE, "--sign", pem]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("`portcullis publisher create NAME --public-key"), "{}", stderr(&unknown));

    let publisher = gateway.say(&key, &["publisher", "create", "Acme policies", "--public-key", &public_key]).await;
    assert!(publisher.starts_with("pub_"), "{publisher}");
    let listed = gateway.say(&key, &["publisher", "list"]).await;
    assert_eq!(listed, format!("{publisher}  {public_key}  Acme policies"));

    let settings = folder.path().join("settings.json");
    std::fs::write(&settings, r#"{"grace": "PT1H"}"#).unwrap();
    let settings = settings.to_str().unwrap();
    let push = ["plugin", "push", GRACE_DELETE, "--sign", pem, "--bind", "--settings", settings];
    let pushed = gateway.say(&key, &push).await;
    let lines: Vec<_> = pushed.lines().collect();
    assert!(lines[0].starts_with("plug_") && lines[0].contains("version 1  grace-delete  sha256:"), "{pushed}");
    assert!(lines[1].starts_with("bind_") && lines[1].ends_with("version 1  monitor"), "{pushed}");
    assert!(lines[2].contains("--mode enforce lets them count"), "{pushed}");
    let plugin = org.client.get(&format!("/api/v1/plugins/{}", word(lines[0], 0))).await.expect(200);
    assert_eq!(text(&plugin, "signer"), publisher, "{plugin}");

    // Its one binding is the one that a second push changes.
    let enforced = gateway.say(&key, &["plugin", "push", GRACE_DELETE, "--bind", "--mode", "enforce"]).await;
    assert_eq!(enforced.lines().nth(1).unwrap(), lines[1].replace("monitor", "enforce"));
    let binding = org.client.get(&format!("/api/v1/bindings/{}", word(lines[1], 0))).await.expect(200);
    assert_eq!(binding["settings"], json!({ "grace": "PT1H" }), "what is not said stays");
    let session = org.session().await;
    assert!(gateway.say(&key, &["session", "delete", &session]).await.starts_with("deletion scheduled for "));

    let decisions = gateway.say(&key, &["decision", "list", "--session", &session]).await;
    assert!(decisions.contains("session.delete        deferred"), "{decisions}");
    let decision = gateway.say(&key, &["decision", "show", word(&decisions, 0)]).await;
    let file = folder.path().join("decision.json");
    std::fs::write(&file, &decision).unwrap();
    let fixtures = folder.path().join("fixtures");
    let (file, fixtures) = (file.to_str().unwrap(), fixtures.to_str().unwrap());
    let replayed =
        alone(folder.path(), &["plugin", "test", GRACE_DELETE, "--fixtures", fixtures, "--from-decision", file]).await;
    assert!(replayed.status.success(), "{}{}", stdout(&replayed), stderr(&replayed));
    assert!(stdout(&replayed).contains("1 as expected, 0 not"), "{}", stdout(&replayed));
}

#[tokio::test]
async fn what_the_gateway_refuses_is_said_with_its_advice() {
    let gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    let key = org.client.key.clone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| -> PathBuf {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file
    };
    let check = async |arguments: &[&str], said: &[&str]| {
        let refused = gateway.command(&key, arguments).await;
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        for words in said {
            assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
        }
    };
    let garbage = put("garbage.wasm", b"garbage");
    check(&["plugin", "push", garbage.to_str().unwrap()], &["400", "(not_a_component)"]).await;
    let settings = put("settings.json", br#"{"grace": "soon"}"#);
    let settings = settings.to_str().unwrap();
    let push = ["plugin", "push", GRACE_DELETE, "--bind", "--settings", settings];
    check(&push, &["422", "(invalid_settings)", "/grace: "]).await;
    assert_eq!(org.client.get("/api/v1/bindings").await.expect(200)["data"], json!([]));

    // A signature of other bytes is found out before anything is sent.
    let key_file = folder.path().join("key");
    alone(folder.path(), &["plugin", "keygen", key_file.to_str().unwrap()]).await;
    let component = put("guest.wasm", &Manner::Allow.component("guest"));
    let component = component.to_str().unwrap();
    let signed = alone(folder.path(), &["plugin", "sign", component, "--with", key_file.to_str().unwrap()]).await;
    assert!(signed.status.success(), "{}", stderr(&signed));
    put("guest.wasm", &Manner::Trap.component("guest"));
    check(&["plugin", "push", component], &["is not of this component; sign it again"]).await;

    let plugin = org.catalogue("delete-quota").await;
    for _ in 0..2 {
        org.client.post("/api/v1/bindings", &json!({ "plugin": plugin, "mode": "monitor" })).await.expect(201);
    }
    let quota = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/delete-quota.wasm");
    check(&["plugin", "push", quota, "--bind"], &["the plugin has 2 bindings; say with --binding"]).await;
}

#[tokio::test]
async fn a_status_says_whether_it_was_the_plugin_or_the_words() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let check = async |arguments: &[&str], status: i32, said: &str| {
        let output = alone(folder, arguments).await;
        let told = format!("{}{}", stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
    };
    check(&["plugin", "new", "Not A Name"], 2, "a plugin's name has 1 to 64 characters").await;
    check(&["plugin", "new", "keep", "--lang", "cobol"], 2, "possible values: rust, js, python, c").await;
    check(&["plugin", "push", "x.wasm", "--mode", "enforce"], 2, "--bind").await;
    check(&["plugin", "new", "keep", "--lang", "c"], 0, "portcullis plugin build").await;
    check(&["plugin", "new", "keep", "--lang", "c"], 1, "is there already, and not empty").await;
    check(&["plugin", "build", "nowhere"], 1, "is no plugin's project").await;
    check(&["plugin", "test", "keep"], 1, "`portcullis plugin build` makes one").await;
    check(&["plugin", "inspect", "keep"], 1, "name the component in it").await;
    check(&["plugin", "inspect", GRACE_DELETE], 0, "exports   describe, settings, gate").await;

    // A component of a project is asked its fixtures, and one wrong answer is a failure.
    std::fs::create_dir(folder.join("keep/dist")).unwrap();
    std::fs::copy(GRACE_DELETE, folder.join("keep/dist/grace-delete.wasm")).unwrap();
    check(&["plugin", "test", "keep"], 1, "FAIL     refuses-a-label-without-a-name").await;
    check(&["plugin", "test", "keep", "--bless"], 0, "blessed  refuses-a-label-without-a-name").await;
    check(&["plugin", "test", "keep"], 0, "5 as expected, 0 not").await;
}
