//! The driver that speaks to WhatsApp.
