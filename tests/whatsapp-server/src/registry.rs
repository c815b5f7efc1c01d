//! What the server knows: accounts with their phones and linked devices, who is connected, what is still to be
//! delivered, and what was seen.
//!
//! Everything lies behind one lock and nothing in here waits. A handler changes the registry and posts stanzas to
//! outboxes; connections send them. Mail for a device stays until the device says that it has it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node, Server as Space};
use whatsapp_rust::waproto::whatsapp as wa;

use crate::config::{ServerConfig, UnknownNumbers};
use crate::connection::{Out, Outbox};
use crate::faults::{Failure, Faults};
use crate::handshake::Mode;
use crate::keys::{Key, KeyBundle, OneTimeKeys};
use crate::node;
use crate::pairing::Waiting;
use crate::phone::Phone;
use crate::seen::Seen;

/// Below this many one-time keys a device is asked for more.
const FEW_KEYS: usize = 10;

/// A device of an account. The phone is number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeviceId {
    pub(crate) number: u64,
    pub(crate) device: u16,
}

pub(crate) struct Registry {
    pub(crate) config: ServerConfig,
    pub(crate) faults: Faults,
    pub(crate) accounts: BTreeMap<u64, Account>,
    /// The members of each group.
    pub(crate) groups: BTreeMap<u64, BTreeSet<u64>>,
    pub(crate) connections: HashMap<u64, Connection>,
    pub(crate) seen: Seen,
    lids: HashMap<u64, u64>,
    delay: Arc<AtomicU64>,
    ids: u64,
}

pub(crate) struct Account {
    pub(crate) lid: u64,
    pub(crate) phone: Phone,
    pub(crate) devices: BTreeMap<u16, Device>,
    /// Names this account's lists of devices, and stands in the identity of each.
    pub(crate) raw_id: u32,
    /// How logins of its devices are refused.
    pub(crate) refused: Option<Failure>,
    /// Who has asked for its devices, and is told when they change.
    pub(crate) followers: BTreeSet<u64>,
}

pub(crate) struct Device {
    pub(crate) noise: Key,
    pub(crate) keys: KeyBundle,
    pub(crate) once: OneTimeKeys,
    /// Its identity, signed by the phone and by itself.
    pub(crate) identity: Option<Vec<u8>>,
    pub(crate) linked: bool,
    pub(crate) key_shared: bool,
    pub(crate) connection: Option<u64>,
    /// Whether it has said on this connection that it takes its mail.
    pub(crate) active: bool,
    pub(crate) available: bool,
    pub(crate) mail: VecDeque<Mail>,
    pub(crate) logins: Logins,
    pub(crate) uploads: u32,
    pub(crate) pings: u64,
}

/// How often a device has logged in, by how the handshake went.
#[derive(Clone, Copy, Default)]
pub(crate) struct Logins {
    pub(crate) xx: u32,
    pub(crate) ik: u32,
    pub(crate) fallback: u32,
}

/// Something that a device has not yet said to have.
pub(crate) struct Mail {
    pub(crate) id: String,
    pub(crate) from: DeviceId,
    pub(crate) node: Node,
    /// What it says, if a phone has sent it and may have to encrypt it again.
    pub(crate) plain: Option<Box<wa::Message>>,
}

pub(crate) struct Connection {
    pub(crate) outbox: Outbox,
    pub(crate) mode: Mode,
    pub(crate) role: Role,
    pub(crate) nodes: u32,
}

pub(crate) enum Role {
    /// Nobody yet: it waits to be paired.
    Waiting(Box<Waiting>),
    Device(DeviceId),
    /// It has been told no, and ends.
    Refused,
}

/// Whether a number can be on WhatsApp at all.
pub(crate) fn is_number(number: u64) -> bool {
    number >= 1_000_000 && !number.is_multiple_of(10_000)
}

impl DeviceId {
    pub(crate) fn phone(number: u64) -> Self {
        Self { number, device: 0 }
    }

    /// Its address by number, under which phones keep their sessions with it.
    pub(crate) fn jid(self) -> Jid {
        Jid::pn_device(self.number.to_string(), self.device)
    }
}

impl Registry {
    pub(crate) fn new(config: ServerConfig) -> Self {
        Self {
            config,
            faults: Faults::default(),
            accounts: BTreeMap::new(),
            groups: BTreeMap::new(),
            connections: HashMap::new(),
            seen: Seen::default(),
            lids: HashMap::new(),
            delay: Arc::default(),
            ids: 0,
        }
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.delay.store(faults.delay_ms, Ordering::Relaxed);
        self.faults = faults;
    }

    /// What every outbox takes its delay from.
    pub(crate) fn delay(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.delay)
    }

    /// A number that this server has not given to anything else.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The account of a number, which it has from now on.
    pub(crate) fn open(&mut self, number: u64) -> &mut Account {
        let lid = 100_000_000_000_000 + self.accounts.len() as u64 + 1;
        self.accounts.entry(number).or_insert_with(|| {
            self.lids.insert(lid, number);
            Account {
                lid,
                phone: Phone::new(),
                devices: BTreeMap::new(),
                raw_id: rand::random::<u32>() & 0x7fff_ffff,
                refused: None,
                followers: BTreeSet::new(),
            }
        })
    }

    /// The account of a number that is on WhatsApp.
    pub(crate) fn account(&mut self, number: u64) -> Option<&mut Account> {
        if !is_number(number) {
            return None;
        }
        if self.config.unknown_numbers == UnknownNumbers::Absent {
            return self.accounts.get_mut(&number);
        }
        Some(self.open(number))
    }

    pub(crate) fn device(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.accounts.get_mut(&id.number)?.devices.get_mut(&id.device)
    }

    /// Whom an address means. The server knows both kinds.
    pub(crate) fn whose(&self, jid: &Jid) -> Option<DeviceId> {
        let user = jid.user.parse().ok()?;
        let number = match jid.server {
            Space::Pn => user,
            Space::Lid => *self.lids.get(&user)?,
            _ => return None,
        };
        Some(DeviceId { number, device: jid.device })
    }

    /// The address of a device in the same space as another address.
    pub(crate) fn address(&self, id: DeviceId, like: Space) -> Jid {
        match (like, self.accounts.get(&id.number)) {
            (Space::Lid, Some(account)) => Jid::lid_device(account.lid.to_string(), id.device),
            _ => id.jid(),
        }
    }

    /// The linked devices of a number.
    pub(crate) fn linked(&self, number: u64) -> Vec<DeviceId> {
        let Some(account) = self.accounts.get(&number) else { return Vec::new() };
        let linked = account.devices.iter().filter(|(_, device)| device.linked);
        linked.map(|(device, _)| DeviceId { number, device: *device }).collect()
    }

    /// Keys to begin a session with, for which a one-time key goes, as long as there is one.
    pub(crate) fn take_keys(&mut self, of: DeviceId) -> Option<(KeyBundle, Option<(u32, Key)>)> {
        let device = self.device(of).filter(|device| device.linked)?;
        let taken = (device.keys.clone(), device.once.pop_first());
        let left = device.once.len();
        if left < FEW_KEYS && device.key_shared {
            let count = NodeBuilder::new("count").attr("value", left.to_string()).build();
            self.notify(of, "encrypt", Jid::new("", Space::Pn), vec![count]);
        }
        Some(taken)
    }

    /// Puts something into a device's mail, and sends it at once if the device takes mail.
    pub(crate) fn mail(&mut self, to: DeviceId, mail: Mail) {
        let Some(device) = self.device(to).filter(|device| device.linked) else { return };
        let now = device.active.then(|| (mail.from, mail.id.clone(), mail.node.clone()));
        device.mail.push_back(mail);
        if let Some((from, id, node)) = now {
            self.count_sent(to, from, &id, &node);
            self.post(to, node);
        }
    }

    /// A text goes out to one of its recipient's devices.
    pub(crate) fn count_sent(&mut self, to: DeviceId, from: DeviceId, id: &str, node: &Node) {
        if node.tag == "message"
            && let Some(text) = self.seen.find(from, id).filter(|text| text.to == to.number)
        {
            text.copy(to.device).sent += 1;
        }
    }

    /// Tells a device something that is no message.
    pub(crate) fn notify(&mut self, to: DeviceId, kind: &'static str, from: Jid, children: Vec<Node>) {
        let id = self.fresh().to_string();
        let builder = NodeBuilder::new("notification").attr("id", id.clone()).attr("type", kind);
        let builder =
            if from.user.is_empty() { builder.attr("from", node::SERVER) } else { builder.attr("from", from) };
        let node = builder.attr("t", node::now().to_string()).children(children).build();
        self.mail(to, Mail { id, from: DeviceId::phone(to.number), node, plain: None });
    }

    /// Sends a stanza to a device that is connected.
    pub(crate) fn post(&mut self, to: DeviceId, node: Node) {
        let Some(connection) = self.device(to).and_then(|device| device.connection) else { return };
        self.put(connection, Out::Stanza(node));
    }

    /// Sends something on a connection.
    pub(crate) fn put(&self, connection: u64, out: Out) {
        if let Some(connection) = self.connections.get(&connection) {
            connection.outbox.put(out);
        }
    }

    /// A connection is over.
    pub(crate) fn left(&mut self, connection: u64) {
        let Some(gone) = self.connections.remove(&connection) else { return };
        if let Role::Device(id) = gone.role
            && let Some(device) = self.device(id)
            && device.connection == Some(connection)
        {
            device.connection = None;
            device.active = false;
            device.available = false;
        }
    }
}
