//! Who is believed to be who: the roots that a server's certificate must lead to.
//!
//! The roots are the machine's, which follow its updates and have what its operator has put there, together with those that
//! the gateway's configuration adds. A machine without any, such as a bare container, gets Mozilla's, which are compiled in.
//! They are read once, when the way out is made, so that an update of them takes a restart.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` say where the machine's roots are, as they do for every program of the machine;
//! they are the only words of the environment that are heard outside of the command line.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::{ClientConfig, RootCertStore};

/// Why a root certificate cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The text is not in the form that certificates are passed around in.
    #[error("cannot read a root certificate: it is not PEM")]
    Pem(#[source] PemError),
    /// A certificate in the text cannot be a root.
    #[error("a certificate cannot be used as a root")]
    Certificate(#[source] rustls::Error),
    /// The text has no certificate.
    #[error("there is no certificate in the text")]
    Empty,
}

/// The roots of this machine, or Mozilla's if it has none.
pub(crate) fn roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "cannot read some of the machine's root certificates");
    }
    let (roots, source) = roots_from(found.certs);
    tracing::info!(count = roots.len(), source, "root certificates for what goes out");
    roots
}

/// The roots among `found`, or Mozilla's if there are none, and whose they are.
fn roots_from(found: Vec<CertificateDer<'static>>) -> (RootCertStore, &'static str) {
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be read helps nobody, and is no reason to believe none of the others.
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return (RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }, "compiled in");
    }
    (roots, "the machine's")
}

/// Adds every certificate in `pem` to `roots`.
pub(crate) fn add_roots(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), RootError> {
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(RootError::Pem)?).map_err(RootError::Certificate)?;
    }
    if roots.len() == before { Err(RootError::Empty) } else { Ok(()) }
}

/// How TLS is spoken. The provider is named, so that no choice of the whole process can change it.
pub(crate) fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_machine_without_roots_gets_those_that_are_compiled_in() {
        let own = rcgen::generate_simple_self_signed(["root.example".to_owned()]).unwrap().cert.der().clone();
        let rubbish = CertificateDer::from(vec![1, 2, 3]);
        let count = |found: &[&CertificateDer<'static>]| {
            let (roots, source) = roots_from(found.iter().copied().cloned().collect());
            (roots.len(), source)
        };
        let compiled_in = (webpki_roots::TLS_SERVER_ROOTS.len(), "compiled in");
        assert_eq!(count(&[]), compiled_in);
        assert_eq!(count(&[&rubbish]), compiled_in);
        assert_eq!(count(&[&rubbish, &own]), (1, "the machine's"));
    }
}
