//! The service at its own boundary: real store, real policy runtime, simulated engine, and a clock that the test steps.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bounds;
mod follow;
#[path = "../../../policy/src/test/guest.rs"]
#[expect(dead_code, reason = "the guests of the policy crate's tests do more than these tests need")]
mod guest;
mod races;
mod recovery;
mod story;
mod world;
