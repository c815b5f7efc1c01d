//! Tokens of sessions inside the writer's transaction: no two sessions of the gateway have the same one.
//!
//! The index runs across organisations and holds keyed hashes only. Each session's own hash stands in a second table,
//! because the index has to be cleaned when a token is replaced, cleared or erased, also when the session's row does not open.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::{OrgId, SessionId};

use crate::error::{CommitError, StoreFault};
use crate::step::{Prepared, Step};
use crate::tables::{Tables, key};

/// Whether every token of the commit is free; what the commit erases frees its own.
pub(crate) fn check(tables: &Tables<'_>, commit: &Prepared, erased: &BTreeSet<SessionId>) -> Result<(), CommitError> {
    let erased: BTreeSet<Vec<u8>> = erased.iter().map(|id| row(commit.org, *id)).collect();
    let mut within = BTreeMap::new();
    for step in &commit.steps {
        let Step::PutSession { id, token: Some(token), .. } = step else { continue };
        let own = row(commit.org, *id);
        let holder = tables.session_tokens.get(&token[..])?;
        let held = holder.is_some_and(|holder| holder.value() != own && !erased.contains(holder.value()));
        if held || *within.entry(*token).or_insert(*id) != *id {
            return Err(CommitError::TokenTaken);
        }
    }
    Ok(())
}

/// Makes this the session's token, or leaves it without one.
pub(crate) fn put(
    tables: &mut Tables<'_>,
    org: OrgId,
    session: SessionId,
    token: Option<[u8; 32]>,
) -> Result<(), StoreFault> {
    let own = row(org, session);
    let old = match token {
        Some(token) => tables.token_of_session.insert(&own[..], &token[..])?,
        None => tables.token_of_session.remove(&own[..])?,
    };
    let old = old.map(|hash| hash.value().to_vec());
    if let Some(old) = old.filter(|old| token.is_none_or(|token| token != old[..])) {
        // The token may have passed to another session earlier in the same commit.
        let still_own = tables.session_tokens.get(&old[..])?.is_some_and(|holder| holder.value() == own);
        if still_own {
            tables.session_tokens.remove(&old[..])?;
        }
    }
    if let Some(token) = token {
        tables.session_tokens.insert(&token[..], &own[..])?;
    }
    Ok(())
}

fn row(org: OrgId, session: SessionId) -> Vec<u8> {
    key(&[&org.to_bytes(), &session.to_bytes()])
}
