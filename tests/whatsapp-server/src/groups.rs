//! Groups of phones: who is in one, and what linked devices write to it.
//!
//! Only phones read what is written. Linked devices of members get no copy, and nobody says that something was delivered or read.

use std::collections::BTreeSet;

use whatsapp_rust::wacore_binary::NodeRef;
use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Server as Space};

use crate::connection::Out;
use crate::error::ServerError;
use crate::node;
use crate::phone;
use crate::registry::{DeviceId, Registry};

/// The number of the first group. They are as long as WhatsApp's.
const FIRST: u64 = 120_363_000_000_000_001;

impl Registry {
    /// Makes a group of some numbers. The answer is its address.
    pub(crate) fn gather(&mut self, members: &[u64]) -> Result<Jid, ServerError> {
        for member in members {
            self.account(*member).ok_or(ServerError::NotOnWhatsApp)?;
        }
        let number = self.groups.keys().next_back().map_or(FIRST, |last| last + 1);
        self.groups.insert(number, members.iter().copied().collect());
        Ok(Jid::group(number.to_string()))
    }

    fn group(&self, jid: &Jid) -> Option<(u64, BTreeSet<u64>)> {
        let number = jid.user.parse().ok().filter(|_| jid.server == Space::Group)?;
        Some((number, self.groups.get(&number)?.clone()))
    }

    /// A linked device asks who is in a group.
    pub(crate) fn group_asked(&mut self, me: DeviceId, connection: u64, id: &str, iq: &NodeRef<'_>) {
        let group = node::jid(iq, "to").and_then(|jid| self.group(&jid));
        let Some((number, members)) = group else {
            self.put(connection, Out::Stanza(node::error(id, 404, "item-not-found")));
            return;
        };
        if !members.contains(&me.number) {
            self.put(connection, Out::Stanza(node::error(id, 403, "forbidden")));
            return;
        }
        let participant =
            |number: &u64| NodeBuilder::new("participant").attr("jid", DeviceId::phone(*number).jid()).build();
        let group = NodeBuilder::new("group")
            .attr("id", number.to_string())
            .attr("subject", "A group")
            .attr("addressing_mode", "pn")
            .attr("creation", node::now().to_string())
            .children(members.iter().map(participant))
            .build();
        self.reply(connection, id, vec![group]);
    }

    /// A linked device writes to a group: with the key that it has given to each member, in this message or before.
    pub(crate) fn group_message(&mut self, from: DeviceId, id: &str, chat: &Jid, stanza: &NodeRef<'_>) {
        let Some((number, members)) = self.group(chat) else {
            self.acknowledge(from, id, chat, Some(404));
            return;
        };
        if !members.contains(&from.number) {
            self.acknowledge(from, id, chat, Some(403));
            return;
        }
        let is_concerned = self.faults.concern(from.number);
        let refused = self.faults.refuse_messages.filter(|_| is_concerned);
        let text = self.seen.text(from, id, number, &chat.to_string());
        text.refused = refused;
        text.accepted += u32::from(refused.is_none());
        if !(self.faults.withhold_acks && is_concerned) {
            self.acknowledge(from, id, chat, refused);
        }
        if refused.is_some() {
            return;
        }
        for part in self.parts(stanza, chat).into_iter().filter(|part| part.to.device == 0) {
            if let Some(account) = self.account(part.to.number).filter(|_| members.contains(&part.to.number)) {
                // Who cannot read the key cannot read the message either, which is seen below.
                let _ = account.phone.learn(chat, &from.jid(), &part.kind, &part.sealed);
            }
        }
        let sealed = stanza.get_optional_child("enc").and_then(|enc| enc.content_bytes()).unwrap_or_default().to_vec();
        for member in members.into_iter().filter(|member| *member != from.number) {
            let Some(account) = self.account(member) else { continue };
            let read = account.phone.decrypt_in_group(chat, &from.jid(), &sealed);
            let Some(text) = self.seen.find(from, id) else { return };
            match read {
                Ok(message) => {
                    text.decrypted += 1;
                    text.text = phone::text(&message);
                }
                Err(_) => text.undecryptable += 1,
            }
        }
    }
}
