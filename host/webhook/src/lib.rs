//! Signed webhook deliveries. Nothing is delivered yet.
//!
//! Events are written to the store's outbox in the commit of what they tell, so none is lost until this crate takes them from there.
//! The pump that reads the outbox, the endpoints, their signatures and their retries will live here; the way out will be `net`'s.
