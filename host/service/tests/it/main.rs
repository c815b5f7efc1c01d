//! The service at its own boundary: real store, real policy runtime, simulated engine, and a clock that the test steps.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod amending;
mod bounds;
mod clock;
mod confirming;
mod contract;
mod credentials;
mod delivering;
mod due;
mod follow;
mod grants;
mod guests;
mod idempotency;
mod news;
mod observing;
mod overdrafts;
mod plans;
mod queued;
mod races;
mod rates;
mod receiver;
mod recovery;
mod redelivering;
mod requests;
mod storms;
mod story;
mod trying;
mod unhooking;
mod upkeep;
mod versions;
mod waiting;
mod webhooks;
mod world;
