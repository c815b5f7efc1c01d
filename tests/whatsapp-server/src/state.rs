//! Everything that can be asked of a server, as one document.

use serde::{Deserialize, Serialize};

use crate::faults::{Failure, Faults};
use crate::handshake::Mode;
use crate::registry::{Device, Registry, Role};
use crate::seen::{Call, Text, Totals, Unlink};

/// What the server knows at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Grows with each change, so one can wait for the next.
    pub version: u64,
    /// How many connections there are, after their handshake.
    pub connections: usize,
    /// How many of them wait to be paired.
    pub waiting: usize,
    /// The accounts that the server has heard of, by number.
    pub accounts: Vec<AccountState>,
    /// Texts, in the order in which they first came.
    pub texts: Vec<Text>,
    /// Links that ended, or should have.
    pub unlinks: Vec<Unlink>,
    /// Calls for accounts with linked devices.
    pub calls: Vec<Call>,
    /// How often some things happened.
    pub totals: Totals,
    /// What goes wrong at present.
    pub faults: Faults,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountState {
    /// Its phone number.
    pub number: u64,
    /// Its other name, by which numbers are hidden.
    pub lid: u64,
    /// How logins of its devices are refused at present.
    pub refused: Option<Failure>,
    /// Every device that was ever linked, or is about to be.
    pub devices: Vec<DeviceState>,
}

/// A linked device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Its number within the account.
    pub device: u16,
    /// Its address by phone number.
    pub jid: String,
    /// Whether it is linked.
    pub linked: bool,
    /// How it is connected, if it is.
    pub connected: Option<Mode>,
    /// Whether it takes its mail.
    pub active: bool,
    /// Whether it has said that its user is there.
    pub available: bool,
    /// How much it has not yet acknowledged.
    pub mail: usize,
    /// How many of its one-time keys are left.
    pub prekeys: usize,
    /// How often it has uploaded keys.
    pub uploads: u32,
    /// How often it has pinged.
    pub pings: u64,
    /// How often it has logged in.
    pub logins: LoginsState,
}

/// How often a device has logged in, by how the handshake went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginsState {
    /// As a stranger to the server's key.
    pub xx: u32,
    /// With the server's key.
    pub ik: u32,
    /// With a wrong key.
    pub fallback: u32,
}

impl State {
    /// A device of a number.
    pub fn device(&self, number: u64, device: u16) -> Option<&DeviceState> {
        self.account(number)?.devices.iter().find(|each| each.device == device)
    }

    /// An account by its number.
    pub fn account(&self, number: u64) -> Option<&AccountState> {
        self.accounts.iter().find(|account| account.number == number)
    }

    /// The first text of an id. Senders choose their ids themselves.
    pub fn text(&self, id: &str) -> Option<&Text> {
        self.texts.iter().find(|text| text.id == id)
    }
}

impl Registry {
    pub(crate) fn state(&self, version: u64) -> State {
        let accounts = self.accounts.iter().map(|(number, account)| AccountState {
            number: *number,
            lid: account.lid,
            refused: account.refused,
            devices: account.devices.iter().map(|(id, device)| self.device_state(*number, *id, device)).collect(),
        });
        let waits = |role: &Role| matches!(role, Role::Waiting(_));
        State {
            version,
            connections: self.connections.len(),
            waiting: self.connections.values().filter(|connection| waits(&connection.role)).count(),
            accounts: accounts.collect(),
            texts: self.seen.texts.clone(),
            unlinks: self.seen.unlinks.clone(),
            calls: self.seen.calls.clone(),
            totals: self.seen.totals.clone(),
            faults: self.faults.clone(),
        }
    }

    fn device_state(&self, number: u64, id: u16, device: &Device) -> DeviceState {
        let connection = device.connection.and_then(|connection| self.connections.get(&connection));
        DeviceState {
            device: id,
            jid: format!("{number}:{id}@s.whatsapp.net"),
            linked: device.linked,
            connected: connection.map(|connection| connection.mode),
            active: device.active,
            available: device.available,
            mail: device.mail.len(),
            prekeys: device.once.len(),
            uploads: device.uploads,
            pings: device.pings,
            logins: LoginsState { xx: device.logins.xx, ik: device.logins.ik, fallback: device.logins.fallback },
        }
    }
}
