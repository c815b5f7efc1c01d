//! Attacks on the plugin runtime by hand: every one ends as documented, within its budget, and without a trace.
//!
//! `attack` says how they are made and judged, `guests` helps to write them, and one table per class lists them.
//! What they come to is documented for people in `docs/security.md`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod admission;
mod answers;
mod attack;
mod authority;
mod bed;
mod guests;
mod logic;
mod space;
mod time;
