//! What a server is started with.

use std::net::SocketAddr;
use std::time::Duration;

use crate::handshake::Certificate;

/// How a server behaves from its start on. Whatever is to change in between is a fault.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where clients connect. Only loopback is listened on.
    pub listen: SocketAddr,
    /// What the server shows of itself in the handshake.
    pub certificate: Certificate,
    /// How long after a pairing the connection is ended with 515.
    pub restart_delay: Duration,
    /// How long after an unlink that a device asked for its connection is ended with 401.
    pub unlink_delay: Duration,
    /// How many references a device that waits for a scan is given. Each is one QR code.
    pub references: usize,
    /// Whether numbers that the server has not heard of are on WhatsApp.
    pub unknown_numbers: UnknownNumbers,
    /// Which kind of address messages come from.
    pub addressing: Addressing,
}

/// What the server says of numbers that it has not heard of. Numbers that end in four zeros are never on WhatsApp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownNumbers {
    /// They have a phone as soon as somebody asks.
    #[default]
    Exist,
    /// They are not on WhatsApp.
    Absent,
}

/// Which address of its sender a message carries; the other one is told beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// The phone number.
    #[default]
    Number,
    /// The LID, by which numbers are hidden.
    Lid,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificate: Certificate::Good,
            restart_delay: Duration::from_millis(50),
            unlink_delay: Duration::from_millis(20),
            references: 6,
            unknown_numbers: UnknownNumbers::Exist,
            addressing: Addressing::Number,
        }
    }
}
