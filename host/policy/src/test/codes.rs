//! Compiled code that is kept, and plugins that are made ready from it: believed only with its seal, and never in anybody's way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use portcullis_core::{Decision, PluginClass};
use portcullis_testing::Guest;
use tempfile::TempDir;

use super::{answer, bind, config, org_id};
use crate::{CodeCache, CodeStats, LoadError, Runtime, RuntimeConfig};

const STANDARD: PluginClass = PluginClass::Standard;
const KEY: [u8; 32] = [5; 32];

fn keeping(directory: &Path, key: [u8; 32], max_bytes: u64) -> std::sync::Arc<Runtime> {
    let cache = Some(CodeCache { directory: directory.to_owned(), key, max_bytes });
    Runtime::new(RuntimeConfig { cache, ..config() }).unwrap()
}

fn stats(compiled: u64, found: u64, refused: u64) -> CodeStats {
    CodeStats { compiled, found, refused }
}

fn guest(name: &str) -> Guest {
    Guest::allowing().named(name)
}

/// The files in a directory, by name.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Admits the guest, and says where its code lies.
async fn keep(directory: &Path, key: [u8; 32], guest: &Guest) -> PathBuf {
    let before = files(directory);
    keeping(directory, key, 1 << 30).admit(org_id(), guest.build(), STANDARD).await.unwrap();
    files(directory).into_iter().find(|file| !before.contains(file)).unwrap()
}

#[tokio::test]
async fn what_was_compiled_once_is_not_compiled_again_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let home = directory.path().join("deep/down");
    let runtime = keeping(&home, KEY, 1 << 30);
    let link = bind(&runtime, &guest("kept")).await;
    assert_eq!(runtime.code_stats(), stats(1, 0, 0));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&home), mode(&files(&home)[0])), (0o700, 0o600));

    // Neither the compiler nor the bytes are needed; another upload of the same bytes needs no compiler either.
    let restarted = keeping(&home, KEY, 1 << 30);
    restarted.load(link.version.digest, STANDARD, || panic!("the bytes are not needed")).await.unwrap();
    assert_eq!(answer(&restarted, &link).await.result, Ok(Decision::Allow));
    assert_eq!(restarted.code_stats(), stats(0, 1, 0));
    let restarted = keeping(&home, KEY, 1 << 30);
    restarted.admit(org_id(), guest("kept").build(), STANDARD).await.unwrap();
    assert_eq!(restarted.code_stats(), stats(0, 1, 0));
}

#[tokio::test]
async fn a_file_that_does_not_fit_its_seal_is_compiled_anew() {
    let directory = TempDir::new().unwrap();
    let home = directory.path();
    let mine = guest("mine");
    let file = keep(home, KEY, &mine).await;
    let good = fs::read(&file).unwrap();
    let other = fs::read(keep(home, KEY, &guest("other")).await).unwrap();
    let elsewhere = TempDir::new().unwrap();
    let foreign = fs::read(keep(elsewhere.path(), [6; 32], &mine).await).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let with_more = [good.as_slice(), b"\0"].concat();
    let cases = [
        ("its seal's first bit", flipped(0)),
        ("its seal's last bit", flipped(31)),
        ("the code's first bit", flipped(32)),
        ("a bit in the middle", flipped(good.len() / 2)),
        ("the last bit", flipped(good.len() - 1)),
        ("the end", good[..good.len() - 1].to_vec()),
        ("all of the code", good[..32].to_vec()),
        ("half of the seal", good[..16].to_vec()),
        ("everything", Vec::new()),
        ("a byte too many", with_more),
        ("another component's", other),
        ("another key's", foreign),
    ];
    for (what, bytes) in cases {
        fs::write(&file, bytes).unwrap();
        let runtime = keeping(home, KEY, 1 << 30);
        let link = bind(&super::runtime(), &mine).await;
        let built = mine.build();
        runtime.load(link.version.digest, STANDARD, || Some(built)).await.unwrap();
        assert_eq!(runtime.code_stats(), stats(1, 0, 1), "{what}");
        assert_eq!(answer(&runtime, &link).await.result, Ok(Decision::Allow), "{what}");
        assert_eq!(fs::read(&file).unwrap(), good, "{what}: it is kept as it should be");
    }
}

#[tokio::test]
async fn what_was_used_longest_ago_makes_room() {
    let directory = TempDir::new().unwrap();
    let home = directory.path();
    let first = keep(home, KEY, &guest("first")).await;
    let second = keep(home, KEY, &guest("second")).await;
    for (file, seconds) in [(&first, 1), (&second, 2)] {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::options().write(true).open(file).unwrap().set_modified(made).unwrap();
    }
    let size = fs::metadata(&first).unwrap().len();
    let runtime = keeping(home, KEY, size * 5 / 2);
    // Used again, so that it is the second one's turn to go.
    let digest = bind(&super::runtime(), &guest("first")).await.version.digest;
    runtime.load(digest, STANDARD, || None).await.unwrap();
    runtime.admit(org_id(), guest("third").build(), STANDARD).await.unwrap();
    let left = files(home);
    assert_eq!(left.len(), 2);
    assert!(left.contains(&first) && !left.contains(&second));
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_the_cache_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let occupied = directory.path().join("occupied");
    fs::write(&occupied, "a file").unwrap();
    let vanishing = directory.path().join("vanishing");
    let vanished = keeping(&vanishing, KEY, 1 << 30);
    fs::remove_dir(&vanishing).unwrap();
    for runtime in [keeping(&occupied, KEY, 1 << 30), vanished, keeping(directory.path(), KEY, 100)] {
        let link = bind(&runtime, &Guest::allowing()).await;
        assert_eq!(answer(&runtime, &link).await.result, Ok(Decision::Allow));
        assert_eq!(runtime.code_stats(), stats(1, 0, 0));
    }
    assert_eq!(files(directory.path()), [occupied]);
}

#[tokio::test]
async fn what_a_crash_left_is_taken_out() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(".unfinished-x"), "half").unwrap();
    fs::write(directory.path().join("README"), "somebody's").unwrap();
    drop(keeping(directory.path(), KEY, 1 << 30));
    assert_eq!(files(directory.path()), [directory.path().join("README")]);
}

#[tokio::test]
async fn many_who_need_one_plugin_wait_for_one_compiler() {
    let digest = bind(&super::runtime(), &Guest::allowing()).await.version.digest;
    let runtime = super::runtime();
    let load = || runtime.load(digest, STANDARD, || Some(Guest::allowing().build()));
    let outcomes = tokio::join!(load(), load(), load(), load(), load(), load());
    assert!(outcomes.0.is_ok() && outcomes.1.is_ok() && outcomes.5.is_ok());
    assert_eq!(runtime.code_stats(), stats(1, 0, 0));
}

#[tokio::test]
async fn a_plugin_that_takes_long_is_in_nobodys_way() {
    let (slow, quick) = (guest("slow"), guest("quick"));
    let digests = super::runtime();
    let (slow_digest, quick_digest) =
        (bind(&digests, &slow).await.version.digest, bind(&digests, &quick).await.version.digest);
    let runtime = super::runtime();
    let (done, wait) = mpsc::channel();
    // The slow one's bytes arrive only after the quick one is ready; and one that fails is between them.
    let first = runtime.load(slow_digest, STANDARD, move || {
        wait.recv().ok()?;
        Some(slow.build())
    });
    let others = async {
        assert!(runtime.load([0; 32], STANDARD, || None).await.is_err());
        runtime.load(quick_digest, STANDARD, move || Some(quick.build())).await.unwrap();
        done.send(()).unwrap();
    };
    let (slow, ()) = tokio::join!(first, others);
    slow.unwrap();
}

#[tokio::test]
async fn a_component_that_cannot_be_made_ready_is_not_tried_at_once_again() {
    let digest = bind(&super::runtime(), &Guest::allowing()).await.version.digest;
    let small = Runtime::new(RuntimeConfig { memory_bytes: 1 << 16, ..config() }).unwrap();
    for _ in 0..3 {
        let error = small.load(digest, STANDARD, || Some(Guest::allowing().build())).await.unwrap_err();
        assert!(matches!(&*error, LoadError::Refused { source, .. } if source.code() == "too_many_resources"));
        assert_eq!(small.code_stats().compiled, 1);
    }
    // In the other class there is room for it.
    small.load(digest, PluginClass::Large, || Some(Guest::allowing().build())).await.unwrap();
}

#[tokio::test]
async fn a_load_that_its_caller_gave_up_goes_on() {
    let digest = bind(&super::runtime(), &Guest::allowing()).await.version.digest;
    let runtime = super::runtime();
    {
        let given_up = runtime.load(digest, STANDARD, || Some(Guest::allowing().build()));
        let mut given_up = std::pin::pin!(given_up);
        // Begun, and dropped before its end.
        let _ = futures_poll(given_up.as_mut()).await;
    }
    // Nobody else has the bytes.
    runtime.load(digest, STANDARD, || None).await.unwrap();
    assert_eq!(runtime.code_stats(), stats(1, 0, 0));
}

#[tokio::test]
async fn a_reader_that_panics_leaves_nobody_waiting() {
    let runtime = super::runtime();
    let outcome = runtime.load([0; 32], STANDARD, || panic!("the disk is on fire")).await;
    assert!(matches!(*outcome.unwrap_err(), LoadError::Missing { .. }));
    assert!(runtime.load([0; 32], STANDARD, || None).await.is_err());
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(mut future: F) -> bool {
    std::future::poll_fn(move |context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut future).poll(context).is_ready())
    })
    .await
}
