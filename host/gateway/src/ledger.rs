//! `portcullis audit` and `portcullis receipt`: copies of what a gateway has done, and whether they are what it has said.
//!
//! Verifying needs no gateway and no key but the public one, so whoever was given a copy can do it.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use portcullis_core::{AuditEnd, AuditId, OrgId, Receipt};
use portcullis_net::Method;
use portcullis_store::ChainEnd;
use serde::Deserialize;

use crate::administration::Api;
use crate::cli::{Audit, ReceiptCommand, Remote};
use crate::{Failure, terminal};

/// How many lines are asked for at once.
const AT_ONCE: u64 = 5_000;
/// The longest line of a copy, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What is wrong with a copy.
#[derive(Debug, thiserror::Error)]
enum Flaw {
    #[error("line {0} of the file is no line of an export")]
    NoLine(usize),
    #[error("line {at} of the file has number {found} where {expected} belongs")]
    Gap { at: usize, expected: u64, found: u64 },
    #[error("the line with number {0} is not the one that the gateway wrote there, or one before it has changed")]
    Broken(u64),
    #[error("the lines before line {0} of the file are not those that the gateway has told there")]
    Retold(usize),
    #[error("the signature in line {0} of the file is not the gateway's")]
    Unsigned(usize),
    #[error("the file has no end: it was cut off, or lines were added")]
    Open,
    #[error("the public key is not 32 bytes in base64")]
    NoKey,
    #[error("the signature is not the gateway's")]
    Forged,
    #[error("the file holds no signed receipt")]
    NoReceipt,
}

/// One line of a copy.
#[derive(Deserialize)]
struct Line {
    org: OrgId,
    entry: Entry,
    sealed: String,
}

#[derive(Deserialize)]
struct Entry {
    id: AuditId,
    number: u64,
    hash: String,
}

/// The last line of what was asked for at once.
#[derive(Deserialize)]
struct Last {
    end: Signed,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    #[serde(flatten)]
    end: AuditEnd,
    signature: String,
    public_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignedReceipt {
    receipt: Receipt,
    signature: String,
    public_key: String,
}

pub(crate) async fn audit(remote: Remote, command: Audit) -> Result<(), Failure> {
    match command {
        Audit::Export { org, to } => {
            let mut file = std::fs::File::options().write(true).create_new(true).open(&to)?;
            let lines = export(&Api::new(&remote)?, org.as_deref(), &mut file).await?;
            file.sync_all()?;
            terminal::say(&format!("{lines} lines"));
            Ok(())
        }
        Audit::Verify { file, public_key } => {
            let (lines, key) = verify(&file, public_key.as_deref())?;
            terminal::say(&format!("verified {lines} lines, signed with {key}"));
            Ok(())
        }
    }
}

pub(crate) async fn receipt(remote: Remote, command: ReceiptCommand) -> Result<(), Failure> {
    match command {
        ReceiptCommand::Show { id, org } => {
            let path = format!("/api/v1/receipts/{id}");
            let signed = Api::new(&remote)?.send(Method::GET, &path, org.as_deref(), Vec::new()).await?;
            terminal::say(&format!("{signed:#}"));
        }
        ReceiptCommand::Verify { file, public_key } => {
            let signed: SignedReceipt =
                serde_json::from_slice(&std::fs::read(&file)?).map_err(|_other| Flaw::NoReceipt)?;
            let key = public_key.as_deref().unwrap_or(&signed.public_key);
            if !is_signed(key, &signed.receipt.signed_text(), &signed.signature)? {
                return Err(Flaw::Forged.into());
            }
            let Receipt { org, session, key_destroyed_at, .. } = &signed.receipt;
            let what =
                session.map_or_else(|| format!("the organisation {org}"), |session| format!("the session {session}"));
            terminal::say(&format!("{what} was erased at {key_destroyed_at}; signed with {key}"));
        }
    }
    Ok(())
}

/// Writes the whole audit to `file`. Answers how many lines it has.
async fn export(gateway: &Api, org: Option<&str>, file: &mut std::fs::File) -> Result<u64, Failure> {
    let mut after = 0;
    loop {
        let path = format!("/api/v1/audit/export?after={after}&limit={AT_ONCE}");
        let body = gateway.fetch(&path, org).await?;
        file.write_all(&body)?;
        let last = body.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let Last { end } = serde_json::from_slice(last).map_err(|_other| Flaw::Open)?;
        if end.end.number < after + AT_ONCE {
            return Ok(end.end.number);
        }
        after = end.end.number;
    }
}

/// Verifies a copy from its first line to its end. Answers how many lines it has, and the key with which it is signed.
fn verify(path: &Path, pinned: Option<&str>) -> Result<(u64, String), Failure> {
    let mut file = BufReader::new(std::fs::File::open(path)?);
    let (mut chain, mut digest, mut key) = (ChainEnd::default(), Context::new(&SHA256), pinned.map(str::to_owned));
    let (mut is_ended, mut text) = (false, Vec::new());
    for at in 1.. {
        text.clear();
        std::io::Read::take(&mut file, LONGEST).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            break;
        }
        if let Ok(Last { end: Signed { end, signature, public_key } }) = serde_json::from_slice(&text) {
            let key = key.get_or_insert(public_key);
            if end.number != chain.number || end.hash != chain.hash() {
                return Err(Flaw::Broken(end.number).into());
            }
            let told = std::mem::replace(&mut digest, Context::new(&SHA256)).finish();
            if !told.as_ref().iter().map(|byte| format!("{byte:02x}")).eq(pairs(&end.digest)) {
                return Err(Flaw::Retold(at).into());
            }
            if !is_signed(key, &end.signed_text(), &signature)? {
                return Err(Flaw::Unsigned(at).into());
            }
            is_ended = true;
            continue;
        }
        let Line { org, entry, sealed } = serde_json::from_slice(&text).map_err(|_other| Flaw::NoLine(at))?;
        if entry.number != chain.number + 1 {
            return Err(Flaw::Gap { at, expected: chain.number + 1, found: entry.number }.into());
        }
        let sealed = BASE64_STANDARD.decode(sealed).map_err(|_other| Flaw::NoLine(at))?;
        chain = chain.next(org, entry.id.to_bytes(), &sealed);
        if chain.hash() != entry.hash {
            return Err(Flaw::Broken(entry.number).into());
        }
        digest.update(&text);
        is_ended = false;
    }
    match key {
        Some(key) if is_ended => Ok((chain.number, key)),
        _ => Err(Flaw::Open.into()),
    }
}

/// A text in hexadecimal, byte by byte.
fn pairs(hex: &str) -> impl Iterator<Item = String> {
    hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned())
}

fn is_signed(key: &str, text: &str, signature: &str) -> Result<bool, Flaw> {
    let key = BASE64_STANDARD.decode(key).ok().filter(|key| key.len() == 32).ok_or(Flaw::NoKey)?;
    let Ok(signature) = BASE64_STANDARD.decode(signature) else { return Ok(false) };
    Ok(UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok())
}
