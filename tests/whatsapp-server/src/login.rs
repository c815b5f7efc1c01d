//! What follows a handshake: a device that is known goes on, another one is told no, and who has none is to be paired.

use std::time::Duration;

use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::wacore_binary::NodeRef;
use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node};
use whatsapp_rust::waproto::whatsapp::ClientPayload;

use crate::connection::{Out, Outbox};
use crate::faults::Failure;
use crate::handshake::Mode;
use crate::keys::Key;
use crate::node;
use crate::registry::{Connection, DeviceId, Registry, Role};

/// A device that is not linked, or no longer.
const UNLINKED: Failure = Failure { reason: 401, code: None, expire: None };

impl Registry {
    /// Somebody has connected. The answer is the connection's id.
    pub(crate) fn arrive(&mut self, outbox: Outbox, mode: Mode, client: Key, payload: &[u8]) -> u64 {
        let id = self.fresh();
        self.connections.insert(id, Connection { outbox, mode, role: Role::Refused, nodes: 0 });
        let payload = ClientPayload::decode_from_slice(payload).unwrap_or_default();
        match payload.device_pairing_data.as_option() {
            Some(data) => self.register(id, client, data),
            None => {
                let device = u16::try_from(payload.device.unwrap_or(0)).unwrap_or(0);
                let me = DeviceId { number: payload.username.unwrap_or(0), device };
                self.log_in(id, me, client, mode);
            }
        }
        id
    }

    fn log_in(&mut self, connection: u64, me: DeviceId, client: Key, mode: Mode) {
        let known = self.device(me).is_some_and(|device| device.linked && device.noise == client);
        let faulty = self.faults.refuse_logins.filter(|_| self.faults.concern(me.number));
        let refused = self.accounts.get(&me.number).and_then(|account| account.refused);
        if let Some(failure) = faulty.or(refused).or_else(|| (!known).then_some(UNLINKED)) {
            self.refuse(connection, failure);
            return;
        }
        let lid = self.accounts.get(&me.number).map_or(0, |account| account.lid);
        let Some(device) = self.device(me) else { return };
        match mode {
            Mode::Xx => device.logins.xx += 1,
            Mode::Ik => device.logins.ik += 1,
            Mode::Fallback => device.logins.fallback += 1,
        }
        // It says anew on each connection whether it takes mail and whether its user is there.
        device.active = false;
        device.available = false;
        if let Some(other) = device.connection.replace(connection) {
            self.put(other, Out::Stanza(node::replaced()));
            self.put(other, Out::Close);
        }
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.role = Role::Device(me);
        }
        self.put(connection, Out::Stanza(success(Jid::lid_device(lid.to_string(), me.device))));
    }

    /// Says no to a connection, and ends it.
    pub(crate) fn refuse(&mut self, connection: u64, failure: Failure) {
        self.seen.totals.failures += 1;
        self.put(connection, Out::Stanza(refusal(failure)));
        self.put(connection, Out::Close);
    }

    /// Does something on a connection later.
    pub(crate) fn put_after(&self, connection: u64, wait: Duration, out: Out) {
        if let Some(connection) = self.connections.get(&connection) {
            connection.outbox.put_after(wait, out);
        }
    }

    /// A node has come on a connection.
    pub(crate) fn hear(&mut self, connection: u64, node: &NodeRef<'_>) {
        let Some(heard) = self.connections.get_mut(&connection) else { return };
        heard.nodes += 1;
        let nodes = heard.nodes;
        let me = match &heard.role {
            Role::Device(me) => Some(*me),
            Role::Waiting(_) => None,
            Role::Refused => return,
        };
        match (node.tag.as_ref(), me) {
            ("iq", _) => self.iq(connection, me, node),
            ("message", Some(me)) => self.message(me, node),
            ("receipt", Some(me)) => self.receipt(me, node),
            ("ack", Some(me)) => self.acknowledged(me, node),
            ("presence", Some(me)) => self.presence(me, node),
            ("call", Some(me)) => self.call(me, node),
            _ => {}
        }
        if let (Some(me), Some(limit)) = (me, self.faults.close_after)
            && self.faults.concern(me.number)
            && nodes >= limit
        {
            self.put(connection, Out::Drop);
        }
    }

    /// A device says whether its user is there, or asks it of another one.
    fn presence(&mut self, me: DeviceId, node: &NodeRef<'_>) {
        match node::attr(node, "type").as_str() {
            "subscribe" => {
                let Some(of) = node::jid(node, "to") else { return };
                if self.whose(&of).is_none_or(|id| self.account(id.number).is_none()) {
                    return;
                }
                let there = NodeBuilder::new("presence").attr("from", of.to_non_ad()).attr("type", "available").build();
                self.post(me, there);
            }
            kind => {
                let available = kind != "unavailable";
                if let Some(device) = self.device(me) {
                    device.available = available;
                }
            }
        }
    }
}

fn success(lid: Jid) -> Node {
    NodeBuilder::new("success").attr("t", node::now().to_string()).attr("lid", lid).attr("props", "27").build()
}

fn refusal(failure: Failure) -> Node {
    let mut builder = NodeBuilder::new("failure").attr("reason", failure.reason.to_string()).attr("location", "loc");
    if let Some(code) = failure.code {
        builder = builder.attr("code", code.to_string());
    }
    if let Some(expire) = failure.expire {
        builder = builder.attr("expire", expire.to_string());
    }
    builder.build()
}
