//! A WhatsApp server with phones, for tests on this machine: simulated, and named so.
//!
//! Clients connect to it as to WhatsApp and cannot tell it from afar: a WebSocket, Noise, binary nodes, devices that are
//! linked by a scan or a code, Signal sessions with real keys. It has no certificate that WhatsApp has signed, so only
//! clients that were built to look at none believe it, and it listens on loopback only. Everything is kept in memory.
//!
//! Start with [`Server`]; [`ServerConfig`] is what it is started with, [`Controls`] what can be done with it, [`State`]
//! what it has seen and [`Faults`] what can go wrong. In a test nothing needs to sleep: [`Controls::wait_until`].
//!
//! # The control port
//!
//! The same by HTTP, with JSON bodies. A success is 200; a fault is 4xx with `{"error": "..."}`. Phone numbers are digits
//! or numbers; a number that ends in four zeros is not on WhatsApp.
//!
//! | request | body | answer, and what it does |
//! |---|---|---|
//! | `POST /phones` | `{"number"}` | the number has a phone |
//! | `POST /phones/{number}/scan` | `{"qr"}` | `{"device"}`; its phone scans what a device shows |
//! | `POST /phones/{number}/code` | `{"code"}` | `{"device"}`, or 422 if it is not what the device shows |
//! | `POST /phones/{number}/unlink` | `{"device"?}` | `{"devices"}`; its phone unlinks one device, or all |
//! | `POST /phones/{number}/spend` | | whoever shows a code for this number is told to show another one |
//! | `POST /phones/{number}/send` | `{"from", "text", "device"?}` | `{"id"}`; the phone `from` texts this number |
//! | `POST /phones/{number}/call` | `{"from"}` | `{"id"}`; the phone `from` calls this number |
//! | `POST /phones/{number}/read` | `{"id"}` | its phone opens the text of that id |
//! | `POST /phones/{number}/refuse` | [`Failure`] | logins of the account are refused so |
//! | `DELETE /phones/{number}/refuse` | | and are not any more |
//! | `POST /groups` | `{"members"}` | `{"group"}`; the phones of these numbers have a group |
//! | `POST /devices/{number}/{device}/{action}` | see [`Action`] | `drop`, `close`, `replace`, `error` with `{"code"}`, `garbage`, `silence`, `ban` with `{"code"?, "expire"?}`, `outdated` |
//! | `POST /certificate` | `{"certificate"}` | the server has a new key, with a `good` or a `bad` chain; clients that know the old one fall back |
//! | `POST /faults` | [`Faults`] | these go wrong from now on, and no others |
//! | `DELETE /faults` | | nothing does |
//! | `GET /state` | | [`State`] |
//! | `GET /state?since={version}` | | [`State`] as soon as it is newer, or as it is after ten seconds |

mod calls;
mod code;
mod config;
mod connection;
mod control;
mod error;
mod faults;
mod groups;
mod handshake;
mod iq;
mod keys;
mod login;
mod messages;
mod node;
mod pairing;
mod phone;
mod receipts;
mod registry;
mod seen;
mod server;
mod state;
mod usync;

pub use config::{Addressing, ServerConfig, UnknownNumbers};
pub use error::ServerError;
pub use faults::{Failure, Faults, HalfOpen};
pub use handshake::{Certificate, Mode};
pub use phone::PhoneError;
pub use seen::{Call, Delivery, Text, Totals, Unlink, UnlinkedBy};
pub use server::{Action, Controls, Server};
pub use state::{AccountState, DeviceState, LoginsState, State};
