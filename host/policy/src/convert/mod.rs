//! Between the core's words and the contract's.
//!
//! What goes in is made from trusted values and cannot fail. What comes out is a guest's word: every text is bounded and checked, and what breaks a bound is [`BadOutput`].
//!
//! [`BadOutput`]: portcullis_core::PluginFailure::BadOutput

pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod context;
mod other;
