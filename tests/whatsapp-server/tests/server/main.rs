//! The server, driven by real clients: whatever they take for WhatsApp here is what the gateway's driver meets.

mod client;
mod connections;
mod control;
mod pairing;
mod texts;
