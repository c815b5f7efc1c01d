//! What the plugin keeps between calls: one ledger for each session that a fact was about, and one for facts about all.
//!
//! A session's ledger lies under a key of the session's own, so it is sealed with it and goes with it.

use portcullis_sdk::{HostError, kv, log};

use crate::ledger::Ledger;

/// Whose ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    /// That of one session.
    Session(&'a str),
    /// That of all sessions.
    All,
}

impl Whose<'_> {
    fn key(self) -> String {
        match self {
            Self::Session(id) => format!("session:{id}:ledger"),
            Self::All => "all:ledger".to_owned(),
        }
    }
}

/// Reads a ledger; where nothing is known it is empty.
pub(crate) fn read(whose: Whose<'_>) -> Result<Ledger, HostError> {
    let Some(entry) = kv::get(&whose.key())? else { return Ok(Ledger::default()) };
    Ok(serde_json::from_slice(&entry.value).unwrap_or_else(|_| {
        // Nothing known means that nothing is deleted.
        log::error("a ledger could not be read and counts as empty");
        Ledger::default()
    }))
}

/// What is known of one session, from both ledgers.
pub(crate) fn known(session: &str) -> Result<Ledger, HostError> {
    Ok(read(Whose::Session(session))?.and(read(Whose::All)?))
}

/// Writes a ledger.
pub(crate) fn write(whose: Whose<'_>, ledger: &Ledger) -> Result<(), HostError> {
    let json = serde_json::to_vec(ledger).map_err(|error| HostError::Invalid(error.to_string()))?;
    kv::set(&whose.key(), &json, None)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_key_of_a_session_is_the_sessions_own() {
        assert_eq!(Whose::Session("sess_1").key(), "session:sess_1:ledger");
        assert_eq!(Whose::All.key(), "all:ledger");
    }
}
