//! Why the server does not do what it is told.

use std::io;

use crate::phone::PhoneError;

/// Why the server does not do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address could not be listened on.
    #[error("listening failed")]
    Listen(#[source] io::Error),
    /// Only this machine is to reach the server.
    #[error("the address is not loopback")]
    NotLoopback,
    /// What was scanned is not the code of a device that waits.
    #[error("this is not the code of a device that waits")]
    Qr,
    /// The pairing code is not the one that the device shows.
    #[error("this is not the pairing code that the device shows")]
    Code,
    /// No device waits to be linked in that way.
    #[error("no device waits for this")]
    NobodyWaits,
    /// The number is not on WhatsApp.
    #[error("the number is not on WhatsApp")]
    NotOnWhatsApp,
    /// The number has no such linked device.
    #[error("the number has no such linked device")]
    NoDevice,
    /// The device is not connected.
    #[error("the device is not connected")]
    NotConnected,
    /// The number has no text of that id.
    #[error("the number has no text of this id")]
    NoText,
    /// The phone could not do its part.
    #[error("the phone could not encrypt")]
    Phone(#[from] PhoneError),
}
