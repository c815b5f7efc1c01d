//! Data in which bits have changed or that is cut off: what cannot be used is refused in words and left as it is, and what can be used is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::client::Client;
use crate::gateway::{Gateway, program};
use crate::workload::Random;

/// How many places are damaged of each file in each way.
const PLACES: u64 = 6;

/// A way in which a disk fails.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// The file ends here.
    Cut,
    /// One bit is another.
    Flip,
    /// A sector is zeros.
    Zeros,
    /// A sector is noise.
    Noise,
}

/// The bytes of every file of a directory.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Everything in a directory but what can be deleted at any time.
pub(crate) fn files(directory: &Path) -> Files {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// Asserts that a directory has the files that it had.
#[track_caller]
pub(crate) fn assert_same(before: &Files, directory: &Path, of: &str) {
    let after = files(directory);
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(&after), "{of}");
    for (path, bytes) in after {
        assert!(before[&path] == bytes, "{of}: {} was changed", path.display());
    }
}

/// A copy of a data directory.
pub(crate) fn copy(of: &Path) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for path in files(of).into_keys() {
        std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

/// What became of a start.
pub(crate) enum Started {
    /// It serves, until this is dropped; and where.
    Serving(tokio::process::Child, std::net::SocketAddr),
    /// It ended with this.
    Refused(Output),
}

/// Starts a gateway on a directory, by a command that is given the arguments.
pub(crate) async fn start(mut command: tokio::process::Command, data: &Path) -> Started {
    command.args(["serve", "--listen", "127.0.0.1:0", "--engine", "simulated", "--data-dir"]).arg(data);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).await.unwrap();
    process.stdout = Some(stdout.into_inner());
    match line.trim_end().strip_prefix("listening on http://") {
        Some(address) => Started::Serving(process, address.parse().unwrap()),
        None => Started::Refused(process.wait_with_output().await.unwrap()),
    }
}

/// Asserts that a command said in words what is wrong, and ended as commands do.
#[track_caller]
pub(crate) fn assert_in_words(output: &Output, of: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{of}: {said}");
    assert!(said.lines().any(|line| line.starts_with("error: ")), "{of}: {said}");
    assert_calm(&said, of);
    said
}

/// Asserts that nobody is shown a panic.
#[track_caller]
fn assert_calm(said: &str, of: &str) {
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{of}: {said}");
}

/// A directory with something in it, and what its gateway shows of that.
struct Sample {
    directory: TempDir,
    shown: Vec<Value>,
    operator_key: String,
}

impl Sample {
    /// The data of a gateway that was asked to end, and of one that was killed. What the second did last is not in the first.
    async fn both() -> [Self; 2] {
        let mut gateway = Gateway::start().await;
        let org = gateway.org("Acme").await;
        let plugin = org.catalogue("grace-delete").await;
        org.bind(&plugin, json!({ "grace": "PT72H" })).await;
        for number in 0..12 {
            let id = org.session().await;
            let labels = json!({ "number": number.to_string() });
            org.client.put(&format!("/api/v1/sessions/{id}/labels"), &labels).await.expect(200);
        }
        let path = org.client.get("/api/v1/sessions").await.expect(200)["data"][0]["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/sessions/{path}");
        org.client.delete(&path).await.expect(202);
        let clean_shown = shown(&gateway.operator()).await.unwrap();
        assert!(gateway.terminate().await.success());
        let clean = copy(&gateway.data());
        gateway.restart().await;
        let org = org.at(&gateway);
        org.client.act(&format!("{path}:restore")).await.expect(200);
        let killed_shown = shown(&gateway.operator()).await.unwrap();
        gateway.kill().await;
        let killed = copy(&gateway.data());
        let operator_key = gateway.operator_key.clone();
        [
            Self { directory: clean, shown: vec![clean_shown.clone()], operator_key: operator_key.clone() },
            // After a crash, damage in the last transaction looks like one that was not finished.
            Self { directory: killed, shown: vec![clean_shown, killed_shown], operator_key },
        ]
    }
}

/// What is shown of the only organisation; none if that cannot be read.
async fn shown(operator: &Client) -> Option<Value> {
    let orgs = operator.get("/api/v1/orgs").await;
    if orgs.status != 200 {
        assert!([401, 500, 503].contains(&orgs.status), "{orgs:?}");
        return None;
    }
    let id = orgs.json()["data"][0]["id"].as_str()?.to_owned();
    let sessions = operator.get(&format!("/api/v1/sessions?org={id}")).await;
    let audit = operator.get(&format!("/api/v1/audit?org={id}&limit=200")).await;
    (sessions.status == 200 && audit.status == 200).then(|| json!([sessions.json()["data"], audit.json()["data"]]))
}

impl Damage {
    const ALL: [Self; 4] = [Self::Cut, Self::Flip, Self::Zeros, Self::Noise];

    fn inflict(self, path: &Path, at: usize, random: &mut Random) {
        let mut bytes = std::fs::read(path).unwrap();
        let sector = at / 512 * 512..(at / 512 * 512 + 512).min(bytes.len());
        match self {
            Self::Cut => bytes.truncate(at),
            Self::Flip => bytes[at] ^= 1 << random.below(8),
            Self::Zeros => bytes[sector].fill(0),
            Self::Noise => bytes[sector].fill_with(|| u8::try_from(random.below(256)).unwrap()),
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// What is not zeros in a file: damage elsewhere is none.
fn places(path: &Path) -> Vec<usize> {
    let bytes = std::fs::read(path).unwrap();
    let sectors = bytes.chunks(512).enumerate().filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
    sectors.map(|(number, _)| number * 512).collect()
}

/// Damages a copy, verifies one, and starts a gateway on another.
async fn check(sample: &Sample, name: &str, damage: Damage, at: usize, seed: u64) -> &'static str {
    let of = format!("{damage:?} of {name} at {at}, seed {seed:#x}");
    let damaged = || {
        let directory = copy(sample.directory.path());
        damage.inflict(&directory.path().join(name), at, &mut Random::new(seed));
        directory
    };

    let verified = damaged();
    let checked = program().args(["check", "--data-dir"]).arg(verified.path()).output().await.unwrap();
    let is_sound = checked.status.success();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    if is_sound {
        assert!(said.contains(", 0 findings"), "{of}: {said}");
    } else {
        assert_in_words(&checked, &of);
    }

    let started = damaged();
    let before = files(started.path());
    match start(program(), started.path()).await {
        Started::Refused(output) => {
            assert_in_words(&output, &of);
            assert!(!is_sound, "{of}: what is sound was refused: {}", String::from_utf8_lossy(&output.stderr));
            let after = files(started.path());
            let changed: Vec<_> = after.keys().filter(|path| before.get(*path) != after.get(*path)).collect();
            if !changed.is_empty() {
                // It came as far as to read rows. redb has noted then that the file was open, and repaired what a crash had left; no row is another.
                assert!(changed.iter().all(|path| path.ends_with("portcullis.redb")), "{of}: {changed:?} were changed");
                let again = program().args(["check", "--data-dir"]).arg(started.path()).output().await.unwrap();
                assert_eq!(String::from_utf8_lossy(&again.stdout), said, "{of}: a refused start changed rows");
            }
            "refused"
        }
        Started::Serving(mut process, address) => {
            let seen = shown(&Client::new(address, Some(&sample.operator_key))).await;
            process.start_kill().unwrap();
            let mut said = String::new();
            process.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
            assert_calm(&said, &of);
            if is_sound {
                let seen = seen.unwrap_or_else(|| panic!("{of}: what is sound cannot be read: {said}"));
                assert!(sample.shown.contains(&seen), "{of}: something is lost, and nothing is said: {seen}");
                return "whole";
            }
            "serving, with findings"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_told_in_words_and_nothing_is_lost_in_silence() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0xDA);
    let mut random = Random::new(seed);
    let mut came = BTreeMap::new();
    for sample in Sample::both().await {
        for name in ["portcullis.redb", "keys"] {
            let places = places(&sample.directory.path().join(name));
            for damage in Damage::ALL {
                for _ in 0..PLACES {
                    let sector = places[usize::try_from(random.below(places.len() as u64)).unwrap()];
                    let at = sector + usize::try_from(random.below(512)).unwrap();
                    let at = at.min(std::fs::metadata(sample.directory.path().join(name)).unwrap().len() as usize - 1);
                    let became = check(&sample, name, damage, at, random.below(u64::MAX)).await;
                    *came.entry((name, became)).or_insert(0) += 1;
                }
            }
        }
    }
    println!("seed {seed:#x}: {came:?}");
    assert!(came.keys().any(|(_, became)| *became == "refused"), "no damage was ever found");
}

/// The header is where everything begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_beginning_is_told_in_words() {
    let samples = Sample::both().await;
    for (number, sample) in samples.iter().enumerate() {
        for name in ["portcullis.redb", "keys"] {
            for at in [0, 1, 9, 12, 20, 64, 70, 100, 128, 190, 192, 250, 320] {
                check(sample, name, Damage::Flip, at, number as u64).await;
            }
            for at in [0, 1, 100, 511, 512, 4095, 4096] {
                let length = std::fs::metadata(sample.directory.path().join(name)).unwrap().len() as usize;
                check(sample, name, Damage::Cut, at.min(length - 1), number as u64).await;
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_is_missing_is_missed() {
    let [sample, _] = Sample::both().await;
    for (name, said) in
        [("master-key", "no master key"), ("keys", "no key file"), ("portcullis.redb", "there is no data")]
    {
        let directory = copy(sample.directory.path());
        std::fs::remove_file(directory.path().join(name)).unwrap();
        let before = files(directory.path());
        let Started::Refused(output) = start(program(), directory.path()).await else { panic!("{name} is not missed") };
        let words = assert_in_words(&output, name);
        assert!(words.contains(said), "{name}: {words}");
        assert_same(&before, directory.path(), name);
    }
}

#[tokio::test]
async fn a_master_key_that_does_not_fit_is_refused_and_nothing_is_touched() {
    use std::os::unix::fs::PermissionsExt;
    let [_, sample] = Sample::both().await;
    let other = "ab".repeat(32);
    for (text, mode, said) in [
        (Some(other.as_str()), 0o600, "not the one under which"),
        (Some("abcd"), 0o600, "64 hexadecimal"),
        (Some(""), 0o600, "64 hexadecimal"),
        (None, 0o640, "0640"),
        (None, 0o604, "0604"),
    ] {
        let directory = copy(sample.directory.path());
        let key = directory.path().join("master-key");
        if let Some(text) = text {
            std::fs::write(&key, text).unwrap();
        }
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let before = files(directory.path());
        for command in ["serve", "check", "operator-key"] {
            let output = match command {
                "serve" => match start(program(), directory.path()).await {
                    Started::Refused(output) => output,
                    Started::Serving(..) => panic!("a gateway runs under {text:?} with {mode:o}"),
                },
                _ => program().args([command, "--data-dir"]).arg(directory.path()).output().await.unwrap(),
            };
            let words = assert_in_words(&output, said);
            assert!(words.contains(said), "{command}: {words}");
            assert_same(&before, directory.path(), command);
        }
    }
}

/// Two who start at once on an empty directory, and one who starts beside another.
#[tokio::test]
async fn a_second_gateway_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (one, other) = tokio::join!(start(program(), &data), start(program(), &data));
    let mut serving = Vec::new();
    for started in [one, other] {
        match started {
            Started::Serving(process, address) => serving.push((process, address)),
            Started::Refused(output) => drop(assert_in_words(&output, "the second gateway")),
        }
    }
    let [(process, address)] = &mut serving[..] else { panic!("{} gateways have one directory", serving.len()) };
    let key = std::fs::read_to_string(data.join("operator-key")).unwrap();
    let operator = Client::new(*address, Some(key.trim()));
    operator.post("/api/v1/orgs", &json!({ "name": "Acme" })).await.expect(201);

    let Started::Refused(output) = start(program(), &data).await else { panic!("a third gateway runs") };
    let words = assert_in_words(&output, "a third");
    assert!(words.contains("in use by another process"), "{words}");
    operator.get("/api/v1/orgs").await.expect(200);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(process.id().unwrap()).unwrap()).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    assert!(process.wait().await.unwrap().success());
    let checked = program().args(["check", "--data-dir"]).arg(&data).output().await.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
