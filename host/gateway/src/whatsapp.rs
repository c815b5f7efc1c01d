//! The engine that speaks to WhatsApp, as the configuration wants it; a build without it says so.

use std::sync::Arc;

use portcullis_core::DeviceStore;
use portcullis_engine::Engine;
use portcullis_net::Outbound;

use crate::Failure;
use crate::config::WhatsAppSection;

/// The engine.
#[cfg(feature = "whatsapp")]
pub(crate) fn engine(
    section: &WhatsAppSection,
    devices: Arc<dyn DeviceStore>,
    outbound: &Outbound,
) -> Result<Arc<dyn Engine>, Failure> {
    use std::time::Duration;

    use portcullis_engine::whatsapp::wire::ServerUrl;
    use portcullis_engine::whatsapp::{WhatsApp, WhatsAppConfig};

    let server: ServerUrl = section.server.parse().map_err(|error| format!("cannot use whatsapp.server: {error}"))?;
    let version = match section.version.as_str() {
        "" => None,
        text => Some(version(text).ok_or("whatsapp.version must be three numbers, such as 2.3000.1026131876")?),
    };
    let config = WhatsAppConfig {
        server,
        version,
        connecting_at_once: section.connecting_at_once,
        connect_timeout: Duration::from_secs(section.connect_seconds),
        confirm_timeout: Duration::from_secs(section.confirm_seconds),
        device_name: section.device_name.clone(),
        ..WhatsAppConfig::default()
    };
    if cfg!(feature = "loopback-server") {
        tracing::warn!("this build is for tests: it reaches WhatsApp servers on this machine only");
    }
    let engine = WhatsApp::new(devices, outbound.clone(), config, tokio::runtime::Handle::current())
        .map_err(|error| format!("cannot use the settings in [whatsapp]: {error}"))?;
    Ok(Arc::new(engine))
}

/// There is none.
#[cfg(not(feature = "whatsapp"))]
pub(crate) fn engine(
    _section: &WhatsAppSection,
    _devices: Arc<dyn DeviceStore>,
    _outbound: &Outbound,
) -> Result<Arc<dyn Engine>, Failure> {
    Err("this build has no WhatsApp engine, because it was made without the feature `whatsapp`; see engine in the configuration".into())
}

/// Three numbers with dots between them.
#[cfg(feature = "whatsapp")]
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

#[cfg(all(test, feature = "whatsapp"))]
mod test {
    use super::version;

    #[test]
    fn a_version_is_three_numbers() {
        assert_eq!(version("2.3000.1026131876"), Some((2, 3000, 1_026_131_876)));
        for wrong in ["2.3000", "2.3000.1.2", "2..1", "a.b.c", "2.3000.-1", "2.3000.4294967296"] {
            assert_eq!(version(wrong), None, "{wrong}");
        }
    }
}
