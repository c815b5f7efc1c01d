//! The short version of the run of deliveries: receivers that fail, and a gateway that is killed. The long one is a program of its own.

use std::path::Path;

use portcullis_tests::deliveries::{Options, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_by_receivers_that_fail_and_a_gateway_that_is_killed() {
    let options = Options { events: 600, sessions: 12, kills: 4, seed: 7 };
    let report = run(&options, Path::new(env!("CARGO_BIN_EXE_portcullis-it"))).await.unwrap();
    println!("{report}");
    assert!(report.is_good());
}
