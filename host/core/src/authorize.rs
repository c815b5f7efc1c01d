//! Authorisation as a value that must be held.
//!
//! `service` takes a [`Permit`] wherever it acts, and only [`authorize`] makes one.

use crate::{Capability, OperationKind, OrgId, Principal, SessionId};

/// On what an operation acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The organisation that owns the thing.
    pub org: OrgId,
    /// The session, for what is about one.
    pub session: Option<SessionId>,
}

impl Target {
    /// The organisation as a whole.
    #[must_use]
    pub fn org(org: OrgId) -> Self {
        Self { org, session: None }
    }

    /// One session of it.
    #[must_use]
    pub fn session(org: OrgId, session: SessionId) -> Self {
        Self { org, session: Some(session) }
    }
}

/// Proof that a principal may do one kind of operation on one target.
#[derive(Debug, Clone)]
pub struct Permit {
    principal: Principal,
    kind: OperationKind,
    target: Target,
}

impl Permit {
    /// Who was permitted.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What was permitted.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        self.kind
    }

    /// On what it was permitted.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody is known to ask. Made by authentication; [`authorize`] never answers it.
    #[error("missing or invalid credentials")]
    Unauthenticated,
    /// The caller lacks a capability.
    #[error("missing required capability: {0}")]
    Forbidden(Capability),
    /// The caller may not know whether the thing exists.
    #[error("not found")]
    Hidden,
}

impl Denial {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Hidden => "not_found",
        }
    }
}

/// Whether `principal` may do `kind` on `target`.
///
/// The organisation is asked before the capability, so that a caller learns nothing about what belongs to others.
///
/// # Errors
/// [`Denial::Hidden`] for another organisation's things and for what lies outside the principal's session scope,
/// [`Denial::Forbidden`] for a capability it lacks.
pub fn authorize(principal: &Principal, kind: OperationKind, target: Target) -> Result<Permit, Denial> {
    let needed = kind.row().capability;
    if needed != Capability::Operate && target.org != principal.org && !principal.is_operator() {
        return Err(Denial::Hidden);
    }
    if principal.session_scope.is_some() && target.session != principal.session_scope {
        // A scoped principal sees its one session, and of everything else nothing.
        return Err(Denial::Hidden);
    }
    if !principal.capabilities.allow(needed) {
        return Err(Denial::Forbidden(needed));
    }
    Ok(Permit { principal: principal.clone(), kind, target })
}

#[cfg(test)]
mod test {
    use std::fmt::Write;

    use expect_test::expect_file;

    use super::*;
    use crate::{Capabilities, KeyId, PrincipalKind};

    fn key(org: u8, scope: Option<u8>, capabilities: &[Capability]) -> Principal {
        Principal {
            org: OrgId::from_bytes([org; 16]),
            kind: PrincipalKind::ApiKey { id: KeyId::from_bytes([9; 16]) },
            session_scope: scope.map(|byte| SessionId::from_bytes([byte; 16])),
            capabilities: capabilities.iter().copied().collect::<Capabilities>(),
        }
    }

    fn user(org: u8, capabilities: &[Capability]) -> Principal {
        Principal { kind: PrincipalKind::User { subject: "usr_1".to_owned() }, ..key(org, None, capabilities) }
    }

    /// Principal × operation × whose thing it is, as a table that a change of rules changes visibly.
    #[test]
    fn authorization_matrix() {
        let principals = [
            ("operator", Principal::operator()),
            ("system", Principal::system(OrgId::from_bytes([1; 16]))),
            ("read", key(1, None, &[Capability::Read])),
            ("send", key(1, None, &[Capability::Send])),
            ("manage", key(1, None, &[Capability::Manage])),
            ("events", key(1, None, &[Capability::Events])),
            ("plugins", key(1, None, &[Capability::Plugins])),
            ("audit", key(1, None, &[Capability::Audit])),
            ("scoped", key(1, Some(5), &Capability::ALL[..6])),
            ("token", Principal::session_token(OrgId::from_bytes([1; 16]), SessionId::from_bytes([5; 16]))),
            ("user", user(1, &Capability::ALL[..6])),
            ("superuser", user(1, &Capability::ALL)),
        ];
        let (own, foreign) = (OrgId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        let targets = [
            ("org", Target::org(own)),
            ("session", Target::session(own, SessionId::from_bytes([5; 16]))),
            ("sibling", Target::session(own, SessionId::from_bytes([6; 16]))),
            ("foreign", Target::session(foreign, SessionId::from_bytes([7; 16]))),
        ];
        let mut table = format!("{:<22}{:<9}", "operation", "target");
        for (name, _) in &principals {
            write!(table, "{name:<10}").expect("a string takes all text");
        }
        for kind in OperationKind::ALL {
            for (name, target) in targets {
                write!(table, "\n{:<22}{name:<9}", kind.name()).expect("a string takes all text");
                for (_, principal) in &principals {
                    let cell = match authorize(principal, *kind, target) {
                        Ok(_) => "yes",
                        Err(Denial::Forbidden(_)) => "403",
                        Err(Denial::Hidden) => "404",
                        Err(Denial::Unauthenticated) => "401",
                    };
                    write!(table, "{cell:<10}").expect("a string takes all text");
                }
            }
        }
        let trimmed: Vec<_> = table.lines().map(str::trim_end).collect();
        expect_file!["../golden/authorization.txt"].assert_eq(&(trimmed.join("\n") + "\n"));
    }
}
