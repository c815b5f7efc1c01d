//! The short version of the crash run. The long one is a program of its own.

use std::path::Path;

use portcullis_tests::crash::{Options, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_done_twice_by_a_gateway_that_is_killed() {
    let options = Options { kills: 10, seed: 11 };
    let report = run(&options, Path::new(env!("CARGO_BIN_EXE_portcullis-it"))).await.unwrap();
    println!("{report}");
    assert!(report.is_good());
    assert!(report.kills() >= 10 && report.acknowledged() >= 100, "the run did next to nothing");
}
