//! What devices say of their mail: that they have it, that they have read it, or that they could not.

use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Node, NodeRef};

use crate::error::ServerError;
use crate::keys::{self, KeyBundle};
use crate::node;
use crate::registry::{DeviceId, Mail, Registry};

impl Registry {
    /// A device takes its mail from now on: all that lies there goes out, in its order.
    pub(crate) fn active(&mut self, me: DeviceId) {
        let Some(device) = self.device(me) else { return };
        device.active = true;
        let waiting: Vec<(DeviceId, String, Node)> =
            device.mail.iter().map(|mail| (mail.from, mail.id.clone(), mail.node.clone())).collect();
        let count = waiting.len().to_string();
        if !waiting.is_empty() {
            self.post(me, told("offline_preview", &count));
        }
        for (from, id, mut node) in waiting {
            node.attrs.push("offline", "0");
            self.count_sent(me, from, &id, &node);
            self.post(me, node);
        }
        self.post(me, told("offline", &count));
    }

    /// `<ack>`: a device has a receipt or a notification, or wants nothing more of a message.
    pub(crate) fn acknowledged(&mut self, me: DeviceId, stanza: &NodeRef<'_>) {
        let (id, class) = (node::attr(stanza, "id"), node::attr(stanza, "class"));
        if let Some(device) = self.device(me) {
            device.mail.retain(|mail| !(mail.id == id && mail.node.tag == class));
        }
    }

    /// `<receipt>`: a device has messages, has read them, or could not read one.
    pub(crate) fn receipt(&mut self, me: DeviceId, stanza: &NodeRef<'_>) {
        let (id, kind) = (node::attr(stanza, "id"), node::attr(stanza, "type"));
        let Some(to) = node::jid(stanza, "to") else { return };
        if self.faults.lose_receipts && self.faults.concern(me.number) {
            self.seen.totals.lost_receipts += 1;
            return;
        }
        let ack = NodeBuilder::new("ack").attr("class", "receipt").attr("id", id.clone()).attr("from", to.clone());
        let ack = if kind.is_empty() { ack } else { ack.attr("type", kind.clone()) };
        self.post(me, ack.build());
        let Some(sender) = self.whose(&to) else { return };
        if kind == "retry" {
            self.asked_again(me, sender, &id, stanza);
            return;
        }
        let mut ids = vec![id];
        if let Some(list) = stanza.get_optional_child("list") {
            ids.extend(list.get_children_by_tag("item").map(|item| node::attr(item, "id")));
        }
        for id in ids {
            self.received(me, sender, &id, &kind, to.server);
        }
    }

    fn received(&mut self, me: DeviceId, sender: DeviceId, id: &str, kind: &str, space: whatsapp_rust::Server) {
        if let Some(device) = self.device(me) {
            device.mail.retain(|mail| !(mail.is_message() && mail.id == id && mail.from.number == sender.number));
        }
        if matches!(kind, "peer_msg" | "sender") || sender.number == me.number {
            return;
        }
        let Some(text) = self.seen.of(sender.number, id).filter(|text| text.to == me.number) else { return };
        text.read |= kind == "read";
        let copy = text.copy(me.device);
        copy.receipt = Some(if kind.is_empty() { "delivery".to_owned() } else { kind.to_owned() });
        let from = text.sender();
        if from.device == 0 {
            return;
        }
        let mut receipt = NodeBuilder::new("receipt")
            .attr("from", self.address(me, space))
            .attr("id", id.to_owned())
            .attr("t", node::now().to_string());
        if !kind.is_empty() {
            receipt = receipt.attr("type", kind.to_owned());
        }
        self.mail(from, Mail { id: id.to_owned(), from: me, node: receipt.build(), plain: None });
    }

    /// A device could not read a message, which whoever has sent it is to send again.
    fn asked_again(&mut self, me: DeviceId, sender: DeviceId, id: &str, stanza: &NodeRef<'_>) {
        if let Some(text) = self.seen.of(sender.number, id).filter(|text| text.to == me.number) {
            text.copy(me.device).retries += 1;
        }
        let registration = node::bytes(stanza, "registration").unwrap_or_default();
        let given = stanza.get_optional_child("keys");
        if sender.device == 0 {
            let given = given.and_then(|given| Some((KeyBundle::uploaded(given, registration)?, keys::single(given))));
            // If the phone cannot do it either, the device asks once more.
            let _ = self.phone_repeats(me, id, given);
            return;
        }
        let space = node::jid(stanza, "to").map_or(whatsapp_rust::Server::Pn, |to| to.server);
        let children: Vec<Node> = stanza.children().unwrap_or_default().iter().map(NodeRef::to_owned).collect();
        let receipt = NodeBuilder::new("receipt")
            .attr("from", self.address(me, space))
            .attr("id", id.to_owned())
            .attr("type", "retry")
            .attr("t", node::now().to_string())
            .children(children);
        self.mail(sender, Mail { id: id.to_owned(), from: me, node: receipt.build(), plain: None });
    }

    /// The phone of a number opens the message of that id, and its sender is told.
    pub(crate) fn phone_opens(&mut self, number: u64, id: &str) -> Result<(), ServerError> {
        let text = self.seen.for_number(number, id).ok_or(ServerError::NoText)?;
        text.read = true;
        let (from, chat) = (text.sender(), text.chat.clone());
        let receipt = NodeBuilder::new("receipt")
            .attr("from", chat)
            .attr("id", id.to_owned())
            .attr("type", "read")
            .attr("t", node::now().to_string());
        let by = DeviceId::phone(number);
        self.mail(from, Mail { id: id.to_owned(), from: by, node: receipt.build(), plain: None });
        Ok(())
    }
}

/// Something about the connection itself, with a count.
fn told(tag: &'static str, count: &str) -> Node {
    let child = NodeBuilder::new(tag).attr("count", count.to_owned()).build();
    NodeBuilder::new("ib").attr("from", node::SERVER).children([child]).build()
}
