//! How a device comes to be linked: it is given references, a phone scans one of them with the device's keys and signs
//! the device's identity, the device signs in turn, and the connection begins anew. And how the link ends.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::wacore::adv::{AdvValidation, validate_adv_with_identity_key};
use whatsapp_rust::wacore_binary::NodeRef;
use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node};
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::client_payload::DevicePairingRegistrationData;

use crate::code::Entry;
use crate::connection::Out;
use crate::error::ServerError;
use crate::faults::Failure;
use crate::keys::{self, Key, KeyBundle, OneTimeKeys};
use crate::node;
use crate::registry::{Account, Device, DeviceId, Logins, Registry, Role};
use crate::seen::{Unlink, UnlinkedBy};

/// A device that waits for somebody to link it.
pub(crate) struct Waiting {
    pub(crate) noise: Key,
    pub(crate) keys: KeyBundle,
    pub(crate) references: Vec<String>,
    /// The pairing code that it shows, if it does.
    pub(crate) entry: Option<Entry>,
    /// What it is to become, as soon as it has signed its identity.
    pub(crate) becoming: Option<DeviceId>,
}

impl Registry {
    /// Somebody who is nobody yet asks to be paired.
    pub(crate) fn register(&mut self, connection: u64, noise: Key, data: &DevicePairingRegistrationData) {
        self.seen.totals.registrations += 1;
        let Some(keys) = KeyBundle::registered(data) else {
            self.refuse(connection, Failure { reason: 400, code: None, expire: None });
            return;
        };
        let reference = |_| format!("2@{}", BASE64.encode(rand::random::<[u8; 24]>()));
        let references: Vec<String> = (0..self.config.references).map(reference).collect();
        let shown = references.iter().map(|reference| node::holding("ref", reference.as_bytes()));
        let pair = NodeBuilder::new("pair-device").children(shown).build();
        self.put(connection, Out::Stanza(demand(format!("pair-{connection}"), pair)));
        if let Some(connection) = self.connections.get_mut(&connection) {
            let waiting = Waiting { noise, keys, references, entry: None, becoming: None };
            connection.role = Role::Waiting(Box::new(waiting));
        }
    }

    /// The phone of a number scans a code. A number without a phone gets one.
    pub(crate) fn scan(&mut self, number: u64, qr: &str) -> Result<DeviceId, ServerError> {
        // The newer form of the code is a link with the older one behind the #.
        let parts: Vec<&str> = qr.rsplit('#').next().unwrap_or_default().split(',').collect();
        let [reference, noise, identity, secret, ..] = parts.as_slice() else { return Err(ServerError::Qr) };
        let decoded = |part: &str| BASE64.decode(part).map_err(|_| ServerError::Qr);
        let (noise, identity, secret) = (decoded(noise)?, decoded(identity)?, decoded(secret)?);
        let (connection, waiting) =
            self.waiting(|waiting| waiting.references.iter().any(|known| known == reference))?;
        if waiting.keys.identity[..] != identity || waiting.noise[..] != noise {
            return Err(ServerError::Qr);
        }
        waiting.references.clear();
        self.link(connection, number, &secret)
    }

    /// The waiting connection that a condition holds for; the youngest of several.
    pub(crate) fn waiting(&mut self, is_it: impl Fn(&Waiting) -> bool) -> Result<(u64, &mut Waiting), ServerError> {
        let waiting = self.connections.iter_mut().filter_map(|(id, connection)| match &mut connection.role {
            Role::Waiting(waiting) if is_it(waiting) => Some((*id, &mut **waiting)),
            _ => None,
        });
        waiting.max_by_key(|(id, _)| *id).ok_or(ServerError::NobodyWaits)
    }

    /// The phone signs the identity of a device, with a proof that it knows the secret which the device has shown it.
    pub(crate) fn link(&mut self, connection: u64, number: u64, secret: &[u8]) -> Result<DeviceId, ServerError> {
        let (_, waiting) = self.waiting_on(connection)?;
        let (noise, keys) = (waiting.noise, waiting.keys.clone());
        let account = self.open(number);
        let id = DeviceId { number, device: account.devices.keys().next_back().map_or(1, |last| last + 1) };
        let signed = sign(account, id.device, &keys.identity);
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).map_err(|_| ServerError::Qr)?;
        mac.update(&signed);
        let proven = wa::ADVSignedDeviceIdentityHMAC {
            details: Some(signed),
            hmac: Some(mac.finalize().into_bytes().to_vec()),
            ..Default::default()
        };
        let lid = Jid::lid_device(account.lid.to_string(), id.device);
        account.devices.insert(id.device, Device::new(noise, keys));
        let (_, waiting) = self.waiting_on(connection)?;
        waiting.becoming = Some(id);
        let success = NodeBuilder::new("pair-success")
            .children([
                node::holding("device-identity", proven.encode_to_vec()),
                NodeBuilder::new("biz").attr("name", format!("Phone {number}")).build(),
                NodeBuilder::new("device").attr("jid", id.jid()).attr("lid", lid).build(),
                NodeBuilder::new("platform").attr("name", "android").build(),
            ])
            .build();
        self.put(connection, Out::Stanza(demand(format!("linked-{connection}"), success)));
        Ok(id)
    }

    /// A device answers what it was told. If it has signed its identity, it is linked, and begins anew.
    pub(crate) fn answered(&mut self, connection: u64, node: &NodeRef<'_>) {
        let Some(signed) = node.get_optional_child("pair-device-sign") else { return };
        let Some(identity) = node::bytes(signed, "device-identity").map(<[u8]>::to_vec) else { return };
        let Ok((_, waiting)) = self.waiting_on(connection) else { return };
        let Some(id) = waiting.becoming.take() else { return };
        let own = waiting.keys.identity;
        let Some(account) = self.accounts.get_mut(&id.number) else { return };
        let phone = keys::public(&account.phone.identity);
        let valid = validate_adv_with_identity_key(&identity, &own, Some(&phone));
        if !matches!(valid, AdvValidation::Valid) {
            self.refuse(connection, Failure { reason: 400, code: None, expire: None });
            return;
        }
        if let Some(device) = account.devices.get_mut(&id.device) {
            device.identity = Some(identity);
            device.linked = true;
        }
        self.seen.totals.pairings += 1;
        self.tell_devices(id, "add");
        let wait = self.faults.restart_delay_ms.map_or(self.config.restart_delay, Duration::from_millis);
        self.put_after(connection, wait, Out::Stanza(node::stream_error(515)));
        self.put_after(connection, wait, Out::Close);
    }

    /// Ends the link of a device. Its connection is told after a while.
    pub(crate) fn unlink(&mut self, id: DeviceId, by: UnlinkedBy, wait: Duration) -> Result<(), ServerError> {
        let Some(device) = self.device(id).filter(|device| device.linked) else { return Err(ServerError::NoDevice) };
        device.linked = false;
        device.mail.clear();
        device.once.clear();
        let connection = device.connection;
        self.seen.unlinks.push(Unlink { number: id.number, device: id.device, by, confirmed: true });
        if let Some(account) = self.accounts.get_mut(&id.number) {
            account.phone.forget(&id.jid());
        }
        self.tell_devices(id, "remove");
        if let Some(connection) = connection {
            self.put_after(connection, wait, Out::Stanza(node::device_removed()));
            self.put_after(connection, wait, Out::Close);
        }
        Ok(())
    }

    pub(crate) fn waiting_on(&mut self, connection: u64) -> Result<(u64, &mut Waiting), ServerError> {
        match self.connections.get_mut(&connection).map(|connection| &mut connection.role) {
            Some(Role::Waiting(waiting)) => Ok((connection, waiting)),
            _ => Err(ServerError::NobodyWaits),
        }
    }
}

impl Device {
    fn new(noise: Key, keys: KeyBundle) -> Self {
        Self {
            noise,
            keys,
            once: OneTimeKeys::new(),
            identity: None,
            linked: false,
            key_shared: false,
            connection: None,
            active: false,
            available: false,
            mail: std::collections::VecDeque::new(),
            logins: Logins::default(),
            uploads: 0,
            pings: 0,
        }
    }
}

/// Something that the server demands of a device.
fn demand(id: String, child: Node) -> Node {
    NodeBuilder::new("iq")
        .attr("from", node::SERVER)
        .attr("type", "set")
        .attr("id", id)
        .attr("xmlns", "md")
        .attr("t", node::now().to_string())
        .children([child])
        .build()
}

/// The phone says that this identity is a device of its account.
fn sign(account: &Account, device: u16, identity: &Key) -> Vec<u8> {
    let details = wa::ADVDeviceIdentity {
        raw_id: Some(account.raw_id),
        timestamp: Some(node::now()),
        key_index: Some(u32::from(device)),
        ..Default::default()
    }
    .encode_to_vec();
    let mut message = vec![6, 0];
    message.extend_from_slice(&details);
    message.extend_from_slice(identity);
    let pair = &account.phone.identity;
    let signature = pair.private_key.calculate_signature(&message, &mut rand::rng()).expect("a phone's key signs");
    wa::ADVSignedDeviceIdentity {
        details: Some(details),
        account_signature_key: Some(keys::public(pair).to_vec()),
        account_signature: Some(signature.to_vec()),
        ..Default::default()
    }
    .encode_to_vec()
}
