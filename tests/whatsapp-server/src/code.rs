//! Pairing by a code that is typed into the phone instead of a picture that it scans. The code protects an exchange of
//! ephemeral keys; whether it was the right one shows when the device's bundle can be opened, or cannot.

use tokio::sync::oneshot;
use whatsapp_rust::wacore::crypto::hkdf_sha256_into;
use whatsapp_rust::wacore::libsignal::crypto::aes_256_gcm_decrypt;
use whatsapp_rust::wacore::libsignal::protocol::{KeyPair, PublicKey};
use whatsapp_rust::wacore::pair_code::PairCodeUtils;
use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Node, NodeRef};

use crate::connection::Out;
use crate::error::ServerError;
use crate::keys::{self, Key};
use crate::node;
use crate::registry::{DeviceId, Registry};

const TAG: &str = "link_code_companion_reg";

/// A code that a device shows for a number.
pub(crate) struct Entry {
    number: u64,
    reference: Vec<u8>,
    wrapped: Vec<u8>,
    typed: Option<Typed>,
}

/// A code that somebody has typed into the phone.
struct Typed {
    ephemeral: KeyPair,
    theirs: Key,
    outcome: oneshot::Sender<Result<DeviceId, ServerError>>,
}

/// What the phone makes of a typed code. It takes a while to compute, so it is done outside of the registry.
pub(crate) struct Attempt {
    ephemeral: KeyPair,
    theirs: Key,
    wrapped: Vec<u8>,
}

impl Attempt {
    pub(crate) fn new(code: &str, wrapped: &[u8]) -> Result<Self, ServerError> {
        let theirs = PairCodeUtils::decrypt_primary_ephemeral_pub(wrapped, code).map_err(|_| ServerError::Code)?;
        let ephemeral = KeyPair::generate(&mut rand::rng());
        let wrapped = PairCodeUtils::encrypt_ephemeral_pub(&keys::public(&ephemeral), code).to_vec();
        Ok(Self { ephemeral, theirs, wrapped })
    }
}

impl Registry {
    /// A device shows a code for a number.
    pub(crate) fn code_shown(&mut self, connection: u64, id: &str, child: &NodeRef<'_>) {
        let number = node::jid(child, "jid").and_then(|jid| jid.user.parse().ok());
        let wrapped = node::bytes(child, "link_code_pairing_wrapped_companion_ephemeral_pub");
        let (Some(number), Some(wrapped)) = (number, wrapped) else {
            self.put(connection, Out::Stanza(node::error(id, 400, "bad-request")));
            return;
        };
        let reference = rand::random::<[u8; 16]>().to_vec();
        let entry = Entry { number, reference: reference.clone(), wrapped: wrapped.to_vec(), typed: None };
        if let Ok((_, waiting)) = self.waiting_on(connection) {
            waiting.entry = Some(entry);
        }
        let answer = NodeBuilder::new(TAG)
            .attr("stage", "companion_hello")
            .children([node::holding("link_code_pairing_ref", reference)])
            .build();
        self.put(connection, Out::Stanza(node::result(id).children([answer]).build()));
    }

    /// What a device shows for a number, to be opened with the code.
    pub(crate) fn shown_for(&mut self, number: u64) -> Result<Vec<u8>, ServerError> {
        let (_, waiting) =
            self.waiting(|waiting| waiting.entry.as_ref().is_some_and(|entry| entry.number == number))?;
        Ok(waiting.entry.as_ref().map(|entry| entry.wrapped.clone()).unwrap_or_default())
    }

    /// The code is typed into the phone of a number. How it ends is told when the device has answered.
    pub(crate) fn type_code(
        &mut self,
        number: u64,
        attempt: Attempt,
    ) -> Result<oneshot::Receiver<Result<DeviceId, ServerError>>, ServerError> {
        let identity = keys::public(&self.open(number).phone.identity);
        let (connection, waiting) =
            self.waiting(|waiting| waiting.entry.as_ref().is_some_and(|entry| entry.number == number))?;
        let entry = waiting.entry.as_mut().ok_or(ServerError::NobodyWaits)?;
        let (outcome, told) = oneshot::channel();
        let Attempt { ephemeral, theirs, wrapped } = attempt;
        entry.typed = Some(Typed { ephemeral, theirs, outcome });
        let hello = NodeBuilder::new(TAG)
            .attr("stage", "primary_hello")
            .children([
                node::holding("link_code_pairing_wrapped_primary_ephemeral_pub", wrapped),
                node::holding("primary_identity_pub", identity.to_vec()),
                node::holding("link_code_pairing_ref", entry.reference.clone()),
            ])
            .build();
        self.put(connection, Out::Stanza(notification(format!("code-{connection}"), hello)));
        Ok(told)
    }

    /// The code that a device shows for a number is worth nothing any more, and it is told to show another one.
    pub(crate) fn spend_code(&mut self, number: u64) -> Result<(), ServerError> {
        let (connection, waiting) =
            self.waiting(|waiting| waiting.entry.as_ref().is_some_and(|entry| entry.number == number))?;
        let entry = waiting.entry.take().ok_or(ServerError::NobodyWaits)?;
        let spent = NodeBuilder::new(TAG)
            .attr("stage", "refresh_code")
            .children([node::holding("link_code_pairing_ref", entry.reference)])
            .build();
        let id = format!("spent-{}", self.fresh());
        self.put(connection, Out::Stanza(notification(id, spent)));
        Ok(())
    }

    /// The device has answered. If the phone can open it, the code was right.
    pub(crate) fn code_answered(&mut self, connection: u64, id: &str, child: &NodeRef<'_>) {
        let bundle = node::bytes(child, "link_code_pairing_wrapped_key_bundle").unwrap_or_default().to_vec();
        self.put(connection, Out::Stanza(node::result(id).build()));
        let Ok((_, waiting)) = self.waiting_on(connection) else { return };
        let Some(entry) = waiting.entry.as_mut() else { return };
        let number = entry.number;
        let Some(Typed { ephemeral, theirs, outcome }) = entry.typed.take() else { return };
        let identity = self.open(number).phone.identity.clone();
        let linked = match secret(&ephemeral, &identity, &theirs, &bundle) {
            Some(secret) => self.link(connection, number, &secret),
            None => Err(ServerError::Code),
        };
        let _ = outcome.send(linked);
    }
}

fn notification(id: String, child: Node) -> Node {
    NodeBuilder::new("notification")
        .attr("from", node::SERVER)
        .attr("type", TAG)
        .attr("id", id)
        .attr("t", node::now().to_string())
        .children([child])
        .build()
}

/// The secret that both sides come to, if the bundle opens.
fn secret(ephemeral: &KeyPair, identity: &KeyPair, theirs: &Key, bundle: &[u8]) -> Option<[u8; 32]> {
    let (salt, rest) = bundle.split_at_checked(32)?;
    let (nonce, sealed) = rest.split_at_checked(12)?;
    let agree = |own: &KeyPair, theirs: &[u8]| {
        let theirs = PublicKey::from_djb_public_key_bytes(theirs).ok()?;
        own.private_key.calculate_agreement(&theirs).ok()
    };
    let shared = agree(ephemeral, theirs)?;
    let mut key = [0; 32];
    hkdf_sha256_into(&shared, Some(salt), b"link_code_pairing_key_bundle_encryption_key", &mut key).ok()?;
    let mut opened = Vec::new();
    aes_256_gcm_decrypt(&key, nonce.try_into().ok()?, b"", sealed, &mut opened).ok()?;
    // What is in it: the device's identity, the phone's, and random bytes.
    let mut material = shared.to_vec();
    material.extend_from_slice(&agree(identity, opened.get(..32)?)?);
    material.extend_from_slice(opened.get(64..96)?);
    let mut secret = [0; 32];
    hkdf_sha256_into(&material, None, b"adv_secret", &mut secret).ok()?;
    Some(secret)
}
