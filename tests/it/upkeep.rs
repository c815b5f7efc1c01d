//! What an operator does about the data as a whole: backups of a running gateway, restoring them, and the master key.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::gateway::{Gateway, eventually, program};
use crate::world::text;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every file below a directory, with its bytes.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Restores what lies beside a gateway that has ended, with a copy of its master key.
async fn restore(gateway: &Gateway, to: &str) -> Output {
    program()
        .args(["restore", "--from", path(&gateway.beside("backup")), "--keys", path(&gateway.beside("backup-keys"))])
        .args(["--master-key", path(&gateway.beside("copied-key")), "--data-dir", path(&gateway.beside(to))])
        .output()
        .await
        .unwrap()
}

fn copy_master_key(gateway: &Gateway) {
    fs::copy(gateway.data().join("master-key"), gateway.beside("copied-key")).unwrap();
}

#[tokio::test]
async fn a_backup_of_a_busy_gateway_is_restored_without_what_was_erased_since() {
    let mut gateway = Gateway::start().await;
    let operator = gateway.operator_key.clone();
    let org = gateway.org("Acme").await;
    let (kept, erased) = (org.working().await, org.session().await);
    let doomed = gateway.org("Doomed").await;
    doomed.session().await;
    let changed = format!("/api/v1/sessions/{kept}/labels");
    org.client.put(&changed, &json!({ "when": "before" })).await.expect(200);

    let over = Arc::new(AtomicBool::new(false));
    let load = {
        let (org, over) = (org.at(&gateway), Arc::clone(&over));
        tokio::spawn(async move {
            let mut made = 0;
            while !over.load(Ordering::Relaxed) {
                let id = org.session().await;
                org.client.delete(&format!("/api/v1/sessions/{id}")).await.expect(204);
                org.session().await;
                made += 1;
            }
            made
        })
    };
    let (to, keys) = (gateway.beside("backup"), gateway.beside("backup-keys"));
    let taken = gateway.say(&operator, &["backup", "--to", path(&to), "--keys", path(&keys)]).await;
    assert!(taken.contains("rows in") && taken.contains("the key file"), "{taken}");
    over.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0, "there was no load");
    for file in [&to, &keys] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let again = gateway.command(&operator, &["backup", "--to", path(&to)]).await;
    assert!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));

    org.client.put(&changed, &json!({ "when": "after" })).await.expect(200);
    org.client.delete(&format!("/api/v1/sessions/{erased}")).await.expect(204);
    gateway.operator().delete(&format!("/api/v1/orgs/{}", doomed.id)).await.expect(204);
    let handed_out = org.client.get(&format!("/api/v1/receipts/{erased}")).await.expect(200);
    // Only the newest key file is good: it opens nothing that was erased.
    let newer = gateway.beside("newer");
    gateway.say(&operator, &["backup", "--to", path(&newer), "--keys", path(&keys)]).await;
    let audit = gateway.operator().get("/api/v1/audit").await.expect(200).to_string();
    assert_eq!(audit.matches("backup.read").count(), 4, "{audit}");
    copy_master_key(&gateway);
    assert!(gateway.terminate().await.success());

    let refused = restore(&gateway, "data").await;
    assert!(!refused.status.success() && said(&refused).contains("is not empty"), "{}", said(&refused));
    fs::rename(gateway.data(), gateway.beside("lost")).unwrap();
    let restored = restore(&gateway, "data").await;
    let words = said(&restored);
    assert!(restored.status.success() && words.contains(", 0 findings"), "{words}");
    assert!(words.contains(&format!("dropped {erased} of {}", org.id)), "{words}");
    assert!(words.contains(&format!("dropped {} with everything", doomed.id)), "{words}");
    assert!(words.contains("1 organisations and "), "{words}");
    gateway.assert_sound().await;

    gateway.restart().await;
    let org = org.at(&gateway);
    let session = org.client.get(&format!("/api/v1/sessions/{kept}")).await.expect(200);
    assert_eq!(session["labels"], json!({ "when": "before" }));
    org.reaches(&kept, "working").await;
    org.client.get(&format!("/api/v1/sessions/{erased}")).await.expect(404);
    gateway.operator().get(&format!("/api/v1/orgs/{}", doomed.id)).await.expect(404);
    org.session().await;
    // The story: nothing said that they were left out, and nobody knew what a receipt was worth then.
    let own = org.client.get("/api/v1/audit").await.expect(200);
    let left_out = |audit: &Value| -> Vec<Value> {
        let lines = audit["data"].as_array().unwrap().iter();
        lines.filter(|line| line["outcome"] == "left-out").cloned().collect()
    };
    assert_eq!(left_out(&own).iter().filter(|line| line["sessionId"] == erased.as_str()).count(), 1, "{own}");
    let lines = left_out(&gateway.operator().get("/api/v1/audit").await.expect(200));
    assert_eq!(lines.len(), 2, "the organisation and its session: {lines:?}");
    assert!(lines.iter().all(|line| line["subject"] == doomed.id.as_str()), "{lines:?}");
    org.client.get(&format!("/api/v1/receipts/{erased}")).await.expect(404);
    let other = org.session().await;
    org.client.delete(&format!("/api/v1/sessions/{other}")).await.expect(204);
    let present = org.client.get(&format!("/api/v1/receipts/{other}")).await.expect(200);
    assert_eq!(handed_out["publicKey"], present["publicKey"], "another key signs now");
    let file = gateway.beside("receipt");
    fs::write(&file, handed_out.to_string()).unwrap();
    let known = text(&present, "publicKey");
    gateway.say(&operator, &["receipt", "verify", "--public-key", &known, path(&file)]).await;
    gateway.terminate().await;
    gateway.assert_sound().await;
}

/// A server that begins to answer a backup with this and does not end, or ends at once.
/// A key file took the name of whatever was there, and overwrote it: another backup, or the keys of the gateway itself.
#[tokio::test]
async fn a_key_file_replaces_nothing_but_an_older_copy_of_one() {
    let gateway = Gateway::start().await;
    gateway.org("Acme").await;
    let (operator, to, keys) = (&gateway.operator_key, gateway.beside("backup"), gateway.beside("backup-keys"));
    let check = async |keys: &Path, advice: &str| {
        let before = fs::read(keys).ok();
        let refused = gateway.command(operator, &["backup", "--to", path(&to), "--keys", path(keys)]).await;
        assert!(!refused.status.success() && said(&refused).contains(advice), "{}", said(&refused));
        assert!(fs::read(keys).ok() == before && !to.exists());
    };
    check(&to, "must differ").await;
    fs::write(&keys, "a file of somebody's").unwrap();
    check(&keys, "is no key file").await;
    check(&gateway.data().join("keys"), "belongs to the data beside it").await;
    fs::remove_file(&keys).unwrap();
    gateway.say(operator, &["backup", "--to", path(&to), "--keys", path(&keys)]).await;

    // One damaged slot would have its owner seem erased.
    let mut damaged = fs::read(&keys).unwrap();
    let at = damaged.len() - 60;
    damaged[at] ^= 1;
    fs::write(&keys, damaged).unwrap();
    copy_master_key(&gateway);
    let refused = restore(&gateway, path(&gateway.beside("restored"))).await;
    assert!(!refused.status.success() && said(&refused).contains("of the key file are damaged"), "{}", said(&refused));
}

async fn half_a_backup(begin: Vec<u8>, ends: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // An answer to what was not asked yet is none.
        let (mut asked, mut byte) = (Vec::new(), [0]);
        while !asked.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).await.unwrap();
            asked.push(byte[0]);
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(format!("{:x}\r\n", begin.len()).as_bytes()).await.unwrap();
        stream.write_all(&begin).await.unwrap();
        stream.write_all(if ends { b"\r\n0\r\n\r\n" } else { b"\r\n" }).await.unwrap();
        // The connection stays until the client goes.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    address
}

#[tokio::test]
async fn a_backup_that_is_killed_or_cut_off_leaves_none() {
    let mut gateway = Gateway::start().await;
    let org = gateway.org("Acme").await;
    org.session().await;
    let whole = gateway.operator().get("/api/v1/admin/backup").await;
    assert_eq!(whole.status, 200);
    let half = whole.body[..whole.body.len() / 2].to_vec();
    let (to, part) = (gateway.beside("backup"), gateway.beside("backup.part"));
    let backup = |address: std::net::SocketAddr| {
        let mut command = program();
        command.args(["backup", "--to", path(&to), "--key", "k", "--url", &format!("http://{address}")]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    };

    let mut killed = backup(half_a_backup(half.clone(), false).await).spawn().unwrap();
    eventually("half of the backup is written", async || {
        fs::metadata(&part).is_ok_and(|found| found.len() == half.len() as u64).then_some(())
    })
    .await;
    killed.start_kill().unwrap();
    killed.wait().await.unwrap();
    assert!(!to.exists());

    let cut = backup(half_a_backup(half.clone(), true).await).output().await.unwrap();
    assert!(!cut.status.success() && said(&cut).contains("the backup is cut off"), "{}", said(&cut));
    assert!(!to.exists() && !part.exists(), "what is no backup was left");

    // Nor is it taken for one by name.
    gateway
        .say(&gateway.operator_key, &["backup", "--to", path(&to), "--keys", path(&gateway.beside("backup-keys"))])
        .await;
    copy_master_key(&gateway);
    fs::write(&to, &half).unwrap();
    let refused = restore(&gateway, "restored").await;
    assert!(!refused.status.success() && said(&refused).contains("the backup is cut off"), "{}", said(&refused));
    assert!(!gateway.beside("restored").exists());

    // A client that goes away does not keep the place of the next backup.
    let wrong = gateway.command("wa_wrong", &["backup", "--to", path(&gateway.beside("other"))]).await;
    assert!(!wrong.status.success() && said(&wrong).contains("401"), "{}", said(&wrong));
    for name in ["one", "two"] {
        gateway.say(&gateway.operator_key, &["backup", "--to", path(&gateway.beside(name))]).await;
    }
    gateway.terminate().await;
}

#[tokio::test]
async fn a_wrong_master_key_is_refused_and_nothing_is_touched() {
    let mut gateway = Gateway::start().await;
    gateway.org("Acme").await.session().await;
    assert!(gateway.terminate().await.success());
    let own = gateway.data().join("master-key");
    let right = fs::read(&own).unwrap();
    for (wrong, word) in [
        ("0".repeat(64).into_bytes(), "not the one under which the key file was sealed; nothing was changed"),
        (b"half a key".to_vec(), "is not 64 hexadecimal characters"),
    ] {
        fs::write(&own, &wrong).unwrap();
        let before = files(&gateway.data());
        let why = gateway.refuses_to_start().await;
        assert!(why.contains(word), "{why}");
        let check = gateway.check().await;
        assert!(!check.status.success() && said(&check).contains(word), "{}", said(&check));
        assert!(files(&gateway.data()) == before, "something was changed under a wrong key");
    }
    fs::write(&own, &right).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o644)).unwrap();
    let why = gateway.refuses_to_start().await;
    assert!(why.contains("has mode 0644; it must be 0600"), "{why}");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
    gateway.restart().await;
}

#[tokio::test]
async fn the_master_key_is_changed_while_sessions_come_and_go() {
    let mut gateway = Gateway::start().await;
    let operator = gateway.operator_key.clone();
    let org = gateway.org("Acme").await;
    let kept = org.working().await;
    let key = || fs::read_to_string(gateway.data().join("master-key")).unwrap();
    let first = key();
    let old_keys = fs::read(gateway.data().join("keys")).unwrap();
    let work = async {
        for _ in 0..20 {
            let id = org.session().await;
            org.client.delete(&format!("/api/v1/sessions/{id}")).await.expect(204);
        }
    };
    let rotate = async {
        for _ in 0..3 {
            let said = gateway.say(&operator, &["master-key", "rotate"]).await;
            assert!(said.contains("the master key was changed"), "{said}");
        }
    };
    tokio::join!(work, rotate);
    assert_ne!(key(), first);
    let audit = gateway.operator().get("/api/v1/audit").await.expect(200).to_string();
    assert_eq!(audit.matches("master-key.rotate").count(), 6, "{audit}");
    assert_eq!(audit.matches("\"begun\"").count(), 3, "{audit}");
    // What is found by keyed hashes is found as before: keys, names, tokens.
    org.client.get(&format!("/api/v1/sessions/{kept}")).await.expect(200);
    gateway.kill().await;
    gateway.assert_sound().await;
    gateway.restart().await;
    org.at(&gateway).reaches(&kept, "working").await;
    assert!(gateway.terminate().await.success());

    // The key before opens nothing any more, not even together with the key file before.
    let (own, keys) = (gateway.data().join("master-key"), gateway.data().join("keys"));
    let second = fs::read(&own).unwrap();
    fs::write(&own, &first).unwrap();
    assert!(gateway.refuses_to_start().await.contains("not the one under which"));
    fs::write(&own, &second).unwrap();
    let newest = fs::read(&keys).unwrap();
    fs::write(&keys, &old_keys).unwrap();
    assert!(gateway.refuses_to_start().await.contains("not the one under which"));
    fs::write(&keys, &newest).unwrap();
    gateway.restart().await;
}

#[tokio::test]
async fn a_master_key_from_elsewhere_is_found_and_changed_there() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let put = |name: &str, digit: &str| {
        fs::write(place(name), digit.repeat(64)).unwrap();
        fs::set_permissions(place(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    put("key", "a");
    let mut gateway = Gateway::start_with(&format!("[master_key]\nfile = {:?}\n", place("key"))).await;
    let org = gateway.org("Acme").await;
    let session = org.session().await;
    assert!(!gateway.data().join("master-key").exists(), "a key from elsewhere was kept");
    let operator = gateway.operator();
    const ROTATE: &str = "/api/v1/admin/master-key:rotate";
    assert_eq!(operator.act(ROTATE).await.refused(409, "conflict")["details"]["reason"], "same_master_key");
    fs::remove_file(place("key")).unwrap();
    let missing = operator.act(ROTATE).await.refused(503, "unavailable");
    assert_eq!(missing["details"]["reason"], "master_key_unavailable");
    put("key", "b");
    operator.act(&format!("{ROTATE}?dry_run=true")).await.expect(200);
    assert_eq!(operator.act(ROTATE).await.expect(200)["keys"], 3);
    gateway.kill().await;
    gateway.restart().await;
    org.at(&gateway).client.get(&format!("/api/v1/sessions/{session}")).await.expect(200);
    assert!(gateway.terminate().await.success());
    put("key", "a");
    let before = files(&gateway.data());
    assert!(gateway.refuses_to_start().await.contains("not the one under which"));
    assert!(files(&gateway.data()) == before);

    // With two places either is good for a start, before the change and after it. No shell looks at the command.
    put("key", "b");
    put("next", "c");
    let two = format!(
        "[master_key]\ncommand = [\"cat\", {:?}]\n[master_key.next]\nfile = {:?}\n",
        place("key"),
        place("next")
    );
    fs::write(gateway.beside("config.toml"), two).unwrap();
    gateway.restart().await;
    Client::new(gateway.address, operator.key.as_deref()).act(ROTATE).await.expect(200);
    gateway.kill().await;
    gateway.restart().await;
    let found = org.at(&gateway).client.get(&format!("/api/v1/sessions/{session}")).await.expect(200);
    assert_eq!(text(&found, "id"), session);
    assert!(gateway.terminate().await.success());
    fs::write(gateway.beside("config.toml"), "[master_key]\nenv = \"PORTCULLIS_NO_SUCH_KEY\"\n").unwrap();
    let why = gateway.refuses_to_start().await;
    assert!(why.contains("the environment variable PORTCULLIS_NO_SUCH_KEY"), "{why}");
}
