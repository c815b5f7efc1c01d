//! Calls: a phone rings an account's linked devices, each of which may refuse. Nobody ever answers.

use whatsapp_rust::wacore_binary::NodeRef;
use whatsapp_rust::wacore_binary::builder::NodeBuilder;

use crate::error::ServerError;
use crate::node;
use crate::registry::{DeviceId, Mail, Registry};
use crate::seen::Call;

impl Registry {
    /// The phone of a number calls another number, and that one's linked devices ring: those that are away, when they are back.
    pub(crate) fn phone_calls(&mut self, from: u64, to: u64) -> Result<String, ServerError> {
        self.account(from).ok_or(ServerError::NotOnWhatsApp)?;
        self.account(to).ok_or(ServerError::NotOnWhatsApp)?;
        let devices = self.linked(to);
        if devices.is_empty() {
            return Err(ServerError::NoDevice);
        }
        let id = format!("CA11{:016X}", rand::random::<u64>());
        let phone = DeviceId::phone(from);
        let caller = self.address(phone, self.space());
        let audio = NodeBuilder::new("audio").attr("enc", "opus").attr("rate", "16000").build();
        let offer = NodeBuilder::new("offer")
            .attr("call-id", id.clone())
            .attr("call-creator", caller.clone())
            .attr("caller_pn", phone.jid())
            .children([audio])
            .build();
        let stanza = format!("3ACALL{:016X}", rand::random::<u64>());
        let call = NodeBuilder::new("call")
            .attr("from", caller)
            .attr("id", stanza.clone())
            .attr("t", node::now().to_string())
            .attr("notify", format!("Phone {from}"))
            .children([offer])
            .build();
        self.seen.calls.push(Call { id: id.clone(), from, to, refused_by: Vec::new() });
        for device in devices {
            self.mail(device, Mail { id: stanza.clone(), from: phone, node: call.clone(), plain: None });
        }
        Ok(id)
    }

    /// `<call>`: a device says something about a call. All that is heeded is that it refuses.
    pub(crate) fn call(&mut self, me: DeviceId, stanza: &NodeRef<'_>) {
        let Some(to) = node::jid(stanza, "to") else { return };
        let ack = NodeBuilder::new("ack").attr("class", "call").attr("id", node::attr(stanza, "id")).attr("from", to);
        self.post(me, ack.build());
        let Some(reject) = stanza.get_optional_child("reject") else { return };
        let id = node::attr(reject, "call-id");
        let call = self.seen.calls.iter_mut().find(|call| call.id == id && call.to == me.number);
        if let Some(call) = call.filter(|call| !call.refused_by.contains(&me.device)) {
            call.refused_by.push(me.device);
        }
    }
}
