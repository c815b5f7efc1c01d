//! Keys and signatures.

use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::args::Sign;
use super::super::sign;
use super::*;

#[test]
fn a_signature_is_of_the_components_digest() {
    let folder = folder();
    let key = folder.path().join("publisher.pem");
    let public_key = sign::make_key(&key).unwrap();
    let signature = sign::make_signature(&key, b"component").unwrap();
    assert_eq!(signature.public_key, public_key);
    // SHA-256 of `component`, as any other tool makes it.
    let text = "portcullis-plugin-v1\n6985ca1f4daa5a584a28eae043a239cb96689af1337ea13afb63e00c2bf512fa\n";
    let (public_key, signed) = (STANDARD.decode(public_key).unwrap(), STANDARD.decode(signature.signature).unwrap());
    assert_eq!((public_key.len(), signed.len()), (32, 64));
    UnparsedPublicKey::new(&ED25519, public_key).verify(text.as_bytes(), &signed).unwrap();
}

#[test]
fn a_key_is_its_owners_and_is_never_written_over() {
    let folder = folder();
    let key = folder.path().join("publisher.pem");
    sign::make_key(&key).unwrap();
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let pem = std::fs::read_to_string(&key).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.ends_with("-----END PRIVATE KEY-----\n"));
    let again = sign::make_key(&key).unwrap_err();
    assert!(again.to_string().contains("never written over"), "{again}");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), pem);
}

#[test]
fn a_key_of_other_tools_is_taken() {
    let folder = folder();
    let key = folder.path().join("rfc.pem");
    // The first example of RFC 8410, section 10.3.
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    std::fs::write(&key, pem).unwrap();
    let signature = sign::make_signature(&key, b"component").unwrap();
    assert_eq!(signature.public_key, "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
}

#[test]
fn what_is_no_key_says_so() {
    let folder = folder();
    let file = folder.path().join("key");
    for text in ["", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        std::fs::write(&file, text).unwrap();
        let error = sign::make_signature(&file, b"component").unwrap_err();
        assert!(
            error.to_string().ends_with("is no ed25519 key in PEM; `portcullis plugin keygen` makes one"),
            "{error}"
        );
    }
    let error = sign::make_signature(&folder.path().join("nowhere"), b"component").unwrap_err();
    assert!(error.to_string().contains("`portcullis plugin keygen` makes a key"), "{error}");
}

#[tokio::test]
async fn a_signature_beside_a_component_has_to_be_of_its_bytes() {
    let folder = folder();
    let (key, file) = (folder.path().join("key"), folder.path().join("grace-delete.wasm"));
    let public_key = sign::make_key(&key).unwrap();
    let component = std::fs::read(shipped("grace-delete")).unwrap();
    std::fs::write(&file, &component).unwrap();
    assert_eq!(sign::find_signature(&file, &component).unwrap(), None);
    sign::sign(&Sign { file: file.clone(), with: key }).unwrap();
    let found = sign::find_signature(&file, &component).unwrap().unwrap();
    assert_eq!(found.public_key, public_key);
    let shown = inspect::look(&file, workshop()).await.unwrap();
    assert_eq!(shown["signature"]["publicKey"], json!(public_key));

    let stale = sign::find_signature(&file, b"other").unwrap_err();
    assert!(stale.to_string().ends_with("is not of this component; sign it again"), "{stale}");
    std::fs::write(folder.path().join("grace-delete.wasm.sig"), "what is this").unwrap();
    let none = sign::find_signature(&file, &component).unwrap_err();
    assert!(none.to_string().ends_with("is no signature; `portcullis plugin sign` makes one"), "{none}");
    let shown = inspect::look(&file, workshop()).await.unwrap();
    assert!(shown["signature"]["problem"].is_string());
}
