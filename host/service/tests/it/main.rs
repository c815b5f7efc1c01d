//! The service at its own boundary: real store, real policy runtime, simulated engine, and a clock that the test steps.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bounds;
mod recovery;
mod story;
mod world;
