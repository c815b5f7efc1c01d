//! The way out against real servers on this machine.

mod exchange;
mod inside;
mod jwks;
mod names;
mod outbound;
mod proxies;
mod refresh;
mod server;
mod signer;
mod stream;
mod tunnel;
