//! Messages on their way: from a linked device to phones and other linked devices, and from a phone to linked devices.
//!
//! The server loses nothing. A copy for a linked device lies in its mail until the device acknowledges it, and goes out
//! again at each login until then.

use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::wacore::messages::wrap_device_sent;
use whatsapp_rust::wacore_binary::NodeRef;
use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node, Server as Space};
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message as parts;

use crate::config::Addressing;
use crate::error::ServerError;
use crate::node;
use crate::phone::{self, PhoneError, Sealed};
use crate::registry::{DeviceId, Mail, Registry};

/// One recipient's ciphertext in a message.
pub(crate) struct Part {
    pub(crate) to: DeviceId,
    pub(crate) kind: String,
    pub(crate) sealed: Vec<u8>,
    /// It answers a request to say it again.
    again: bool,
}

impl Registry {
    /// A linked device sends a message.
    pub(crate) fn message(&mut self, from: DeviceId, stanza: &NodeRef<'_>) {
        let id = node::attr(stanza, "id");
        let Some(chat) = node::jid(stanza, "to") else { return };
        if chat.server == Space::Group {
            self.group_message(from, &id, &chat, stanza);
            return;
        }
        let Some(to) = self.whose(&chat).map(|to| to.number) else {
            self.acknowledge(from, &id, &chat, Some(404));
            return;
        };
        let parts = self.parts(stanza, &chat);
        let peer = node::attr(stanza, "category") == "peer";
        let refused = self.faults.refuse_messages.filter(|_| self.faults.concern(from.number));
        if !peer {
            let text = self.seen.text(from, &id, to, &chat.to_non_ad_string());
            text.refused = refused;
            match (refused, parts.iter().all(|part| part.again)) {
                (Some(_), _) => {}
                (None, true) => text.repeated += 1,
                (None, false) => text.accepted += 1,
            }
        }
        if !(self.faults.withhold_acks && self.faults.concern(from.number)) {
            self.acknowledge(from, &id, &chat, refused);
        }
        if refused.is_some() {
            return;
        }
        for part in parts {
            if part.to.device == 0 {
                self.phone_reads(from, &id, &chat, &part);
            } else {
                self.forward(from, &id, to, stanza, part);
            }
        }
    }

    pub(crate) fn parts(&self, stanza: &NodeRef<'_>, chat: &Jid) -> Vec<Part> {
        let part = |to: &Jid, enc: &NodeRef<'_>| {
            Some(Part {
                to: self.whose(to)?,
                kind: node::attr(enc, "type"),
                sealed: enc.content_bytes()?.to_vec(),
                again: enc.get_attr("count").is_some(),
            })
        };
        let mut found = Vec::new();
        if let Some(list) = stanza.get_optional_child("participants") {
            let each = list.get_children_by_tag("to");
            found.extend(each.filter_map(|to| part(&node::jid(to, "jid")?, to.get_optional_child("enc")?)));
        }
        let alone = node::jid(stanza, "participant").unwrap_or_else(|| chat.clone());
        found.extend(stanza.get_optional_child("enc").and_then(|enc| part(&alone, enc)));
        found
    }

    pub(crate) fn acknowledge(&mut self, to: DeviceId, id: &str, chat: &Jid, error: Option<u16>) {
        let mut builder = NodeBuilder::new("ack")
            .attr("class", "message")
            .attr("id", id.to_owned())
            .attr("from", chat.to_non_ad())
            .attr("t", node::now().to_string());
        if let Some(error) = error {
            builder = builder.attr("error", error.to_string());
        }
        self.post(to, builder.build());
    }

    /// A phone decrypts its copy. It acknowledges what it can read, and asks for the rest again.
    fn phone_reads(&mut self, from: DeviceId, id: &str, chat: &Jid, part: &Part) {
        let Some(account) = self.account(part.to.number) else { return };
        let read = account.phone.decrypt(&from.jid(), &part.kind, &part.sealed);
        let own = part.to.number == from.number;
        match read {
            Ok(message) if own => self.own_phone_reads(from, &message),
            Ok(message) => {
                if let Some(text) = self.seen.find(from, id) {
                    text.decrypted += 1;
                    text.text = phone::text(&message);
                }
                if !(self.faults.withhold_receipts && self.faults.concern(from.number)) {
                    self.mail_receipt(from, part.to, id, chat, None, Vec::new());
                }
            }
            Err(_) if own => {}
            Err(_) => self.phone_asks_again(from, part.to, id, chat),
        }
    }

    /// What a device tells its own phone is no text: copies of texts, and requests. One of them is heeded.
    fn own_phone_reads(&mut self, from: DeviceId, message: &wa::Message) {
        let asked = message
            .protocol_message
            .as_option()
            .is_some_and(|protocol| protocol.app_state_sync_key_request.as_option().is_some());
        if asked && !self.faults.withhold_key {
            let _ = self.share_key(from);
        }
    }

    fn phone_asks_again(&mut self, from: DeviceId, to: DeviceId, id: &str, chat: &Jid) {
        const MOST: u32 = 4;
        let Some(text) = self.seen.find(from, id) else { return };
        text.undecryptable += 1;
        let count = text.undecryptable;
        let Some(account) = self.account(to.number) else { return };
        if count > MOST {
            return;
        }
        account.phone.forget(&from.jid());
        let once = account.phone.offer();
        let bundle = account.phone.bundle.clone();
        let retry = NodeBuilder::new("retry")
            .attr("v", "1")
            .attr("count", count.to_string())
            .attr("id", id.to_owned())
            .attr("t", node::now().to_string())
            .build();
        let children = vec![
            retry,
            node::holding("registration", bundle.registration.to_be_bytes().to_vec()),
            NodeBuilder::new("keys").children(bundle.nodes(Some(once))).build(),
        ];
        self.mail_receipt(from, to, id, chat, Some("retry"), children);
    }

    /// Tells the sender of a message what became of it at one of its recipients.
    fn mail_receipt(
        &mut self,
        to: DeviceId,
        by: DeviceId,
        id: &str,
        chat: &Jid,
        kind: Option<&str>,
        children: Vec<Node>,
    ) {
        let mut builder = NodeBuilder::new("receipt")
            .attr("from", self.address(by, chat.server))
            .attr("id", id.to_owned())
            .attr("t", node::now().to_string());
        if let Some(kind) = kind {
            builder = builder.attr("type", kind.to_owned());
        }
        if !children.is_empty() {
            builder = builder.children(children);
        }
        self.mail(to, Mail { id: id.to_owned(), from: by, node: builder.build(), plain: None });
    }

    /// A copy for another linked device, which only that device can read.
    fn forward(&mut self, from: DeviceId, id: &str, to: u64, stanza: &NodeRef<'_>, part: Part) {
        let mut children = vec![enc(&part.kind, part.sealed)];
        children.extend(stanza.get_optional_child("device-identity").map(NodeRef::to_owned));
        let own = part.to.number == from.number;
        let mut builder = self.envelope(from, id, &node::attr(stanza, "type"));
        if own {
            builder = builder.attr("recipient", self.address(DeviceId::phone(to), self.space()));
            let category = node::attr(stanza, "category");
            if !category.is_empty() {
                builder = builder.attr("category", category);
            }
        } else if let Some(text) = self.seen.find(from, id) {
            text.copy(part.to.device);
        }
        let mail = Mail { id: id.to_owned(), from, node: builder.children(children).build(), plain: None };
        self.replace_mail(part.to, mail);
    }

    /// A message said again takes the place of the one that could not be read.
    fn replace_mail(&mut self, to: DeviceId, mail: Mail) {
        if let Some(device) = self.device(to) {
            device.mail.retain(|old| !(old.is_message() && old.id == mail.id && old.from == mail.from));
        }
        self.mail(to, mail);
    }

    /// The kind of address that messages come from.
    pub(crate) fn space(&self) -> Space {
        match self.config.addressing {
            Addressing::Number => Space::Pn,
            Addressing::Lid => Space::Lid,
        }
    }

    /// A message as its recipient gets it, still without content.
    fn envelope(&self, from: DeviceId, id: &str, kind: &str) -> NodeBuilder {
        let space = self.space();
        let (other, name) = match space {
            Space::Lid => (Space::Pn, "sender_pn"),
            _ => (Space::Lid, "sender_lid"),
        };
        NodeBuilder::new("message")
            .attr("from", self.address(from, space))
            .attr("id", id.to_owned())
            .attr("type", if kind.is_empty() { "text".to_owned() } else { kind.to_owned() })
            .attr("t", node::now().to_string())
            .attr("notify", format!("Phone {}", from.number))
            .attr(name, self.address(from, other).to_non_ad())
    }

    /// A phone texts a number: the other phone, that account's linked devices, and its own ones.
    pub(crate) fn phone_texts(
        &mut self,
        from: u64,
        to: u64,
        only: Option<u16>,
        text: &str,
    ) -> Result<String, ServerError> {
        self.account(from).ok_or(ServerError::NotOnWhatsApp)?;
        self.account(to).ok_or(ServerError::NotOnWhatsApp)?;
        let sender = DeviceId::phone(from);
        let id = format!("3A{:016X}{:02X}", rand::random::<u64>(), rand::random::<u8>());
        let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
        let chat = self.address(DeviceId::phone(to), self.space()).to_string();
        let devices: Vec<_> =
            self.linked(to).into_iter().filter(|id| only.is_none_or(|only| only == id.device)).collect();
        if devices.is_empty() && only.is_some() {
            return Err(ServerError::NoDevice);
        }
        let seen = self.seen.text(sender, &id, to, &chat);
        seen.accepted += 1;
        seen.text = Some(text.to_owned());
        for device in devices {
            self.phone_sends(sender, device, &id, &message, &[])?;
        }
        let copy = wrap_device_sent(message, chat.clone());
        for device in self.linked(from) {
            if to != from {
                self.phone_sends(sender, device, &id, &copy, &[("recipient", chat.clone())])?;
            }
        }
        Ok(id)
    }

    /// A phone encrypts a message for a linked device and leaves it in the device's mail.
    fn phone_sends(
        &mut self,
        from: DeviceId,
        to: DeviceId,
        id: &str,
        message: &wa::Message,
        more: &[(&'static str, String)],
    ) -> Result<(), ServerError> {
        let sealed = self.phone_seals(from.number, to, message)?;
        let mut builder = self.envelope(from, id, "text");
        for (name, value) in more {
            builder = builder.attr(name, value.clone());
        }
        let node = builder.children([enc(sealed.kind, sealed.bytes)]).build();
        if let Some(text) = self.seen.find(from, id).filter(|text| text.to == to.number) {
            text.copy(to.device);
        }
        let plain = Some(Box::new(message.clone()));
        self.replace_mail(to, Mail { id: id.to_owned(), from, node, plain });
        Ok(())
    }

    fn phone_seals(&mut self, from: u64, to: DeviceId, message: &wa::Message) -> Result<Sealed, ServerError> {
        let jid = to.jid();
        if !self.open(from).phone.knows(&jid) {
            let (keys, once) = self.take_keys(to).ok_or(ServerError::NoDevice)?;
            self.open(from).phone.meet(&jid, &keys, once)?;
        }
        Ok(self.open(from).phone.encrypt(&jid, message)?)
    }

    /// A linked device could not read what a phone has sent; the phone begins a new session, and says it again.
    pub(crate) fn phone_repeats(
        &mut self,
        to: DeviceId,
        id: &str,
        keys: Option<(crate::keys::KeyBundle, Option<(u32, crate::keys::Key)>)>,
    ) -> Result<(), PhoneError> {
        let Some(device) = self.device(to) else { return Ok(()) };
        let Some(mail) = device.mail.iter().find(|mail| mail.is_message() && mail.id == id) else { return Ok(()) };
        let (from, Some(plain), mut node) = (mail.from, mail.plain.clone(), mail.node.clone()) else { return Ok(()) };
        let jid = to.jid();
        let Some((keys, once)) = keys.or_else(|| self.take_keys(to)) else { return Ok(()) };
        let phone = &mut self.open(from.number).phone;
        phone.forget(&jid);
        phone.meet(&jid, &keys, once)?;
        let sealed = phone.encrypt(&jid, &plain)?;
        node =
            Node { content: NodeBuilder::new("").children([enc(sealed.kind, sealed.bytes)]).build().content, ..node };
        if let Some(text) = self.seen.find(from, id).filter(|text| text.to == to.number) {
            text.repeated += 1;
        }
        self.replace_mail(to, Mail { id: id.to_owned(), from, node, plain: Some(plain) });
        Ok(())
    }

    /// What a phone does first for a device that it has linked: it shares the key of the account's settings.
    pub(crate) fn share_key(&mut self, to: DeviceId) -> Result<(), ServerError> {
        let device = u32::from(to.device);
        let fingerprint = parts::AppStateSyncKeyFingerprint {
            raw_id: Some(1),
            current_index: Some(device),
            device_indexes: vec![0, device],
        };
        let data = parts::AppStateSyncKeyData {
            key_data: Some(rand::random::<[u8; 32]>().to_vec()),
            fingerprint: MessageField::some(fingerprint),
            timestamp: i64::try_from(node::now()).ok(),
        };
        let key = parts::AppStateSyncKey {
            key_id: MessageField::some(parts::AppStateSyncKeyId { key_id: Some(vec![0, 0, 0, 0, 1, 1]) }),
            key_data: MessageField::some(data),
        };
        let protocol = parts::ProtocolMessage {
            r#type: Some(parts::protocol_message::Type::AppStateSyncKeyShare),
            app_state_sync_key_share: MessageField::some(parts::AppStateSyncKeyShare { keys: vec![key] }),
            ..Default::default()
        };
        let message = wa::Message { protocol_message: MessageField::some(protocol), ..Default::default() };
        let id = format!("3AKEY{:016X}", rand::random::<u64>());
        self.phone_sends(DeviceId::phone(to.number), to, &id, &message, &[("category", "peer".to_owned())])
    }
}

impl Mail {
    pub(crate) fn is_message(&self) -> bool {
        self.node.tag == "message"
    }
}

fn enc(kind: &str, sealed: Vec<u8>) -> Node {
    NodeBuilder::new("enc").attr("v", "2").attr("type", kind.to_owned()).bytes(sealed).build()
}
