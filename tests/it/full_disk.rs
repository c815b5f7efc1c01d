//! Disks that take no more, and directories that cannot be written: what is refused is said, what was acknowledged stays.
//!
//! A full disk is played by the largest size that a process may give its files: at that, writes fail where they would on a full disk. It needs no
//! rights and no other file system.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, getuid, prlimit};
use serde_json::json;
use tokio::process::Command;

use crate::client::Client;
use crate::damage::{Started, assert_in_words, assert_same, files, start};
use crate::gateway::{eventually, program};

/// How many sessions fill a disk that has some room.
const MANY: usize = 3_000;
/// Nobody's user.
const NOBODY: u32 = 65_534;

/// The program under a shell that has it live on when a file would become too large.
fn patient(before: &str) -> Command {
    let program = program();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("trap '' XFSZ; {before} exec \"$0\" \"$@\"")).arg(program.as_std().get_program());
    command.env("RUST_LOG", "warn").kill_on_drop(true);
    command
}

/// From now on no file of a process becomes larger than this.
fn fill(process: u32, bytes: u64) {
    let id = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    prlimit(Some(id), Resource::Fsize, Rlimit { current: Some(bytes), maximum: None }).unwrap();
}

/// Works until the disk is full, and for a while longer; what was acknowledged has to be there afterwards.
async fn check(data: &Path, room: Option<u64>) {
    let Started::Serving(mut process, address) = start(patient(""), data).await else { panic!("it does not start") };
    let key = std::fs::read_to_string(data.join("operator-key")).unwrap();
    let operator = Client::new(address, Some(key.trim()));
    let org = json!({ "name": "Acme", "quotas": { "sessions": 10_000 } });
    let org = operator.post("/api/v1/orgs", &org).await.expect(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/sessions?org={org}");
    let mut acknowledged = vec![operator.post(&path, &json!({})).await.expect(201)["id"].clone()];

    let length = std::fs::metadata(data.join("portcullis.redb")).unwrap().len();
    fill(process.id().unwrap(), room.map_or(0, |room| length + room));
    let labels = json!({ "labels": { "ballast": "x".repeat(200) } });
    let mut refused = 0;
    for _ in 0..MANY {
        let reply = operator.post(&path, &labels).await;
        match reply.status {
            201 => acknowledged.push(reply.json()["id"].clone()),
            _ => {
                reply.refused(503, "unavailable");
                refused += 1;
            }
        }
        if refused == 5 {
            break;
        }
    }
    assert_eq!(refused, 5, "the disk was never full");
    // Whoever only reads is answered, and whoever asks whether it is well is told that it is not.
    let listed = operator.get(&path).await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), acknowledged.len());
    assert_eq!(Client::new(address, None).get("/readyz").await.status, 503);
    assert_eq!(Client::new(address, None).get("/healthz").await.status, 200);
    process.start_kill().unwrap();
    let said = String::from_utf8(process.wait_with_output().await.unwrap().stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");

    // With room again, everything is there that was acknowledged, and goes on.
    let checked = program().args(["check", "--data-dir"]).arg(data).output().await.unwrap();
    assert!(
        checked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
    let Started::Serving(_process, address) = start(program(), data).await else { panic!("it does not start again") };
    let operator = Client::new(address, Some(key.trim()));
    let listed = operator.get(&path).await.expect(200);
    let there: Vec<_> = listed["data"].as_array().unwrap().iter().map(|session| &session["id"]).collect();
    for id in &acknowledged {
        assert!(there.contains(&id), "{id} was acknowledged and is lost");
    }
    assert!(there.len() <= acknowledged.len() + refused, "more is there than was asked for");
    operator.post(&path, &labels).await.expect(201);
}

#[tokio::test]
async fn a_disk_that_fills_up_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    check(&directory.path().join("data"), Some(0)).await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_at_all_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    check(&directory.path().join("data"), None).await;
}

#[tokio::test]
async fn a_first_boot_on_a_full_disk_says_so_and_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // The first has no room for anything; the others get a little further each, in blocks of 512 bytes.
    for blocks in [0, 1, 8, 64] {
        let limit = format!("ulimit -f {blocks} &&");
        match start(patient(&limit), &data).await {
            Started::Refused(output) => drop(assert_in_words(&output, &limit)),
            Started::Serving(..) => assert!(blocks > 0, "a gateway runs that cannot write a byte"),
        }
    }
    let Started::Serving(_process, address) = start(program(), &data).await else { panic!("it does not start") };
    eventually("it is ready", async || (Client::new(address, None).get("/readyz").await.status == 200).then_some(()))
        .await;
}

/// Root may write everywhere, so that root has somebody else try.
#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let Started::Serving(mut process, _) = start(program(), &data).await else { panic!("it does not start") };
    process.kill().await.unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let is_root = getuid().is_root();
    let somebody = || {
        let mut command = program();
        if is_root {
            command.uid(NOBODY);
        }
        command
    };
    mode(directory.path(), 0o755);
    std::fs::remove_dir_all(data.join("compiled-plugins")).ok();
    for path in files(&data).into_keys().chain([data.clone()]) {
        mode(&path, if path.is_dir() { 0o500 } else { 0o400 });
        if is_root {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    if !somebody().arg("--version").output().await.is_ok_and(|output| output.status.success()) {
        println!("nobody but root can run the program here, and root may write everywhere: this was not tried");
        return;
    }
    let before = files(&data);
    for command in ["serve", "check", "operator-key"] {
        let output = match command {
            "serve" => match start(somebody(), &data).await {
                Started::Refused(output) => output,
                Started::Serving(..) => panic!("a gateway runs that cannot write"),
            },
            _ => somebody().args([command, "--data-dir"]).arg(&data).output().await.unwrap(),
        };
        let words = assert_in_words(&output, command);
        assert!(words.contains("ermission denied"), "{command}: {words}");
        assert_same(&before, &data, command);
    }
    // A directory that does not exist cannot be made there, either.
    let Started::Refused(output) = start(somebody(), &data.join("below")).await else { panic!("it was made") };
    assert!(assert_in_words(&output, "below").contains("ermission denied"));
    // Whoever cleans up has to be able to.
    mode(&data, 0o700);
}
