//! The server's half of the Noise handshake: XX for strangers, IK for those who know the server's key, and XXfallback
//! for those who are wrong about it.

use serde::{Deserialize, Serialize};
use whatsapp_rust::buffa::{Message as _, MessageField};
use whatsapp_rust::wacore::handshake::NoiseHandshake;
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore::noise::NoiseCipher;
use whatsapp_rust::wacore_binary::consts::{
    NOISE_PATTERN_IK, NOISE_PATTERN_XX, NOISE_PATTERN_XXFALLBACK, WA_CONN_HEADER,
};
use whatsapp_rust::waproto::whatsapp::cert_chain::NoiseCertificate;
use whatsapp_rust::waproto::whatsapp::cert_chain::noise_certificate::Details;
use whatsapp_rust::waproto::whatsapp::handshake_message::ServerHello;
use whatsapp_rust::waproto::whatsapp::{CertChain, HandshakeMessage};

use crate::keys::{self, Key};
use crate::node;

/// How a connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The client knew nothing of the server.
    Xx,
    /// The client knew the server's key.
    Ik,
    /// The client knew a key that is not the server's.
    Fallback,
}

/// What the server shows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certificate {
    /// A chain that binds the server's key, under a root of its own.
    #[default]
    Good,
    /// A chain of the right form that binds another key.
    Bad,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the hello is none")]
    Hello,
    #[error("the finish is none")]
    Finish,
    #[error("the ciphers do not agree")]
    Cipher,
}

/// The server's key and the chain that speaks for it.
pub(crate) struct Identity {
    pair: KeyPair,
    chain: Vec<u8>,
}

/// A handshake that is over.
pub(crate) struct Finished {
    pub(crate) mode: Mode,
    pub(crate) client: Key,
    pub(crate) payload: Vec<u8>,
    pub(crate) read: NoiseCipher,
    pub(crate) write: NoiseCipher,
}

/// What to answer to a hello.
pub(crate) enum Answer {
    /// The answer, after which the connection stands.
    Done(Vec<u8>, Finished),
    /// The answer, after which the client has to finish.
    More(Vec<u8>, Unfinished),
}

/// A handshake that waits for its third message.
pub(crate) struct Unfinished {
    mode: Mode,
    noise: NoiseHandshake,
    ephemeral: KeyPair,
}

impl Identity {
    pub(crate) fn new(certificate: Certificate) -> Self {
        let pair = fresh();
        let shown = match certificate {
            Certificate::Good => keys::public(&pair),
            Certificate::Bad => keys::public(&fresh()),
        };
        Self { chain: chain(&shown), pair }
    }

    pub(crate) fn answer(&self, hello: &[u8]) -> Result<Answer, HandshakeError> {
        let hello = HandshakeMessage::decode_from_slice(hello).map_err(|_| HandshakeError::Hello)?;
        let hello = hello.client_hello.into_option().ok_or(HandshakeError::Hello)?;
        let theirs = hello.ephemeral.as_deref().and_then(keys::key).ok_or(HandshakeError::Hello)?;
        let (Some(sealed_key), Some(sealed_payload)) = (hello.r#static, hello.payload) else {
            return self.introduce(Mode::Xx, &theirs).map_err(|_| HandshakeError::Cipher);
        };
        match self.recognise(&theirs, &sealed_key, &sealed_payload) {
            Ok(answer) => Ok(answer),
            Err(_) => self.introduce(Mode::Fallback, &theirs).map_err(|_| HandshakeError::Cipher),
        }
    }

    /// IK: whoever knows the server's key has said everything in the first message.
    fn recognise(&self, theirs: &Key, sealed_key: &[u8], sealed_payload: &[u8]) -> Result<Answer, HandshakeError> {
        let cipher = |_| HandshakeError::Cipher;
        let own = self.pair.private_key.serialize();
        let ephemeral = fresh();
        let mut noise = NoiseHandshake::new(NOISE_PATTERN_IK, &WA_CONN_HEADER).map_err(cipher)?;
        noise.authenticate(&keys::public(&self.pair));
        noise.authenticate(theirs);
        noise.mix_shared_secret(own, theirs).map_err(cipher)?;
        let client = keys::key(&noise.decrypt(sealed_key).map_err(cipher)?).ok_or(HandshakeError::Hello)?;
        noise.mix_shared_secret(own, &client).map_err(cipher)?;
        let payload = noise.decrypt(sealed_payload).map_err(cipher)?;
        noise.authenticate(&keys::public(&ephemeral));
        noise.mix_shared_secret(ephemeral.private_key.serialize(), theirs).map_err(cipher)?;
        noise.mix_shared_secret(ephemeral.private_key.serialize(), &client).map_err(cipher)?;
        let chain = noise.encrypt(&self.chain).map_err(cipher)?;
        let hello = hello(&ephemeral, None, chain);
        let (read, write) = noise.finish().map_err(cipher)?;
        Ok(Answer::Done(hello, Finished { mode: Mode::Ik, client, payload, read, write }))
    }

    /// XX: the server says who it is, and learns it of the client from the third message.
    fn introduce(&self, mode: Mode, theirs: &Key) -> Result<Answer, HandshakeError> {
        let cipher = |_| HandshakeError::Cipher;
        let pattern = if mode == Mode::Fallback { NOISE_PATTERN_XXFALLBACK } else { NOISE_PATTERN_XX };
        let ephemeral = fresh();
        let mut noise = NoiseHandshake::new(pattern, &WA_CONN_HEADER).map_err(cipher)?;
        noise.authenticate(theirs);
        noise.authenticate(&keys::public(&ephemeral));
        noise.mix_shared_secret(ephemeral.private_key.serialize(), theirs).map_err(cipher)?;
        let own = noise.encrypt(&keys::public(&self.pair)).map_err(cipher)?;
        noise.mix_shared_secret(self.pair.private_key.serialize(), theirs).map_err(cipher)?;
        let chain = noise.encrypt(&self.chain).map_err(cipher)?;
        Ok(Answer::More(hello(&ephemeral, Some(own), chain), Unfinished { mode, noise, ephemeral }))
    }
}

impl Unfinished {
    pub(crate) fn finish(mut self, message: &[u8]) -> Result<Finished, HandshakeError> {
        let cipher = |_| HandshakeError::Cipher;
        let message = HandshakeMessage::decode_from_slice(message).map_err(|_| HandshakeError::Finish)?;
        let finish = message.client_finish.into_option().ok_or(HandshakeError::Finish)?;
        let (Some(key), Some(payload)) = (finish.r#static, finish.payload) else { return Err(HandshakeError::Finish) };
        let client = keys::key(&self.noise.decrypt(&key).map_err(cipher)?).ok_or(HandshakeError::Finish)?;
        self.noise.mix_shared_secret(self.ephemeral.private_key.serialize(), &client).map_err(cipher)?;
        let payload = self.noise.decrypt(&payload).map_err(cipher)?;
        let (read, write) = self.noise.finish().map_err(cipher)?;
        Ok(Finished { mode: self.mode, client, payload, read, write })
    }
}

fn fresh() -> KeyPair {
    KeyPair::generate(&mut rand::rng())
}

fn hello(ephemeral: &KeyPair, own: Option<Vec<u8>>, chain: Vec<u8>) -> Vec<u8> {
    let hello = ServerHello {
        ephemeral: Some(keys::public(ephemeral).to_vec()),
        r#static: own,
        payload: Some(chain),
        ..Default::default()
    };
    HandshakeMessage { server_hello: MessageField::some(hello), ..Default::default() }.encode_to_vec()
}

/// A chain as WhatsApp's: a root that is in no chain, an intermediate, and the leaf that holds the server's key. The
/// validity includes today, without which no client keeps the key for IK.
fn chain(server: &Key) -> Vec<u8> {
    const DAY: u64 = 86_400;
    let (root, intermediate) = (fresh(), fresh());
    let details = |serial: u32, issuer: u32, key: &Key| {
        Details {
            serial: Some(serial),
            issuer_serial: Some(issuer),
            key: Some(key.to_vec()),
            not_before: Some(node::now() - DAY),
            not_after: Some(node::now() + 365 * DAY),
        }
        .encode_to_vec()
    };
    let signed = |by: &KeyPair, details: Vec<u8>| {
        let signature = by.private_key.calculate_signature(&details, &mut rand::rng()).expect("a fresh key signs");
        MessageField::some(NoiseCertificate { details: Some(details), signature: Some(signature.to_vec()) })
    };
    CertChain {
        leaf: signed(&intermediate, details(2, 1, server)),
        intermediate: signed(&root, details(1, 0, &keys::public(&intermediate))),
    }
    .encode_to_vec()
}
