//! The public keys that a device leaves with the server, so that others can write to it while it is away.

use std::collections::BTreeMap;

use whatsapp_rust::wacore::libsignal::protocol::{
    IdentityKey, KeyPair, PreKeyBundle, PreKeyId, PublicKey, SignalProtocolError, SignedPreKeyId,
};
use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node, NodeRef};
use whatsapp_rust::waproto::whatsapp::client_payload::DevicePairingRegistrationData;

use crate::node;

/// A public key without the byte that says its kind.
pub(crate) type Key = [u8; 32];

/// Keys that serve one first message each, by their ids. An upload of 812 is some 30 KiB.
pub(crate) type OneTimeKeys = BTreeMap<u32, Key>;

/// What others need to begin a Signal session, except a one-time key.
#[derive(Clone)]
pub(crate) struct KeyBundle {
    pub(crate) registration: u32,
    pub(crate) identity: Key,
    pub(crate) signed_id: u32,
    pub(crate) signed: Key,
    pub(crate) signature: Vec<u8>,
}

/// The 32 bytes of a pair's public half.
pub(crate) fn public(pair: &KeyPair) -> Key {
    key(pair.public_key.public_key_bytes()).expect("a public key has 32 bytes")
}

/// A key as it comes over the wire, with or without the byte that says its kind.
pub(crate) fn key(bytes: &[u8]) -> Option<Key> {
    let bytes = if bytes.len() == 33 { &bytes[1..] } else { bytes };
    bytes.try_into().ok()
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
}

impl KeyBundle {
    /// What a device says about itself when it asks to be paired.
    pub(crate) fn registered(data: &DevicePairingRegistrationData) -> Option<Self> {
        Some(Self {
            registration: number(data.e_regid.as_deref()?),
            identity: key(data.e_ident.as_deref()?)?,
            signed_id: number(data.e_skey_id.as_deref()?),
            signed: key(data.e_skey_val.as_deref()?)?,
            signature: data.e_skey_sig.clone()?,
        })
    }

    /// What a device uploads, or sends along with a request to be told something again.
    pub(crate) fn uploaded(from: &NodeRef<'_>, registration: &[u8]) -> Option<Self> {
        let signed = from.get_optional_child("skey")?;
        Some(Self {
            registration: number(registration),
            identity: key(node::bytes(from, "identity")?)?,
            signed_id: number(node::bytes(signed, "id")?),
            signed: key(node::bytes(signed, "value")?)?,
            signature: node::bytes(signed, "signature")?.to_vec(),
        })
    }

    /// Takes over a new signed key.
    pub(crate) fn rotate(&mut self, signed: &NodeRef<'_>) -> Option<()> {
        self.signed_id = number(node::bytes(signed, "id")?);
        self.signed = key(node::bytes(signed, "value")?)?;
        self.signature = node::bytes(signed, "signature")?.to_vec();
        Some(())
    }

    /// As one beginning a session takes it.
    pub(crate) fn signal(&self, device: u16, once: Option<(u32, Key)>) -> Result<PreKeyBundle, SignalProtocolError> {
        let public = |key: &Key| PublicKey::from_djb_public_key_bytes(key);
        let once = match once {
            Some((id, key)) => Some((PreKeyId::from(id), public(&key)?)),
            None => None,
        };
        PreKeyBundle::new(
            self.registration,
            u32::from(device).into(),
            once,
            SignedPreKeyId::from(self.signed_id),
            public(&self.signed)?,
            self.signature.clone(),
            IdentityKey::new(public(&self.identity)?),
        )
    }

    /// The children of a `<user>` that somebody asked the keys of, and of `<keys>` in a request for a repetition.
    pub(crate) fn nodes(&self, once: Option<(u32, Key)>) -> Vec<Node> {
        let mut nodes = vec![
            node::holding("type", vec![5]),
            node::holding("identity", self.identity.to_vec()),
            NodeBuilder::new("skey")
                .children([
                    node::holding("id", three(self.signed_id)),
                    node::holding("value", self.signed.to_vec()),
                    node::holding("signature", self.signature.clone()),
                ])
                .build(),
        ];
        if let Some((id, key)) = once {
            let parts = [node::holding("id", three(id)), node::holding("value", key.to_vec())];
            nodes.push(NodeBuilder::new("key").children(parts).build());
        }
        nodes
    }

    /// The answer to somebody who asked for the keys of a device.
    pub(crate) fn user(&self, of: &Jid, once: Option<(u32, Key)>, identity: Option<&[u8]>) -> Node {
        let mut nodes = vec![node::holding("registration", self.registration.to_be_bytes().to_vec())];
        nodes.extend(self.nodes(once));
        nodes.extend(identity.map(|identity| node::holding("device-identity", identity.to_vec())));
        NodeBuilder::new("user").attr("jid", of.clone()).children(nodes).build()
    }
}

/// The one-time keys of an upload.
pub(crate) fn one_time(upload: &NodeRef<'_>) -> OneTimeKeys {
    let Some(list) = upload.get_optional_child("list") else { return OneTimeKeys::new() };
    list.get_children_by_tag("key")
        .filter_map(|each| Some((number(node::bytes(each, "id")?), key(node::bytes(each, "value")?)?)))
        .collect()
}

/// The one-time key of a request for a repetition.
pub(crate) fn single(keys: &NodeRef<'_>) -> Option<(u32, Key)> {
    let each = keys.get_optional_child("key")?;
    Some((number(node::bytes(each, "id")?), key(node::bytes(each, "value")?)?))
}

fn three(id: u32) -> Vec<u8> {
    id.to_be_bytes()[1..].to_vec()
}
