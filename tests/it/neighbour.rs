//! The hostile neighbour, and what it costs the others.
//!
//! How long they wait depends on the machine, so the test only asserts that all of them are served, and prints the times;
//! the benchmark `neighbour` measures the same for longer, in a build that is optimised.

use crate::neighbour_street::Street;

#[tokio::test(flavor = "multi_thread")]
async fn others_are_served_while_a_plugin_burns_all_that_it_may() {
    let street = Street::start().await;
    let mut quiet = street.honest(20).await;
    let (mut attacked, answered) = street.under_attack(20).await;
    println!("{}\n{}", quiet.line("without the attack"), attacked.line("under attack"));
    println!("the attacker had {answered} answers");
}
