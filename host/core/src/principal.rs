//! Who asks: principals and what they are capable of.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{KeyId, OrgId, PluginId, SessionId};

/// Whoever asks for an operation, once authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The organisation on whose things it may act; [`OrgId::PLATFORM`] for the operator.
    pub org: OrgId,
    /// What kind of caller it is.
    pub kind: PrincipalKind,
    /// If set, the only session it may touch or see.
    pub session_scope: Option<SessionId>,
    /// What it may do.
    pub capabilities: Capabilities,
}

/// The kinds of caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum PrincipalKind {
    /// An API key of an organisation.
    ApiKey {
        /// The key.
        id: KeyId,
    },
    /// A person who came with a signed token.
    User {
        /// The token's subject.
        subject: String,
    },
    /// Who runs the gateway.
    Operator,
    /// A plugin that requested an operation.
    Plugin {
        /// The plugin.
        id: PluginId,
        /// How many plugin requests lie between this one and a caller's operation.
        depth: u8,
    },
    /// A bearer of the token of one session; the principal is bound to that session.
    SessionToken,
    /// A bearer of a temporary link to one session.
    Link,
    /// The gateway itself: timers, due deletes, engine facts.
    System,
}

impl PrincipalKind {
    /// The stable word for the kind, in audit, metrics and the policy contract.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ApiKey { .. } => "api-key",
            Self::User { .. } => "user",
            Self::Operator => "operator",
            Self::Plugin { .. } => "plugin",
            Self::SessionToken => "session-token",
            Self::Link => "link",
            Self::System => "system",
        }
    }
}

impl fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey { id } => write!(f, "api-key:{id}"),
            Self::User { subject } => write!(f, "user:{subject}"),
            Self::Plugin { id, .. } => write!(f, "plugin:{id}"),
            Self::Operator | Self::SessionToken | Self::Link | Self::System => f.write_str(self.name()),
        }
    }
}

impl Principal {
    /// The operator, acting in the platform's own scope.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            org: OrgId::PLATFORM,
            kind: PrincipalKind::Operator,
            session_scope: None,
            capabilities: Capabilities::all(),
        }
    }

    /// Whoever comes with the token of one session: the session is theirs, and nothing else.
    #[must_use]
    pub fn session_token(org: OrgId, session: SessionId) -> Self {
        Self {
            org,
            kind: PrincipalKind::SessionToken,
            session_scope: Some(session),
            capabilities: [Capability::Read, Capability::Send, Capability::Manage].into_iter().collect(),
        }
    }

    /// Whoever opened a session's temporary link: they may have its codes made, and nothing else.
    #[must_use]
    pub fn link(org: OrgId, session: SessionId) -> Self {
        Self {
            org,
            kind: PrincipalKind::Link,
            session_scope: Some(session),
            capabilities: [Capability::Manage].into_iter().collect(),
        }
    }

    /// Whether it runs the gateway, and so may act across organisations.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        match self.kind {
            PrincipalKind::Operator => true,
            // An identity provider can name operators, too.
            PrincipalKind::User { .. } => self.capabilities.allow(Capability::Operate),
            PrincipalKind::ApiKey { .. }
            | PrincipalKind::Plugin { .. }
            | PrincipalKind::SessionToken
            | PrincipalKind::Link
            | PrincipalKind::System => false,
        }
    }

    /// The gateway itself, acting within `org`.
    #[must_use]
    pub fn system(org: OrgId) -> Self {
        Self { org, kind: PrincipalKind::System, session_scope: None, capabilities: Capabilities::all() }
    }
}

/// Something a principal may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// See sessions and settings.
    Read,
    /// Send messages.
    Send,
    /// Create, change and delete sessions, keys and settings. Includes `read`.
    Manage,
    /// Feed and follow events.
    Events,
    /// Upload and bind plugins.
    Plugins,
    /// Read decisions and the audit.
    Audit,
    /// Run the gateway: organisations and everything across them. No API key can hold it.
    Operate,
}

impl Capability {
    /// Every capability, in the order of the wire documents.
    pub const ALL: [Capability; 7] =
        [Self::Read, Self::Send, Self::Manage, Self::Events, Self::Plugins, Self::Audit, Self::Operate];

    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Send => "send",
            Self::Manage => "manage",
            Self::Events => "events",
            Self::Plugins => "plugins",
            Self::Audit => "audit",
            Self::Operate => "operate",
        }
    }

    /// The capability with this word on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Capability>", into = "Vec<Capability>")]
pub struct Capabilities(u8);

impl Capabilities {
    /// Every capability there is.
    #[must_use]
    pub fn all() -> Self {
        Capability::ALL.into_iter().collect()
    }

    /// Whether the set holds `capability`; who may `manage` may also `read`.
    #[must_use]
    pub fn allow(self, capability: Capability) -> bool {
        let implied = if capability == Capability::Read { Capability::Manage.bit() } else { 0 };
        self.0 & (capability.bit() | implied) != 0
    }

    /// Whether everything in `other` is allowed by this set.
    #[must_use]
    pub fn include(self, other: Capabilities) -> bool {
        other.iter().all(|capability| self.allow(capability))
    }

    /// What both sets allow.
    #[must_use]
    pub fn both(self, other: Capabilities) -> Capabilities {
        Capability::ALL.into_iter().filter(|capability| self.allow(*capability) && other.allow(*capability)).collect()
    }

    /// The capabilities in the set.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |capability| self.0 & capability.bit() != 0)
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self(capabilities.into_iter().fold(0, |bits, capability| bits | capability.bit()))
    }
}

impl From<Vec<Capability>> for Capabilities {
    fn from(list: Vec<Capability>) -> Self {
        list.into_iter().collect()
    }
}

impl From<Capabilities> for Vec<Capability> {
    fn from(set: Capabilities) -> Self {
        set.iter().collect()
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Capability::name)).finish()
    }
}
