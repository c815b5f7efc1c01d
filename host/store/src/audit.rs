//! The audit inside the writer's transaction: lines in the order of their commits, each bound to all that came before it.
//!
//! ```text
//! line n = link (32), entry's id (16), envelope under the organisation's key
//! link n = SHA-256(CHAINED, org, n, link n-1, entry's id, envelope)
//! ```
//!
//! A link covers what is sealed, not what it says, so a chain can be verified by whoever has the lines and no key, and still after
//! the key is destroyed. Lines are only ever appended. The last number and link of each organisation are a row of their own, so that
//! lines which are cut off at the end are missed.

use std::collections::HashMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use portcullis_core::{AuditEntry, OrgId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::StoreFault;
use crate::seal::{DataKey, Hashes, hex};
use crate::step::SealedEntry;
use crate::tables::{self, Tables, key, number, part};

/// Bytes before the envelope of a line.
pub(crate) const HEAD: usize = 32 + 16;
/// What a link is a digest of begins so.
const CHAINED: &[u8] = b"portcullis audit 1\n";

/// The last line of a chain: its number, 0 if there is none, and its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainEnd {
    /// The number.
    pub number: u64,
    /// The link; zeros if there is no line.
    pub link: [u8; 32],
}

impl ChainEnd {
    /// The link of the line after this one.
    #[must_use]
    pub fn next(self, org: OrgId, id: [u8; 16], envelope: &[u8]) -> Self {
        let number = self.number + 1;
        let digest = Sha256::new()
            .chain_update(CHAINED)
            .chain_update(org.to_bytes())
            .chain_update(number.to_be_bytes())
            .chain_update(self.link)
            .chain_update(id)
            .chain_update(envelope);
        Self { number, link: digest.finalize().into() }
    }

    /// The link in hexadecimal, as it is told.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&self.link)
    }

    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        Some(Self { number: number(value, 0)?, link: part(value, 8)? })
    }
}

/// The ends of chains, as far as this batch has asked or changed them.
#[derive(Default)]
pub(crate) struct Chains {
    known: HashMap<OrgId, ChainEnd>,
}

impl Chains {
    /// Appends an entry to its organisation's chain; the number of its line.
    pub(crate) fn append(&mut self, tables: &mut Tables<'_>, entry: &SealedEntry) -> Result<u64, StoreFault> {
        let org = entry.org.to_bytes();
        let end = match self.known.get(&entry.org) {
            Some(end) => *end,
            None => tables.audit_ends.get(&org)?.and_then(|end| ChainEnd::parse(end.value())).unwrap_or_default(),
        };
        let end = end.next(entry.org, entry.id, &entry.envelope);
        let row = key(&[&org, &end.number.to_be_bytes()]);
        tables.audit.insert(&row, &key(&[&end.link, &entry.id, &entry.envelope]))?;
        self.known.insert(entry.org, end);
        Ok(end.number)
    }

    /// Seals an entry under its organisation's key and appends it; the number of its line.
    pub(crate) fn put(
        &mut self,
        tables: &mut Tables<'_>,
        data_key: &DataKey,
        entry: &AuditEntry,
    ) -> Result<u64, StoreFault> {
        let (org, id) = (entry.org, entry.id.to_bytes());
        let plain = serde_json::to_vec(entry).map_err(StoreFault::of("encoding a line of the audit"))?;
        let bound = key(&[&org.to_bytes(), &id]);
        let envelope = data_key.seal(tables::name(tables::AUDIT), &bound, &[], &plain)?;
        self.append(tables, &SealedEntry { org, id, envelope })
    }

    /// An organisation is gone with its chain, and a new one of the same id would begin anew.
    pub(crate) fn forget_org(&mut self, org: OrgId) {
        self.known.remove(&org);
    }

    /// Makes the ends those of the store.
    pub(crate) fn write(&self, tables: &mut Tables<'_>) -> Result<(), StoreFault> {
        for (org, end) in &self.known {
            tables.audit_ends.insert(&org.to_bytes(), &key(&[&end.number.to_be_bytes(), &end.link]))?;
        }
        Ok(())
    }
}

/// Signs receipts and the ends of exported audits, with a key that is derived from the master key and always the same.
pub struct Signer {
    pair: Ed25519KeyPair,
}

impl Signer {
    pub(crate) fn new(hashes: &Hashes) -> Self {
        let seed = Zeroizing::new(hashes.lent("receipts"));
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).expect("32 bytes are a seed");
        Self { pair }
    }

    /// The signature of a text, in base64.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> String {
        BASE64_STANDARD.encode(self.pair.sign(text))
    }

    /// The public key by which signatures are verified, in base64.
    #[must_use]
    pub fn public_key(&self) -> String {
        BASE64_STANDARD.encode(self.pair.public_key())
    }
}
