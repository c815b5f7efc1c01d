//! Live events: streams that tell what happens as it happens, as server-sent events and through the realtime socket.
//!
//! ```text
//! StreamRequest ─ open ─▶ Tail ─ next ─▶ Told ─┬─ sse     frames of an answer that does not end
//!                                              └─ realtime  messages of a WebSocket
//! ```
//!
//! A stream is a cursor over its organisation's outbox and holds one batch at most. The outbox is looked at only when the client
//! has taken what it was told, so that one who reads slowly costs no memory; one who takes nothing is cut off by the server, and
//! loses nothing, because it goes on from the last [`Mark`] that it has seen.
//! Whoever is let in is looked at again whenever the doors change, and the stream ends at once when they no longer may.

mod mark;
mod sources;
pub(crate) mod sse;
mod tail;
mod taken;
mod wanted;

use std::time::Duration;

pub(crate) use mark::Since;
pub(crate) use tail::{Ending, Opened, Replay, Tail, Told, open};
pub(crate) use taken::while_taken;

/// How often a client is told that the stream lives.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(20);
/// How many stored events the realtime socket replays at most, and among how many an event is looked for by its id.
/// Source: the router's documentation of its realtime API.
pub(crate) const REPLAYED: usize = 1_000;
