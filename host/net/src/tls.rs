//! Who is believed to be who: the roots that a server's certificate must lead to.
//!
//! The roots are Mozilla's, compiled in, and whatever certificates the operator adds.
//! The platform's store would follow its updates, but it is missing from a bare container, differs between machines, and
//! its loaders read the environment, which only the gateway's command line may do.
//! A root that is no longer believed goes with an update of the gateway; a private authority comes in by configuration.

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

/// Mozilla's roots.
pub(crate) fn web_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
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
