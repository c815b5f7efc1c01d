//! The short versions of the runs of WhatsApp sessions: a gateway that is killed, and one that lives for long. The long ones are a
//! program of their own.

use std::path::Path;

use portcullis_tests::sessions::{Life, Options, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis-it");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_loses_no_link_and_no_text_and_sends_none_twice() {
    let options = Options { life: Life::Kills(3), sessions: 3, seed: 5 };
    let report = run(&options, Path::new(PROGRAM)).await.unwrap();
    println!("{report}");
    assert!(report.is_good());
    assert!(report.kills() >= 3 && report.pairings() >= 3, "the run did next to nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_reconnect_over_and_over_go_on_and_leave_nothing_behind() {
    let options = Options { life: Life::Soak(4), sessions: 2, seed: 5 };
    let report = run(&options, Path::new(PROGRAM)).await.unwrap();
    println!("{report}");
    assert!(report.is_good());
    assert!(report.pairings() >= 2, "the run did next to nothing");
}
