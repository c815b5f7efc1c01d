//! Signatures of plugins: whose a component is, whoever uploads it.
//!
//! A signature is ed25519 over a text of two lines, `portcullis-plugin-v1` and the component's SHA-256 in hexadecimal digits.
//! A key lies in a file of its own, in the form that other tools read as well (PKCS #8 in PEM), and only its owner can read it.
//! A component's signature lies beside it, in a file that ends in `.sig`: the public key and the signature, both in base64.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::args::{Keygen, Sign};
use crate::{Failure, terminal};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// How many characters a line of PEM has (RFC 7468, section 2).
const PEM_LINE: usize = 64;

/// Why a key or a signature could not be made or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    /// The system gave no randomness.
    #[error("no key could be made: the system has no randomness to give")]
    Randomness,
    /// The key's file could not be made.
    #[error("cannot write {}; a key is never written over another file", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// The key's file could not be read.
    #[error("cannot read {}; `portcullis plugin keygen` makes a key", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is no key.
    #[error("{} is no ed25519 key in PEM; `portcullis plugin keygen` makes one", .0.display())]
    NoKey(PathBuf),
    /// The signature's file is none.
    #[error("{} is no signature; `portcullis plugin sign` makes one", .0.display())]
    NoSignature(PathBuf),
    /// The signature is of other bytes.
    #[error("the signature in {} is not of this component; sign it again", .0.display())]
    Stale(PathBuf),
}

/// A signature, and the key it can be checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    /// The public key in base64.
    pub(super) public_key: String,
    /// The signature in base64.
    pub(super) signature: String,
}

/// Makes a key.
pub(super) fn keygen(arguments: &Keygen) -> Result<(), Failure> {
    let public_key = make_key(&arguments.file)?;
    terminal::say(&format!("public key: {public_key}"));
    terminal::say("let its signatures count with");
    terminal::say(&format!("  portcullis publisher create NAME --public-key {public_key}"));
    Ok(())
}

/// Signs a component and leaves the signature beside it.
pub(super) fn sign(arguments: &Sign) -> Result<(), Failure> {
    let signature = make_signature(&arguments.with, &super::read(&arguments.file)?)?;
    let beside = beside(&arguments.file);
    let line = format!("{} {}\n", signature.public_key, signature.signature);
    std::fs::write(&beside, line).map_err(|error| SignError::Write(beside.clone(), error))?;
    terminal::say(&format!("{}: signed with {}", beside.display(), signature.public_key));
    Ok(())
}

/// Makes a key in a new file; answers its public key.
pub(super) fn make_key(file: &Path) -> Result<String, SignError> {
    let key = Ed25519KeyPair::generate().map_err(|_| SignError::Randomness)?;
    let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| SignError::Randomness)?;
    let encoded = STANDARD.encode(der.as_ref());
    let mut pem = format!("{BEGIN}\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(END);
    pem.push('\n');
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut opened| opened.write_all(pem.as_bytes()));
    written.map_err(|error| SignError::Write(file.to_owned(), error))?;
    Ok(STANDARD.encode(key.public_key()))
}

/// Signs a component with the key in a file.
pub(super) fn make_signature(file: &Path, component: &[u8]) -> Result<Signature, SignError> {
    let pem = std::fs::read_to_string(file).map_err(|error| SignError::Read(file.to_owned(), error))?;
    let no_key = || SignError::NoKey(file.to_owned());
    let body = pem.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).ok_or_else(no_key)?.0;
    let body: String = body.split_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| no_key())?;
    let key = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| no_key())?;
    Ok(Signature {
        public_key: STANDARD.encode(key.public_key()),
        signature: STANDARD.encode(key.sign(&signed_text(component))),
    })
}

/// The signature that lies beside a component, if there is one. It has to be of these bytes.
pub(super) fn find_signature(file: &Path, component: &[u8]) -> Result<Option<Signature>, SignError> {
    let beside = beside(file);
    let Ok(line) = std::fs::read_to_string(&beside) else { return Ok(None) };
    let mut words = line.split_whitespace();
    let (Some(public_key), Some(signature), None) = (words.next(), words.next(), words.next()) else {
        return Err(SignError::NoSignature(beside));
    };
    let decoded = (STANDARD.decode(public_key), STANDARD.decode(signature));
    let (Ok(key), Ok(signed)) = decoded else { return Err(SignError::NoSignature(beside)) };
    if UnparsedPublicKey::new(&ED25519, key).verify(&signed_text(component), &signed).is_err() {
        return Err(SignError::Stale(beside));
    }
    Ok(Some(Signature { public_key: public_key.to_owned(), signature: signature.to_owned() }))
}

/// What is signed: it can be mistaken for nothing else that somebody might sign with the same key.
fn signed_text(component: &[u8]) -> Vec<u8> {
    format!("portcullis-plugin-v1\n{}\n", super::digest(component)).into_bytes()
}

/// Where the signature of a component lies.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}
