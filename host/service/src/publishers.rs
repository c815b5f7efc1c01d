//! Publishers: whose signatures on plugins count, and where a signature is needed.
//!
//! A signature is ed25519 over [`signed_text`], which names the format and the component's digest, so that it stands for nothing else.
//! It is checked when the component is uploaded. What is kept is who signed; the publisher must still be there when the version is bound.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use portcullis_core::{OperationKind, Org, OrgId, Permit, PluginRules, PluginVersion, Publisher, PublisherId};
use portcullis_store::{Commit, Expectation, Quota, QuotaKind, Snapshot, Write};

use crate::orgs::{admin_audit, check_name};
use crate::queries::expect;
use crate::{Call, Service, ServiceError, SignatureError, mint};

/// How many publishers an organisation may have.
const MAX_PUBLISHERS: u32 = 100;

/// What a new publisher is to be.
#[derive(Debug, Clone)]
pub struct NewPublisher {
    /// What people call it.
    pub name: String,
    /// Its ed25519 public key.
    pub public_key: Vec<u8>,
}

/// A signature that comes with a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Who is said to have signed.
    pub publisher: PublisherId,
    /// The 64 bytes, if it is one.
    pub bytes: Vec<u8>,
}

/// What is signed: the format's name and the component's SHA-256 in hexadecimal, a line each.
#[must_use]
pub fn signed_text(digest: &[u8; 32]) -> String {
    format!("portcullis-plugin-v1\n{}\n", hex(digest))
}

/// The y coordinates of the curve's points of small order, in hexadecimal; the last two are in a form that is not the shortest.
/// Under such a key, signatures can be made that hold for anything, without any private key.
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// Whether anybody can sign under a key.
fn has_low_order(key: &[u8; 32]) -> bool {
    let mut y = *key;
    // The highest bit is the sign of x.
    y[31] &= 0x7f;
    LOW_ORDER.contains(&hex(&y).as_str())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Service {
    /// Registers a publisher.
    ///
    /// # Errors
    /// If a value breaks its bounds, there are as many as there may be, or the store fails.
    pub async fn create_publisher(
        &self,
        permit: &Permit,
        new: NewPublisher,
        call: &Call,
    ) -> Result<Publisher, ServiceError> {
        expect(permit, OperationKind::PublisherCreate)?;
        check_name("name", &new.name)?;
        let public_key: Option<[u8; 32]> = new.public_key.try_into().ok();
        let public_key = public_key.filter(|key| ParsedPublicKey::new(&ED25519, key).is_ok()).ok_or_else(|| {
            let message = "publicKey must be the 32 bytes of an ed25519 public key, in base64".to_owned();
            ServiceError::Invalid { field: "publicKey", message }
        })?;
        if has_low_order(&public_key) {
            let message = "publicKey is one of the keys under which anybody can sign".to_owned();
            return Err(ServiceError::Invalid { field: "publicKey", message });
        }
        let (org, now) = (permit.target().org, self.now());
        let known = self.store.snapshot()?.publishers(org)?;
        if known.iter().any(|publisher| publisher.public_key == public_key) {
            // Under two names, it would still be trusted when one of them is removed.
            let message = "another publisher has this publicKey".to_owned();
            return Err(ServiceError::Invalid { field: "publicKey", message });
        }
        let id = mint::id(PublisherId::new, now);
        let publisher = Publisher { id, org, name: new.name, public_key, created_at: now };
        let mut commit = Commit::new(org, now);
        commit.quotas.push(Quota { of: QuotaKind::Publishers, max: MAX_PUBLISHERS });
        commit.writes.push(Write::PutPublisher(publisher.clone()));
        commit.audit.push(admin_audit(permit, org, OperationKind::PublisherCreate, id.to_string(), call.request, now));
        self.carry_out(call, commit).await?;
        Ok(publisher)
    }

    /// Removes a publisher. What it has signed stays bound where it is, and is bound nowhere anew where a signature is needed.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn delete_publisher(&self, permit: &Permit, id: PublisherId, call: &Call) -> Result<(), ServiceError> {
        expect(permit, OperationKind::PublisherDelete)?;
        let (org, now) = (permit.target().org, self.now());
        if self.store.snapshot()?.publisher(org, id)?.is_none() {
            return Err(ServiceError::NotFound("publisher"));
        }
        let mut commit = Commit::new(org, now);
        commit.writes.push(Write::RemovePublisher(id));
        commit.audit.push(admin_audit(permit, org, OperationKind::PublisherDelete, id.to_string(), call.request, now));
        self.carry_out(call, commit).await
    }

    /// The publishers of an organisation, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn publishers(&self, permit: &Permit) -> Result<Vec<Publisher>, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        Ok(self.store.snapshot()?.publishers(permit.target().org)?)
    }

    /// Which plugins an organisation takes.
    ///
    /// # Errors
    /// If the organisation is not there.
    pub fn plugin_rules(&self, permit: &Permit) -> Result<PluginRules, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        Ok(self.rules(permit.target().org))
    }

    /// Says for an organisation whether it takes only signed plugins. What the operator has said of it counts besides.
    ///
    /// # Errors
    /// If the organisation is not there, or the store fails.
    pub async fn require_signature(
        &self,
        permit: &Permit,
        required: bool,
        call: &Call,
    ) -> Result<PluginRules, ServiceError> {
        expect(permit, OperationKind::PluginRulesUpdate)?;
        let (id, now) = (permit.target().org, self.now());
        let current = self.org(id).ok_or(ServiceError::NotFound("organisation"))?;
        let mut org = Org::clone(&current);
        org.plugin_rules.own_require_signature = required;
        org.generation += 1;
        org.updated_at = now;
        let mut commit = Commit::new(id, now);
        commit.expect.push(Expectation::Org(Some(current.generation)));
        commit.writes.push(Write::PutOrg(org.clone()));
        commit.audit.push(admin_audit(permit, id, OperationKind::PluginRulesUpdate, id.to_string(), call.request, now));
        self.carry_out(call, commit).await?;
        self.put_org(org.clone());
        Ok(org.plugin_rules)
    }

    /// The rules for an organisation's plugins. Those of the platform are in the gateway's configuration.
    pub(crate) fn rules(&self, org: OrgId) -> PluginRules {
        match self.org(org) {
            Some(org) => org.plugin_rules.clone(),
            None => PluginRules { require_signature: self.platform_signatures, ..PluginRules::default() },
        }
    }

    /// Who signed a component, if it came with a signature.
    pub(crate) fn signer(
        &self,
        org: OrgId,
        signature: Option<&Signature>,
        digest: &[u8; 32],
    ) -> Result<Option<PublisherId>, ServiceError> {
        let Some(Signature { publisher, bytes }) = signature else {
            return match self.rules(org).needs_signature() {
                true => Err(SignatureError::Required.into()),
                false => Ok(None),
            };
        };
        let known = self.store.snapshot()?.publisher(org, *publisher)?.ok_or(SignatureError::Invalid)?;
        let key = ParsedPublicKey::new(&ED25519, known.public_key).map_err(|_rejected| SignatureError::Invalid)?;
        let verified = key.verify_sig(signed_text(digest).as_bytes(), bytes);
        verified.map_err(|_unspecified| SignatureError::Invalid)?;
        Ok(Some(known.id))
    }

    /// Whether a version may be bound, by who has signed it.
    pub(crate) fn check_signed(&self, version: &PluginVersion, snapshot: &Snapshot) -> Result<(), ServiceError> {
        if !self.rules(version.org).needs_signature() {
            return Ok(());
        }
        let signer = version.signer.map(|signer| snapshot.publisher(version.org, signer)).transpose()?.flatten();
        signer.map(drop).ok_or_else(|| SignatureError::Required.into())
    }
}
