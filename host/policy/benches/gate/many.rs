//! A thousand plugins of a thousand organisations: what they take of the machine, and that changing one is nothing to the others.

use std::time::{Duration, Instant};

use portcullis_policy::{CodeCache, Link, Runtime, RuntimeConfig};
use portcullis_testing::Guest;
use tokio::runtime::Runtime as Tokio;

use crate::bed::load;
use crate::cases::{Question, upload};
use crate::measure::{median, resident};

const ORGS: usize = 1000;

fn plugin(n: usize) -> Vec<u8> {
    Guest::allowing().named(&format!("org-{n}")).build()
}

/// Prints the report.
pub(crate) fn report(tokio: &Tokio) {
    let components: Vec<Vec<u8>> = (0..ORGS).map(plugin).collect();
    let config = RuntimeConfig { loaded_plugins: ORGS + 24, ..RuntimeConfig::default() };
    let runtime = Runtime::new(config).expect("a runtime");
    let (before, began) = (resident(), Instant::now());
    let links: Vec<Link> =
        components.iter().map(|bytes| tokio.block_on(upload(&runtime, bytes.clone(), &[]))).collect();
    let (took, grown) = (began.elapsed(), resident().saturating_sub(before));
    println!("\n{ORGS} plugins of {ORGS} organisations, {} bytes each", components[0].len());
    line("compiled, described and kept", took, grown);

    // In runtimes that know none of them, as after a restart: the first has no code, the second what the first has kept.
    let directory = tempfile::tempdir().expect("a directory");
    for what in ["loaded again, by compiling", "loaded again, from kept code"] {
        let cache = CodeCache { directory: directory.path().to_owned(), key: [7; 32], max_bytes: 1 << 30 };
        let config = RuntimeConfig { loaded_plugins: ORGS + 24, cache: Some(cache), ..RuntimeConfig::default() };
        let again = Runtime::new(config).expect("a runtime");
        let (before, began) = (resident(), Instant::now());
        for (link, bytes) in links.iter().zip(&components) {
            tokio.block_on(load(&again, link, bytes));
        }
        line(what, began.elapsed(), resident().saturating_sub(before));
        println!("    {:?}", again.code_stats());
    }
    change_one(tokio, &runtime, &links);
}

fn line(what: &str, took: Duration, grown: usize) {
    let orgs = u32::try_from(ORGS).unwrap_or(u32::MAX);
    println!("  {what:<34} {:>10.1?} each, {:>6} KiB of memory each", took / orgs, grown / ORGS / 1024);
}

/// Gives one organisation a new version while all are asked, again and again.
fn change_one(tokio: &Tokio, runtime: &Runtime, links: &[Link]) {
    let question = Question::default();
    let mut times = Vec::new();
    let mut asked = |changing: bool| {
        for link in links.iter().take(if changing { ORGS } else { ORGS / 2 }) {
            let began = Instant::now();
            tokio.block_on(question.ask(runtime, std::slice::from_ref(link)));
            times.push(began.elapsed());
        }
        median(std::mem::take(&mut times))
    };
    let quiet = asked(false);
    let changed = tokio.block_on(upload(runtime, Guest::allowing().named("org-7").with("(func)").build(), &[]));
    assert_ne!(changed.version.digest, links[7].version.digest, "it is another version");
    // Every one of the others, and the version before, is still at hand: none is compiled again.
    println!("  a call of one before and after another was changed: {quiet:.1?} and {:.1?}", asked(true));
}
