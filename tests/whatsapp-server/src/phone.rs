//! A phone: the primary device of an account. It holds the account's identity, speaks Signal for real with linked
//! devices, and links them.
//!
//! Its stores live in memory and never wait, so what libsignal offers as futures is done at the first poll.

use std::collections::HashMap;

use async_trait::async_trait;
use futures_util::FutureExt;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::wacore::libsignal::protocol::{
    self as signal, CiphertextMessage, Direction, GenericSignedPreKey, IdentityChange, IdentityKey, IdentityKeyPair,
    IdentityKeyStore, KeyPair, PreKeyId, PreKeyRecord, PreKeySignalMessage, PreKeyStore, ProtocolAddress,
    SenderKeyDistributionMessage, SenderKeyName, SenderKeyRecord, SenderKeyStore, SessionRecord, SessionStore,
    SignalMessage, SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, SignedPreKeyStore, Timestamp, UsePQRatchet,
};
use whatsapp_rust::wacore::messages::MessageUtils;
use whatsapp_rust::wacore::types::jid::JidExt as _;
use whatsapp_rust::wacore_binary::Jid;
use whatsapp_rust::waproto::whatsapp as wa;

use crate::keys::{self, Key, KeyBundle};

/// Why a phone could not write or read a message.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// The keys of the other device begin no session.
    #[error("the keys of the device begin no session")]
    Meet(#[source] SignalProtocolError),
    /// Something was not encrypted.
    #[error("the message could not be encrypted")]
    Encrypt(#[source] SignalProtocolError),
    /// Something was not decrypted.
    #[error("the message could not be decrypted")]
    Decrypt(#[source] SignalProtocolError),
    /// It was decrypted, and is no message.
    #[error("what was decrypted is no message")]
    Content,
    /// A ciphertext of a kind that phones do not read.
    #[error("the ciphertext is of an unknown kind")]
    Kind,
}

/// An encrypted message and the kind that its `<enc>` names.
pub(crate) struct Sealed {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// The primary device of an account.
pub(crate) struct Phone {
    pub(crate) identity: KeyPair,
    pub(crate) bundle: KeyBundle,
    own: Own,
    sessions: Sessions,
    once: OneTime,
    signed: Signed,
    groups: Groups,
}

impl Phone {
    pub(crate) fn new() -> Self {
        let mut random = rand::rng();
        let identity = KeyPair::generate(&mut random);
        let signed = KeyPair::generate(&mut random);
        let signature = identity
            .private_key
            .calculate_signature(&signed.public_key.serialize(), &mut random)
            .expect("a fresh key signs");
        let registration = (rand::random::<u32>() & 0x3fff) + 1;
        let record =
            SignedPreKeyRecord::new(SignedPreKeyId::from(1), Timestamp::from_epoch_millis(0), &signed, &signature);
        let bundle = KeyBundle {
            registration,
            identity: keys::public(&identity),
            signed_id: 1,
            signed: keys::public(&signed),
            signature: signature.to_vec(),
        };
        let own = Own { pair: identity.clone(), registration, known: HashMap::new() };
        let (sessions, once, groups) = (Sessions::default(), OneTime::default(), Groups::default());
        Self { identity, bundle, own, sessions, once, signed: Signed(record), groups }
    }

    /// A one-time key of the phone's own, for a device that has to begin anew.
    pub(crate) fn offer(&mut self) -> (u32, Key) {
        let id = self.once.next + 1;
        let pair = KeyPair::generate(&mut rand::rng());
        self.once.next = id;
        self.once.records.insert(id, PreKeyRecord::new(PreKeyId::from(id), &pair));
        (id, keys::public(&pair))
    }

    pub(crate) fn knows(&self, device: &Jid) -> bool {
        self.sessions.0.contains_key(device.to_protocol_address().as_str())
    }

    /// Forgets the session with a device, so that the next message begins one.
    pub(crate) fn forget(&mut self, device: &Jid) {
        self.sessions.0.remove(device.to_protocol_address().as_str());
    }

    /// Begins a session with the keys of a device.
    pub(crate) fn meet(&mut self, device: &Jid, keys: &KeyBundle, once: Option<(u32, Key)>) -> Result<(), PhoneError> {
        let bundle = keys.signal(device.device, once).map_err(PhoneError::Meet)?;
        let address = device.to_protocol_address();
        let mut random = rand::make_rng::<rand::rngs::StdRng>();
        at_once(signal::process_prekey_bundle(
            &address,
            &mut self.sessions,
            &mut self.own,
            &bundle,
            &mut random,
            UsePQRatchet::No,
        ))
        .map(drop)
        .map_err(PhoneError::Meet)
    }

    pub(crate) fn encrypt(&mut self, to: &Jid, message: &wa::Message) -> Result<Sealed, PhoneError> {
        let plain = MessageUtils::encode_and_pad(message);
        let address = to.to_protocol_address();
        let sealed = at_once(signal::message_encrypt(&plain, &address, &mut self.sessions, &mut self.own))
            .map_err(PhoneError::Encrypt)?;
        match &sealed {
            CiphertextMessage::PreKeySignalMessage(m) => Ok(Sealed { kind: "pkmsg", bytes: m.serialized().to_vec() }),
            CiphertextMessage::SignalMessage(m) => Ok(Sealed { kind: "msg", bytes: m.serialized().to_vec() }),
            _ => Err(PhoneError::Kind),
        }
    }

    pub(crate) fn decrypt(&mut self, from: &Jid, kind: &str, sealed: &[u8]) -> Result<wa::Message, PhoneError> {
        let message = match kind {
            "pkmsg" => PreKeySignalMessage::try_from(sealed).map(CiphertextMessage::PreKeySignalMessage),
            "msg" => SignalMessage::try_from(sealed).map(CiphertextMessage::SignalMessage),
            _ => return Err(PhoneError::Kind),
        }
        .map_err(PhoneError::Decrypt)?;
        let address = from.to_protocol_address();
        let mut random = rand::make_rng::<rand::rngs::StdRng>();
        let plain = at_once(signal::message_decrypt(
            &message,
            &address,
            &mut self.sessions,
            &mut self.own,
            &mut self.once,
            &self.signed,
            &mut random,
            UsePQRatchet::No,
        ))
        .map_err(PhoneError::Decrypt)?;
        content(&plain.plaintext)
    }

    /// Learns with which key a device writes to a group, which it has sent to this phone alone.
    pub(crate) fn learn(&mut self, group: &Jid, from: &Jid, kind: &str, sealed: &[u8]) -> Result<(), PhoneError> {
        let message = self.decrypt(from, kind, sealed)?;
        let given = message.sender_key_distribution_message.as_option();
        let key = given.and_then(|given| given.axolotl_sender_key_distribution_message.as_deref());
        let key = SenderKeyDistributionMessage::try_from(key.ok_or(PhoneError::Content)?);
        let key = key.map_err(PhoneError::Decrypt)?;
        let name = writer(group, from);
        at_once(signal::process_sender_key_distribution_message(&name, &key, &mut self.groups))
            .map_err(PhoneError::Decrypt)
    }

    /// Reads what a device has written to a group.
    pub(crate) fn decrypt_in_group(
        &mut self,
        group: &Jid,
        from: &Jid,
        sealed: &[u8],
    ) -> Result<wa::Message, PhoneError> {
        let plain = at_once(signal::group_decrypt(sealed, &mut self.groups, &writer(group, from)));
        content(&plain.map_err(PhoneError::Decrypt)?)
    }
}

fn content(plain: &[u8]) -> Result<wa::Message, PhoneError> {
    let plain = MessageUtils::unpad_message_ref(plain, 2).map_err(|_| PhoneError::Content)?;
    wa::Message::decode_from_slice(plain).map_err(|_| PhoneError::Content)
}

/// Under which name a phone keeps the key of somebody who writes to a group.
fn writer(group: &Jid, from: &Jid) -> SenderKeyName {
    SenderKeyName::from_parts(&group.to_string(), from.to_protocol_address().as_str())
}

/// The text of a message, if it is one.
pub(crate) fn text(message: &wa::Message) -> Option<String> {
    let extended = || message.extended_text_message.as_option().and_then(|extended| extended.text.clone());
    message.conversation.clone().or_else(extended)
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("stores in memory never wait")
}

type Done<T> = Result<T, SignalProtocolError>;

struct Own {
    pair: KeyPair,
    registration: u32,
    known: HashMap<String, IdentityKey>,
}

#[derive(Default)]
struct Sessions(HashMap<String, SessionRecord>);

#[derive(Default)]
struct OneTime {
    next: u32,
    records: HashMap<u32, PreKeyRecord>,
}

struct Signed(SignedPreKeyRecord);

/// The keys of those who write to groups.
#[derive(Default)]
struct Groups(HashMap<String, SenderKeyRecord>);

#[async_trait]
impl IdentityKeyStore for Own {
    async fn get_identity_key_pair(&self) -> Done<IdentityKeyPair> {
        Ok(IdentityKeyPair::new(IdentityKey::new(self.pair.public_key), self.pair.private_key.clone()))
    }

    async fn get_local_registration_id(&self) -> Done<u32> {
        Ok(self.registration)
    }

    async fn save_identity(&mut self, address: &ProtocolAddress, identity: &IdentityKey) -> Done<IdentityChange> {
        self.known.insert(address.to_string(), *identity);
        Ok(IdentityChange::NewOrUnchanged)
    }

    async fn is_trusted_identity(&self, _: &ProtocolAddress, _: &IdentityKey, _: Direction) -> Done<bool> {
        Ok(true)
    }

    async fn get_identity(&self, address: &ProtocolAddress) -> Done<Option<IdentityKey>> {
        Ok(self.known.get(address.as_str()).copied())
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> Done<Option<SessionRecord>> {
        Ok(self.0.get(address.as_str()).cloned())
    }

    async fn has_session(&self, address: &ProtocolAddress) -> Done<bool> {
        Ok(self.0.contains_key(address.as_str()))
    }

    async fn store_session(&mut self, address: &ProtocolAddress, record: SessionRecord) -> Done<()> {
        self.0.insert(address.to_string(), record);
        Ok(())
    }
}

#[async_trait]
impl PreKeyStore for OneTime {
    async fn get_pre_key(&self, id: PreKeyId) -> Done<PreKeyRecord> {
        self.records.get(&u32::from(id)).cloned().ok_or(SignalProtocolError::InvalidPreKeyId)
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> Done<()> {
        self.records.insert(id.into(), record.clone());
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> Done<()> {
        self.records.remove(&u32::from(id));
        Ok(())
    }
}

#[async_trait]
impl SignedPreKeyStore for Signed {
    async fn get_signed_pre_key(&self, _: SignedPreKeyId) -> Done<SignedPreKeyRecord> {
        Ok(self.0.clone())
    }

    async fn save_signed_pre_key(&mut self, _: SignedPreKeyId, record: &SignedPreKeyRecord) -> Done<()> {
        self.0 = record.clone();
        Ok(())
    }
}

#[async_trait]
impl SenderKeyStore for Groups {
    async fn store_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord) -> Done<()> {
        self.0.insert(name.cache_key().to_owned(), record);
        Ok(())
    }

    async fn load_sender_key(&self, name: &SenderKeyName) -> Done<Option<SenderKeyRecord>> {
        Ok(self.0.get(name.cache_key()).cloned())
    }
}
