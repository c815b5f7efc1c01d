//! What a row is called, and whose it is, as an operator would say it.

use portcullis_core::{
    BindingId, DecisionId, ErrandId, KeyId, MessageId, OrgId, PluginId, PublisherId, SessionId, WebhookId,
};

use crate::seal::hex;
use crate::tables::{self, Definition, NO_SESSION, org_of, part};

/// Where a row says which session it is of.
#[derive(Clone, Copy)]
pub(super) enum Of {
    /// Nowhere, or the row may outlive the session.
    Nothing,
    /// In the key, from this byte on.
    Key(usize),
    /// In the value, from this byte on.
    Value(usize),
}

/// What a row of a table is called, and where its session stands. Rows of sessions that are gone may not be left.
#[rustfmt::skip]
const NOUNS: &[(Definition, &str, Of)] = &[
    (tables::META, "a fact about the store", Of::Nothing),
    (tables::ORGS, "the organisation", Of::Nothing),
    (tables::COUNTS, "the counts", Of::Nothing),
    (tables::SESSIONS, "the session", Of::Nothing),
    (tables::INSTANCE_NAMES, "an instance name", Of::Value(0)),
    (tables::SESSION_TOKENS, "the index entry of a session's token", Of::Nothing),
    (tables::TOKEN_OF_SESSION, "the token", Of::Key(16)),
    (tables::DEVICES, "a part of the linked device", Of::Key(16)),
    (tables::KEYS, "the API key", Of::Nothing),
    (tables::KEY_HASHES, "the index entry of an API key", Of::Nothing),
    (tables::PLUGINS, "a version of the plugin", Of::Nothing),
    (tables::PLUGIN_NAMES, "the name of a plugin", Of::Nothing),
    (tables::COMPONENTS, "a component", Of::Nothing),
    (tables::BINDINGS, "the binding", Of::Nothing),
    (tables::SUSPENSIONS, "the suspension of the binding", Of::Nothing),
    (tables::TALLIES, "a tally of a candidate", Of::Nothing),
    (tables::SECRETS, "a secret of the plugin", Of::Nothing),
    (tables::PUBLISHERS, "the publisher", Of::Nothing),
    (tables::CONFIRMATIONS, "a confirmation that is open", Of::Value(8)),
    (tables::CONFIRMATIONS_AGE, "the end of a confirmation", Of::Nothing),
    (tables::ERRANDS, "the errand", Of::Value(8)),
    (tables::ERRANDS_DUE, "the time of an errand", Of::Nothing),
    (tables::ERRANDS_OF_PLUGIN, "the index entry of an errand of the plugin", Of::Nothing),
    (tables::ERRANDS_OF_SESSION, "the index entry of an errand", Of::Key(16)),
    (tables::REQUEST_COUNTS, "the count of requests of the plugin", Of::Nothing),
    (tables::FACTS, "a fact", Of::Nothing),
    (tables::FACTS_AGE, "the age of a fact", Of::Nothing),
    (tables::WEBHOOKS, "the webhook", Of::Value(8)),
    (tables::SESSION_WEBHOOKS, "the index entry of a webhook", Of::Key(16)),
    (tables::MESSAGES, "a message", Of::Key(16)),
    (tables::MESSAGES_OPEN, "the place of a message in the queue", Of::Key(16)),
    (tables::MESSAGES_AGE, "the age of a message", Of::Key(24)),
    (tables::DECISIONS, "the decision", Of::Nothing),
    (tables::DECISION_RECORDS, "the full record of a decision", Of::Nothing),
    (tables::AUDIT, "a line of the audit", Of::Nothing),
    (tables::AUDIT_ENDS, "the end of an audit", Of::Nothing),
    (tables::RECEIPTS, "the place of a receipt", Of::Nothing),
    (tables::EVENTS, "an event", Of::Nothing),
    (tables::OUTBOX, "a place in the outbox", Of::Nothing),
    (tables::OUTBOX_ENDS, "the end of the outbox", Of::Nothing),
    (tables::PROGRESS, "the progress of the webhook", Of::Nothing),
    (tables::DELIVERIES, "a delivery", Of::Nothing),
    (tables::DELIVERIES_DUE, "the time of a delivery", Of::Nothing),
    (tables::DEAD_LETTERS, "a dead letter", Of::Nothing),
    (tables::TIMERS, "a timer of the plugin", Of::Value(8)),
    (tables::TIMERS_DUE, "the time of a timer", Of::Nothing),
    (tables::TIMER_COUNTS, "the count of timers of the plugin", Of::Nothing),
    (tables::SESSION_KV, "a key that is kept for a session by the plugin", Of::Key(32)),
    (tables::KV, "a key that is kept by the plugin", Of::Nothing),
    (tables::KV_USAGE, "the sum of what is kept by the plugin", Of::Nothing),
    (tables::HITS, "a hit of a counter", Of::Nothing),
    (tables::HITS_AGE, "the age of a counter's hits", Of::Nothing),
    (tables::IDEMPOTENCY, "an idempotency key", Of::Nothing),
    (tables::IDEMPOTENCY_AGE, "the age of an idempotency key", Of::Nothing),
    (tables::REPLIES, "the idempotency key of a request", Of::Nothing),
    (tables::REPLIES_AGE, "the age of a request's idempotency key", Of::Nothing),
    (tables::TOMBSTONES, "an erasure that is under way", Of::Nothing),
];

/// Tables whose keys do not begin with an organisation.
fn is_across_orgs(table: Definition) -> bool {
    let across = [tables::META, tables::SESSION_TOKENS, tables::KEY_HASHES, tables::TALLIES];
    across.iter().any(|across| tables::name(*across) == tables::name(table))
}

/// Where the rows of a table say whose they are; nothing for those across organisations, and for what names those who are gone.
pub(super) fn owners_in(table: Definition) -> Option<Of> {
    let is_of_the_gone = tables::name(table) == tables::name(tables::TOMBSTONES);
    (!is_across_orgs(table) && !is_of_the_gone).then(|| noun(table).1)
}

impl Of {
    /// The session that a row is of, if it is of one and may not outlive it.
    pub(super) fn session(self, row: &[u8], value: &[u8]) -> Option<SessionId> {
        let bytes: [u8; 16] = match self {
            Self::Nothing => return None,
            Self::Key(at) => part(row, at)?,
            Self::Value(at) => part(value, at)?,
        };
        (bytes != NO_SESSION).then(|| SessionId::from_bytes(bytes))
    }
}

/// The row of the table above; what is new and was forgotten there still has a name.
fn noun(table: Definition) -> (&'static str, Of) {
    let name = tables::name(table);
    let found = NOUNS.iter().find(|(known, ..)| tables::name(*known) == name);
    found.map_or((name, Of::Nothing), |(_, noun, of)| (noun, *of))
}

/// A row in words: what it is, its id where it has one, whose it is.
pub(super) fn subject(table: Definition, row: &[u8]) -> String {
    let (noun, of) = noun(table);
    let name = tables::name(table);
    let second = part::<16>(row, 16);
    let is = |tables: &[Definition]| tables.iter().any(|known| tables::name(*known) == name);
    let mut words = noun.to_owned();
    let mut say = |id: Option<String>| {
        if let Some(id) = id {
            words.push(' ');
            words.push_str(&id);
        }
    };
    if is(&[tables::ORGS]) {
        say(org_of(row).map(|org| org.to_string()));
    } else if is(&[tables::SESSIONS]) {
        say(second.map(|id| SessionId::from_bytes(id).to_string()));
    } else if is(&[tables::KEYS]) {
        say(second.map(|id| KeyId::from_bytes(id).to_string()));
    } else if is(&[tables::BINDINGS, tables::SUSPENSIONS]) {
        say(second.map(|id| BindingId::from_bytes(id).to_string()));
    } else if is(&[tables::WEBHOOKS, tables::PROGRESS]) {
        say(second.map(|id| WebhookId::from_bytes(id).to_string()));
    } else if is(&[tables::PUBLISHERS]) {
        say(second.map(|id| PublisherId::from_bytes(id).to_string()));
    } else if is(&[tables::ERRANDS]) {
        say(second.map(|id| ErrandId::from_bytes(id).to_string()));
    } else if is(&[tables::DECISIONS]) {
        say(second.map(|id| DecisionId::from_bytes(id).to_string()));
    } else if is(&[tables::MESSAGES]) {
        say(part(row, 32).map(|id| MessageId::from_bytes(id).to_string()));
    } else if noun.ends_with("the plugin") {
        say(second.map(|id| PluginId::from_bytes(id).to_string()));
    }
    if let Of::Key(_) = of {
        say(of.session(row, &[]).map(|session| format!("of {session}")));
    }
    if !is_across_orgs(table) && !is(&[tables::ORGS]) {
        say(org_of(row).map(|org| match org {
            OrgId::PLATFORM => "of the platform".to_owned(),
            org => format!("of {org}"),
        }));
    }
    words
}

/// Where a row stands, for whoever looks closer.
pub(super) fn place(table: Definition, row: &[u8]) -> String {
    format!("row {} of table {}", hex(row), tables::name(table))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_table_has_a_noun_of_its_own() {
        let named: Vec<_> = NOUNS.iter().map(|(table, ..)| tables::name(*table)).collect();
        let all: Vec<_> = tables::ALL.iter().map(|table| tables::name(*table)).collect();
        assert_eq!(named, all, "a table has no words in which an operator is told of it");
        let nouns: std::collections::BTreeSet<_> = NOUNS.iter().map(|(_, noun, _)| *noun).collect();
        assert_eq!(nouns.len(), NOUNS.len());
    }

    #[test]
    fn a_row_is_named_with_its_owner() {
        let row = [[1; 16], [2; 16]].concat();
        let (org, session) = (OrgId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
        assert_eq!(subject(tables::SESSIONS, &row), format!("the session {session} of {org}"));
        assert_eq!(subject(tables::DEVICES, &row), format!("a part of the linked device of {session} of {org}"));
        assert_eq!(subject(tables::ORGS, &row[..16]), format!("the organisation {org}"));
        assert_eq!(subject(tables::META, b"format"), "a fact about the store");
        // What is damaged may be of any length.
        for length in 0..64 {
            for table in tables::ALL {
                assert!(!subject(*table, &vec![7; length]).is_empty());
            }
        }
    }
}
