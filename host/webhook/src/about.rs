//! What is told of a session beside its event.

use portcullis_core::{Device, Names, Session};
use serde::{Deserialize, Serialize};

/// What is told of a session beside its event. It can be kept with an event that outlives the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its name in every dialect.
    pub names: Names,
    /// The linked device.
    pub device: Option<Device>,
}

impl About {
    /// The same without anything personal, as it may be kept of a session that is erased.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { device: None, ..self }
    }
}

impl From<&Session> for About {
    fn from(session: &Session) -> Self {
        Self { names: session.names.clone(), device: session.linked_device().cloned() }
    }
}
