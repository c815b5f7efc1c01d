//! The driver that speaks to WhatsApp.

pub mod keep;
pub mod wire;
