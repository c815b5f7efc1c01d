//! The driver that speaks to WhatsApp, against a WhatsApp server on this machine: real clients, real sockets, the real clock, a
//! real store, and nothing of the gateway above the engine.
//!
//! `stage` is all of that in one hand. A test tells the engine what to do and waits for what it reports.

mod calls;
mod connecting;
mod pairing;
pub(crate) mod stage;
mod texts;
mod unlinking;
