//! Who is on WhatsApp, and with which devices. Whoever has asked for somebody's devices is told when they change.

use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node, NodeRef, Server as Space};
use whatsapp_rust::waproto::whatsapp as wa;

use crate::node;
use crate::registry::{DeviceId, Mail, Registry};

impl Registry {
    /// The answer to a query for several users and several things of each.
    pub(crate) fn usync(&mut self, me: DeviceId, asked: &NodeRef<'_>) -> Node {
        let wanted = asked.get_optional_child("query");
        let wants = |tag: &str| wanted.is_some_and(|query| query.get_optional_child(tag).is_some());
        let wants = Wants { contact: wants("contact"), lid: wants("lid"), devices: wants("devices") };
        let list = asked.get_optional_child("list").and_then(|list| list.children()).unwrap_or_default();
        let users: Vec<Node> = list.iter().filter_map(|user| self.user(me, user, &wants)).collect();
        NodeBuilder::new("usync")
            .attr("sid", node::attr(asked, "sid"))
            .attr("index", "0")
            .attr("last", "true")
            .attr("mode", "query")
            .attr("context", "interactive")
            .children([NodeBuilder::new("list").children(users).build()])
            .build()
    }

    fn user(&mut self, me: DeviceId, asked: &NodeRef<'_>, wants: &Wants) -> Option<Node> {
        let typed = asked.get_optional_child("contact").and_then(|contact| contact.content_as_string());
        let jid = match (&typed, node::jid(asked, "jid")) {
            (_, Some(jid)) => jid.to_non_ad(),
            (Some(typed), None) => Jid::pn(typed.trim_start_matches('+').to_owned()),
            (None, None) => return None,
        };
        let number = self.whose(&jid).map_or(0, |id| id.number);
        if wants.contact {
            self.seen.totals.number_checks += 1;
        }
        let exists = self.account(number).is_some();
        let mut parts = Vec::new();
        if wants.contact {
            let contact = NodeBuilder::new("contact").attr("type", if exists { "in" } else { "out" });
            let contact = typed.into_iter().fold(contact, |contact, typed| contact.string_content(typed));
            parts.push(contact.build());
        }
        if wants.lid && exists {
            let lid = self.address(DeviceId::phone(number), Space::Lid);
            parts.push(NodeBuilder::new("lid").attr("val", lid).build());
        }
        if wants.devices && exists {
            self.open(number).followers.insert(me.number);
            parts.push(self.devices(number));
        }
        let user = NodeBuilder::new("user").attr("jid", jid).children(parts);
        Some(if exists { user.attr("pn_jid", Jid::pn(number.to_string())) } else { user }.build())
    }

    fn devices(&mut self, number: u64) -> Node {
        let mut list = vec![NodeBuilder::new("device").attr("id", "0").build()];
        for id in self.linked(number) {
            let device = id.device.to_string();
            list.push(NodeBuilder::new("device").attr("id", device.clone()).attr("key-index", device).build());
        }
        let list = NodeBuilder::new("device-list").children(list).build();
        NodeBuilder::new("devices").children([list, self.key_indexes(number)]).build()
    }

    /// The phone's word on which devices are its account's.
    fn key_indexes(&mut self, number: u64) -> Node {
        let linked: Vec<u32> = self.linked(number).iter().map(|id| u32::from(id.device)).collect();
        let account = self.open(number);
        let newest = account.devices.keys().next_back().copied().unwrap_or(0);
        let list = wa::ADVKeyIndexList {
            raw_id: Some(account.raw_id),
            timestamp: Some(node::now()),
            current_index: Some(u32::from(newest)),
            valid_indexes: std::iter::once(0).chain(linked).collect(),
            ..Default::default()
        }
        .encode_to_vec();
        let mut message = vec![6, 2];
        message.extend_from_slice(&list);
        let key = &account.phone.identity.private_key;
        let signature = key.calculate_signature(&message, &mut rand::rng()).expect("a phone's key signs");
        let signed = wa::ADVSignedKeyIndexList {
            details: Some(list),
            account_signature: Some(signature.to_vec()),
            ..Default::default()
        };
        NodeBuilder::new("key-index-list").attr("ts", node::now().to_string()).bytes(signed.encode_to_vec()).build()
    }

    /// Tells an account's other devices, and everybody who has asked for its devices, that one is new or gone.
    pub(crate) fn tell_devices(&mut self, changed: DeviceId, how: &'static str) {
        let list = self.key_indexes(changed.number);
        let lid = self.address(changed, Space::Lid);
        let device = NodeBuilder::new("device")
            .attr("jid", changed.jid())
            .attr("lid", lid.clone())
            .attr("key-index", changed.device.to_string())
            .build();
        let change = NodeBuilder::new(how).children([device, list]).build();
        let mut numbers = self.open(changed.number).followers.clone();
        numbers.insert(changed.number);
        let to: Vec<DeviceId> = numbers.into_iter().flat_map(|number| self.linked(number)).collect();
        for to in to.into_iter().filter(|to| *to != changed) {
            let id = self.fresh().to_string();
            let node = NodeBuilder::new("notification")
                .attr("from", Jid::pn(changed.number.to_string()))
                .attr("lid", lid.to_non_ad())
                .attr("id", id.clone())
                .attr("type", "devices")
                .attr("t", node::now().to_string())
                .children([change.clone()])
                .build();
            self.mail(to, Mail { id, from: DeviceId::phone(changed.number), node, plain: None });
        }
    }
}

struct Wants {
    contact: bool,
    lid: bool,
    devices: bool,
}
