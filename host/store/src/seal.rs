//! Sealing: how text becomes bytes that only a living key opens.
//!
//! ```text
//! value    = head, envelope
//! envelope = scope (1), slot generation (4), nonce (24), ciphertext, tag (16)
//! ```
//!
//! The cipher is XChaCha20-Poly1305. Its nonce is long enough to be drawn at random for every row, however many rows a key seals.
//! Additional data are the table's name, the bytes that the row is bound to (its key, with few exceptions that
//! [`crate::tables`] names), the scope and the generation: a row that is moved to another place does not open.
//!
//! The master key is never used itself, nor is the root of the key file's header, which outlives it. What is used is derived from
//! them by HMAC-SHA256 under a label for each purpose.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use portcullis_core::{OrgId, PluginId, Secret};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::StoreFault;

/// A secret of 256 bits that is wiped when it goes.
pub(crate) type SecretBytes = Zeroizing<[u8; 32]>;

/// Bytes of an envelope before the ciphertext.
const BEFORE: usize = 1 + 4 + 24;
const TAG: usize = 16;
/// How much longer an envelope is than what it holds.
pub(crate) const OVERHEAD: usize = BEFORE + TAG;

/// Whose key seals an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Scope {
    Org = 0,
    Session = 1,
}

/// The key of one organisation or one session.
pub(crate) struct DataKey {
    pub(crate) secret: SecretBytes,
    pub(crate) scope: Scope,
    /// The slot of the key file that holds it.
    pub(crate) slot: u32,
    /// How often that slot had been given out when this key was put there.
    pub(crate) generation: u32,
}

impl DataKey {
    /// The row `head, envelope` for `table`, bound to `bound`.
    pub(crate) fn seal(&self, table: &str, bound: &[u8], head: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreFault> {
        self.seal_written(table, bound, head, plain.len(), |value| {
            value.extend_from_slice(plain);
            Ok(())
        })
    }

    /// Such a row of what is yet to be written, which will be about `expected` bytes: it is sealed where it is written.
    pub(crate) fn seal_written<E: From<StoreFault>>(
        &self,
        table: &str,
        bound: &[u8],
        head: &[u8],
        expected: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Vec<u8>, E> {
        let mut nonce = [0; 24];
        random(&mut nonce)?;
        let mut value = Vec::with_capacity(head.len() + OVERHEAD + expected);
        value.extend_from_slice(head);
        value.push(self.scope as u8);
        value.extend_from_slice(&self.generation.to_be_bytes());
        value.extend_from_slice(&nonce);
        let body = value.len();
        write(&mut value)?;
        let tag = XChaCha20Poly1305::new((&*self.secret).into())
            .encrypt_inout_detached(&nonce.into(), &self.bound(table, bound), (&mut value[body..]).into())
            .map_err(|_too_long| StoreFault::of("sealing a row")(TooLong))?;
        value.extend_from_slice(&tag);
        Ok(value)
    }

    /// What the envelope holds; `None` if it was not sealed by this key for this place.
    pub(crate) fn open(&self, table: &str, bound: &[u8], envelope: &Envelope<'_>) -> Option<Vec<u8>> {
        if envelope.scope != self.scope || envelope.generation != self.generation {
            return None;
        }
        let mut plain = envelope.body.to_vec();
        XChaCha20Poly1305::new((&*self.secret).into())
            .decrypt_inout_detached(&envelope.nonce, &self.bound(table, bound), (&mut plain[..]).into(), &envelope.tag)
            .ok()?;
        Some(plain)
    }

    fn bound(&self, table: &str, bound: &[u8]) -> Vec<u8> {
        [table.as_bytes(), &[0, self.scope as u8], &self.generation.to_be_bytes(), bound].concat()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the row is longer than the cipher allows")]
struct TooLong;

/// An envelope, taken apart.
pub(crate) struct Envelope<'a> {
    pub(crate) scope: Scope,
    pub(crate) generation: u32,
    nonce: XNonce,
    body: &'a [u8],
    tag: Tag,
}

impl<'a> Envelope<'a> {
    /// Takes apart what follows a value's head; `None` if it is no envelope.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (before, rest) = bytes.split_at_checked(BEFORE)?;
        let (body, tag) = rest.split_at_checked(rest.len().checked_sub(TAG)?)?;
        let scope = match before[0] {
            0 => Scope::Org,
            1 => Scope::Session,
            _ => return None,
        };
        Some(Self {
            scope,
            generation: u32::from_be_bytes(before[1..5].try_into().ok()?),
            nonce: XNonce::try_from(&before[5..]).ok()?,
            body,
            tag: Tag::try_from(tag).ok()?,
        })
    }
}

/// Keyed hashes, under which text is found again that must not stand in clear.
/// Without the root they can be neither made nor guessed at; and the root is sealed under the master key.
#[derive(Clone)]
pub(crate) struct Hashes {
    index: Hmac<Sha256>,
    /// For keys that others than the store use.
    lent: Hmac<Sha256>,
}

impl Hashes {
    pub(crate) fn new(root: &SecretBytes) -> Self {
        let from = |label| keyed(&derive(root, label));
        Self { index: from("portcullis index key 1"), lent: from("portcullis lending key 1") }
    }

    /// A key for what stands outside the store. Other purposes have other keys, and no key tells of another.
    pub(crate) fn lent(&self, purpose: &str) -> [u8; 32] {
        let mut mac = self.lent.clone();
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// The hash of an instance name within an organisation.
    pub(crate) fn instance_name(&self, org: OrgId, name: &str) -> [u8; 16] {
        self.short("instance-name", &org.to_bytes(), name.as_bytes())
    }

    /// The hash of a plugin's name within an organisation.
    pub(crate) fn plugin_name(&self, org: OrgId, name: &str) -> [u8; 16] {
        self.short("plugin-name", &org.to_bytes(), name.as_bytes())
    }

    /// The hash of a plugin's own key, for its values and its timers.
    pub(crate) fn plugin_key(&self, org: OrgId, plugin: PluginId, key: &str) -> [u8; 16] {
        self.short("plugin-key", &[org.to_bytes(), plugin.to_bytes()].concat(), key.as_bytes())
    }

    /// The hash of the name of a row of an engine's; those name the people whom a session talks to.
    pub(crate) fn device_name(&self, session: [u8; 16], kind: u8, name: &[u8]) -> [u8; 16] {
        self.short("device-name", &[&session[..], &[kind]].concat(), name)
    }

    /// The hash of a counter's name.
    pub(crate) fn counter(&self, org: OrgId, counter: &str) -> [u8; 16] {
        self.short("counter", &org.to_bytes(), counter.as_bytes())
    }

    /// The hash of an idempotency key.
    pub(crate) fn idempotency(&self, org: OrgId, key: &str) -> [u8; 16] {
        self.short("idempotency", &org.to_bytes(), key.as_bytes())
    }

    /// The hash of the id that an organisation gave to a fact.
    pub(crate) fn fact(&self, org: OrgId, id: &str) -> [u8; 16] {
        self.short("fact", &org.to_bytes(), id.as_bytes())
    }

    /// The hash of what a fact says.
    pub(crate) fn fact_content(&self, org: OrgId, content: &[u8]) -> [u8; 16] {
        self.short("fact-content", &org.to_bytes(), content)
    }

    /// The hash of the name of a plugin's secret.
    pub(crate) fn secret_name(&self, org: OrgId, plugin: PluginId, name: &str) -> [u8; 16] {
        self.short("secret-name", &[org.to_bytes(), plugin.to_bytes()].concat(), name.as_bytes())
    }

    /// The hash of a confirmation token's hash.
    pub(crate) fn confirmation(&self, org: OrgId, hash: &[u8; 32]) -> [u8; 32] {
        self.full("confirmation", &org.to_bytes(), hash)
    }

    /// The hash of an API key's hash.
    pub(crate) fn api_key(&self, hash: &[u8; 32]) -> [u8; 32] {
        self.full("api-key", &[], hash)
    }

    /// The hash of a session's token, the same in every organisation.
    pub(crate) fn session_token(&self, token: &Secret) -> [u8; 32] {
        self.full("session-token", &[], token.reveal().as_bytes())
    }

    fn short(&self, purpose: &str, scope: &[u8], text: &[u8]) -> [u8; 16] {
        let mut short = [0; 16];
        short.copy_from_slice(&self.full(purpose, scope, text)[..16]);
        short
    }

    /// `scope` has a fixed length for each purpose, so that no two inputs run together.
    fn full(&self, purpose: &str, scope: &[u8], text: &[u8]) -> [u8; 32] {
        let mut mac = self.index.clone();
        for part in [purpose.as_bytes(), &[0], scope, text] {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// A secret for one purpose, derived from the master key or the root.
pub(crate) fn derive(from: &SecretBytes, label: &str) -> SecretBytes {
    let mut mac = keyed(from);
    mac.update(label.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The MAC of some bytes.
pub(crate) fn mac(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

/// Fills `bytes` with random ones.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), StoreFault> {
    getrandom::fill(bytes).map_err(StoreFault::of("asking the system for random numbers"))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn keyed(secret: &SecretBytes) -> Hmac<Sha256> {
    Hmac::new_from_slice(&**secret).expect("HMAC takes keys of every length")
}

#[cfg(test)]
mod test {
    use super::*;

    fn data_key(byte: u8, generation: u32) -> DataKey {
        DataKey { secret: Zeroizing::new([byte; 32]), scope: Scope::Session, slot: 0, generation }
    }

    #[test]
    fn a_row_opens_only_where_and_as_it_was_sealed() {
        let key = data_key(1, 3);
        let value = key.seal("sessions-1", b"place", b"head", b"a phone number").expect("sealed");
        assert!(!value.windows(5).any(|window| window == b"phone"));
        let envelope = Envelope::parse(&value[4..]).expect("an envelope");
        assert_eq!(key.open("sessions-1", b"place", &envelope).as_deref(), Some(&b"a phone number"[..]));
        assert_eq!(key.open("sessions-1", b"other", &envelope), None);
        assert_eq!(key.open("devices-2", b"place", &envelope), None);
        assert_eq!(data_key(2, 3).open("sessions-1", b"place", &envelope), None);
        assert_eq!(data_key(1, 4).open("sessions-1", b"place", &envelope), None);
        for at in 4..value.len() {
            let mut torn = value.clone();
            torn[at] ^= 1;
            let opened = Envelope::parse(&torn[4..]).and_then(|envelope| key.open("sessions-1", b"place", &envelope));
            assert_eq!(opened, None, "byte {at} is not covered");
        }
    }

    #[test]
    fn what_is_too_short_is_no_envelope() {
        for length in 0..OVERHEAD {
            assert!(Envelope::parse(&vec![0; length]).is_none());
        }
        assert!(Envelope::parse(&[0; OVERHEAD]).is_some());
    }

    #[test]
    fn hashes_differ_by_purpose_organisation_and_root() {
        let hashes = Hashes::new(&Zeroizing::new([1; 32]));
        let (a, b) = (OrgId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        assert_eq!(hashes.instance_name(a, "sales"), hashes.instance_name(a, "sales"));
        assert_ne!(hashes.instance_name(a, "sales"), hashes.instance_name(b, "sales"));
        assert_ne!(hashes.instance_name(a, "sales"), hashes.plugin_name(a, "sales"));
        assert_ne!(hashes.instance_name(a, "sales"), Hashes::new(&Zeroizing::new([2; 32])).instance_name(a, "sales"));
    }
}
