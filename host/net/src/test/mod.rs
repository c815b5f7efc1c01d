//! Tests of the way out against real servers on ports of their own: one that a test tells what to answer.

mod jwks;
mod outbound;
mod refresh;
mod server;
mod signer;
