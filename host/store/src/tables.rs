//! The schema: every table with its key and its value.
//!
//! Keys are byte strings that begin with the 16 bytes of an [`OrgId`], so that nothing is read without saying whose it is.
//! The exceptions hold ids, keyed hashes and numbers only and are named as indexes, queues or sums: `key-hashes`,
//! `session-tokens`, `tallies`; and `meta`.
//!
//! A value is a *head* of fixed length in clear, which the writer checks without opening anything, and then an
//! *envelope* sealed under a key that can be destroyed (see [`crate::seal`]).
//! Heads hold numbers, ids and keyed hashes. Text that people or plugins chose stands neither in keys nor in heads:
//! where it has to be found again, its keyed hash ([`crate::seal::Hashes`]) stands for it.
//!
//! The number in a table's name is its version. Changing a key or a value means a new number and a migration.

mod rows;

use redb::{TableDefinition, TableHandle, WriteTransaction};

use crate::error::StoreFault;

pub(crate) use rows::{
    NO_SESSION, Prefix, Rows, Span, heads, key, number, org_of, part, remove_prefix, session_of, session_part,
};

/// All tables map bytes to bytes.
pub(crate) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

macro_rules! tables {
    ($($(#[$doc:meta])* $constant:ident $field:ident $name:literal;)*) => {
        $($(#[$doc])* pub(crate) const $constant: Definition = TableDefinition::new($name);)*

        /// Every table, in the order in which a transaction opens them.
        pub(crate) const ALL: &[Definition] = &[$($constant),*];

        /// The name of a table of the schema, for as long as the program runs.
        pub(crate) fn name(definition: Definition) -> &'static str {
            match definition.name() {
                $($name => $name,)*
                _ => unreachable!("every definition is in the schema"),
            }
        }

        /// All tables of one write transaction, each opened when it is first used.
        pub(crate) struct Tables<'txn> {
            $(pub(crate) $field: Rows<'txn>,)*
        }

        impl<'txn> Tables<'txn> {
            pub(crate) fn of(transaction: &'txn WriteTransaction) -> Self {
                Self { $($field: Rows::of(transaction, $constant),)* }
            }

            /// Opens every table, which makes those that are not there.
            pub(crate) fn make(&self) -> Result<(), StoreFault> {
                $(self.$field.opened()?;)*
                Ok(())
            }

            /// The table that a definition names.
            pub(crate) fn table(&mut self, definition: Definition) -> &mut Rows<'txn> {
                match definition.name() {
                    $($name => &mut self.$field,)*
                    other => unreachable!("{other} is not in the schema"),
                }
            }
        }
    };
}

tables! {
    /// Table: facts about the store itself.
    /// Key: a word.
    /// Value: a number of 8 bytes. `format` is the schema's number.
    META meta "meta-1";

    /// Table: organisations.
    /// Key: org.
    /// Value: generation (8), then [`portcullis_core::Org`] under the org's key.
    ORGS orgs "orgs-1";

    /// Table: how many rows of each kind an organisation has.
    /// Key: org.
    /// Value: sessions, keys, plugins, bindings, webhooks, open messages, errands, confirmations, publishers (4 bytes each).
    /// Kinds that are missing at the end are counted from zero.
    COUNTS counts "counts-2";

    /// Table: sessions.
    /// Key: org, session.
    /// Value: generation (8), hash of the instance name (16), then [`portcullis_core::Session`] under the session's key.
    SESSIONS sessions "sessions-1";

    /// Table: which session has an instance name.
    /// Key: org, hash of the name (16).
    /// Value: session.
    INSTANCE_NAMES instance_names "instance-names-1";

    /// Table: which session has a token. An index across organisations: no two sessions of the gateway have the same one.
    /// Key: keyed hash of the token (32).
    /// Value: org, session.
    SESSION_TOKENS session_tokens "session-tokens-1";

    /// Table: the token of a session, for those that have one, so that the index row goes when the token does.
    /// Key: org, session.
    /// Value: keyed hash of the token (32).
    TOKEN_OF_SESSION token_of_session "token-of-session-1";

    /// Table: what engines keep of linked devices.
    /// Key: org, session, kind (1), hash of the name (16).
    /// Value: the length of the name (2), the name and the engine's value under the session's key.
    DEVICES devices "devices-2";

    /// Table: API keys.
    /// Key: org, key.
    /// Value: keyed hash of the hash (32), then [`portcullis_core::ApiKey`] under the org's key.
    KEYS keys "keys-1";

    /// Table: whose an API key is. An index across organisations: a caller comes with nothing but the key.
    /// Key: keyed hash of the hash (32).
    /// Value: org, key.
    KEY_HASHES key_hashes "key-hashes-1";

    /// Table: versions of plugins.
    /// Key: org, plugin, version (4).
    /// Value: digest (32), hash of the name (16), then [`portcullis_core::PluginVersion`] under the org's key.
    PLUGINS plugins "plugins-1";

    /// Table: which plugin has a name.
    /// Key: org, hash of the name (16).
    /// Value: plugin.
    PLUGIN_NAMES plugin_names "plugin-names-1";

    /// Table: components, once for each organisation and digest.
    /// Key: org, SHA-256 of the component (32).
    /// Value: the component under the org's key. It is code and not personal, but it is the organisation's property:
    /// sealed, it goes when the organisation goes, and no damaged byte of it is ever compiled.
    COMPONENTS components "components-1";

    /// Table: bindings.
    /// Key: org, binding.
    /// Value: generation (8), then [`portcullis_core::Binding`] under the org's key.
    BINDINGS bindings "bindings-1";

    /// Table: versions of bindings that are no longer asked in an organisation.
    /// Key: org, binding, 1 for its candidate or 0 for the version that is bound (1).
    /// Value: the binding's generation (8), then [`portcullis_core::Suspension`] under the org's key.
    SUSPENSIONS suspensions "suspensions-1";

    /// Table: how candidates compare with what is bound. A sum across organisations.
    /// Key: binding, version of the candidate (4), org.
    /// Value: asked (8), diverged (8).
    TALLIES tallies "tallies-1";

    /// Table: secrets that plugins can use.
    /// Key: org, plugin, hash of the name (16).
    /// Value: name, secret and time under the org's key.
    SECRETS secrets "secrets-1";

    /// Table: whose signatures on plugins count.
    /// Key: org, publisher.
    /// Value: [`portcullis_core::Publisher`] under the org's key.
    PUBLISHERS publishers "publishers-1";

    /// Table: what callers have been asked.
    /// Key: org, keyed hash of the token's hash (32).
    /// Value: end (8), session or zeros (16), then [`portcullis_core::Confirmation`] under the session's key, or the org's
    /// where there is none.
    CONFIRMATIONS confirmations "confirmations-1";

    /// Table: confirmations by their ends, to forget those that can no longer be given.
    /// Key: org, end (8), keyed hash of the token's hash (32).
    /// Value: nothing.
    CONFIRMATIONS_AGE confirmations_age "confirmations-age-1";

    /// Table: what plugins are still to be told, or have asked for.
    /// Key: org, errand.
    /// Value: due (8), session or zeros (16), binding (16), plugin (16), 1 if it is a request and 0 if not (1), then
    /// [`portcullis_core::Errand`] under the session's key, or the org's where there is none.
    ERRANDS errands "errands-1";

    /// Table: which errands are due when, for each organisation, so that none stands in the way of another.
    /// Key: org, due (8), errand.
    /// Value: nothing.
    ERRANDS_DUE errands_due "errands-due-1";

    /// Table: the errands of plugins and bindings, which go with them. That happens on the writer's thread and must not look
    /// at all errands of the organisation.
    /// Key: org, plugin, binding, errand.
    /// Value: nothing.
    ERRANDS_OF_PLUGIN errands_of_plugin "errands-of-plugin-1";

    /// Table: the errands about single sessions, which go with them.
    /// Key: org, session, errand.
    /// Value: nothing.
    ERRANDS_OF_SESSION errands_of_session "errands-of-session-1";

    /// Table: how many operations a plugin has asked for in an organisation that are still to be done.
    /// Key: org, plugin.
    /// Value: how many (4).
    REQUEST_COUNTS request_counts "request-counts-1";

    /// Table: the facts that organisations have told, by the ids that they gave them.
    /// Key: org, hash of the id (16).
    /// Value: time (8).
    FACTS facts "facts-1";

    /// Table: facts by age, to forget the oldest.
    /// Key: org, time (8), hash of the id (16).
    /// Value: nothing.
    FACTS_AGE facts_age "facts-age-1";

    /// Table: webhooks.
    /// Key: org, webhook.
    /// Value: generation (8), session or zeros (16), 1 if it is told of events and 0 if not (1), then
    /// [`portcullis_core::Webhook`] under the session's key, or the org's where there is none.
    WEBHOOKS webhooks "webhooks-2";

    /// Table: webhooks by whom they hear of. Erasing a session happens on the writer's thread and must not look at all
    /// webhooks of the organisation, and what a session's events are told to is asked for with every event.
    /// Key: org, session or zeros for those that hear of all, webhook.
    /// Value: nothing.
    SESSION_WEBHOOKS session_webhooks "session-webhooks-2";

    /// Table: remembered messages.
    /// Key: org, session, message.
    /// Value: phase (1), when it changed (8), then [`portcullis_core::OutgoingMessage`] under the session's key.
    /// The phase is 0 for queued, 1 for sending, 2 for sent, 3 for failed.
    MESSAGES messages "messages-1";

    /// Table: the messages that are queued or being sent. A queue across organisations.
    /// Key: org, session, message.
    /// Value: nothing.
    MESSAGES_OPEN messages_open "messages-open-1";

    /// Table: the messages to which nothing more will happen, by age, to forget the oldest.
    /// Key: org, when it changed (8), session, message.
    /// Value: nothing.
    MESSAGES_AGE messages_age "messages-age-1";

    /// Table: the skeletons of decisions, which outlive their sessions.
    /// Key: org, decision.
    /// Value: [`portcullis_core::DecisionRecord`] without input, answers and free text, under the org's key.
    DECISIONS decisions "decisions-1";

    /// Table: the full records of decisions.
    /// Key: org, session or zeros, decision.
    /// Value: [`portcullis_core::DecisionRecord`] under the session's key, or the org's where there is no session;
    /// nothing at all once the session is erased.
    DECISION_RECORDS decision_records "decision-records-1";

    /// Table: the audit, in the order of its lines.
    /// Key: org, number of the line (8).
    /// Value: link (32), audit entry (16), then [`portcullis_core::AuditEntry`] under the org's key. The envelope is bound to the
    /// entry's id, because the number is not known when it is sealed.
    AUDIT audit "audit-2";

    /// Table: the last line of each audit.
    /// Key: org.
    /// Value: number (8), link (32).
    AUDIT_ENDS audit_ends "audit-ends-1";

    /// Table: the receipts in the audit.
    /// Key: org, the session; or zeros for the platform, and the org that was erased.
    /// Value: number of the line (8).
    RECEIPTS receipts "receipts-1";

    /// Table: events in the outbox, by session.
    /// Key: org, session or zeros, place (8).
    /// Value: event (16), kind (1), ordinal within the session (8), then [`portcullis_core::DomainEvent`] under the session's
    /// key, or the org's where there is no session and for what outlives it. The envelope is bound to the event's id,
    /// because the place is not known when it is sealed.
    EVENTS events "events-2";

    /// Table: events in the outbox, in the order of their commits.
    /// Key: org, place (8).
    /// Value: session or zeros (16), kind (1), time (8).
    OUTBOX outbox "outbox-1";

    /// Table: the last place of an organisation's outbox; and the last ordinal of a session's events, or of those without a session.
    /// Key: org; or org, session or zeros.
    /// Value: the last one given out (8).
    OUTBOX_ENDS outbox_ends "outbox-ends-1";

    /// Table: how far webhooks have come.
    /// Key: org, webhook.
    /// Value: the place through which everything is delivered or remembered (8), since when nothing was taken or 0 (8).
    PROGRESS progress "progress-1";

    /// Table: deliveries that are remembered.
    /// Key: org, line (17), place (8), part (1). A line is 0 and a webhook, or 1 and a plugin.
    /// Value: state (1), due (8), time (8), when it changed (8), session or zeros (16), event or the request's own id (16), then
    /// [`portcullis_core::DeliveryRecord`] under the session's key, or the org's where there is none and for farewells. The
    /// state is 0 for waiting, 1 for delivered, 2 for dead. The envelope is bound to org, line, id and part.
    DELIVERIES deliveries "deliveries-1";

    /// Table: the deliveries that wait, by when they are due.
    /// Key: org, line (17), due (8), place (8), part (1).
    /// Value: nothing.
    DELIVERIES_DUE deliveries_due "deliveries-due-1";

    /// Table: the deliveries that were given up.
    /// Key: org, line (17), place (8), part (1).
    /// Value: nothing.
    DEAD_LETTERS dead_letters "dead-letters-1";

    /// Table: timers of plugins.
    /// Key: org, plugin, hash of the timer's key (16).
    /// Value: due (8), session or zeros (16), then [`crate::PluginTimer`] under the session's key, or the org's where there is none.
    TIMERS timers "timers-1";

    /// Table: which timers are due when, for each organisation, so that none stands in the way of another.
    /// Key: org, due (8), plugin, hash of the timer's key (16).
    /// Value: nothing.
    TIMERS_DUE timers_due "timers-due-1";

    /// Table: how many timers a plugin has set in an organisation.
    /// Key: org, plugin.
    /// Value: how many (4).
    TIMER_COUNTS timer_counts "timer-counts-1";

    /// Table: what plugins keep for single sessions.
    /// Key: org, plugin, session, hash of the key (16).
    /// Value: as in the next table, but under the session's key.
    SESSION_KV session_kv "session-kv-1";

    /// Table: what plugins keep.
    /// Key: org, plugin, hash of the key (16).
    /// Value: version (8), expiry or all ones (8), bytes that count towards the quota (4), then the length of the key (2),
    /// the key and the value under the org's key.
    KV kv "kv-1";

    /// Table: how much a plugin keeps, for single sessions and otherwise.
    /// Key: org, plugin.
    /// Value: keys (4), bytes (8), the last version that a key of it got (8). It stays when the last key goes.
    KV_USAGE kv_usage "kv-usage-1";

    /// Table: hits of counters. The ordinals of one counter have no gaps, so a window is counted by its two ends.
    /// Key: org, the session or the plugin whose it is or zeros, hash of the counter's name (16), time (8), ordinal (8).
    /// Value: nothing.
    HITS hits "hits-1";

    /// Table: which counters were hit in which hour, to forget the oldest hits.
    /// Key: org, beginning of the hour (8), the session or the plugin whose it is or zeros, hash of the counter's name (16).
    /// Value: nothing.
    HITS_AGE hits_age "hits-age-1";

    /// Table: which message a request with an idempotency key has led to. The message may be gone with its session by now.
    /// Key: org, hash of the idempotency key (16).
    /// Value: time (8), session, message. Nothing is sealed, because nothing but ids is kept.
    IDEMPOTENCY idempotency "idempotency-2";

    /// Table: idempotency keys by age, to forget the oldest.
    /// Key: org, time (8), hash of the idempotency key (16).
    /// Value: nothing.
    IDEMPOTENCY_AGE idempotency_age "idempotency-age-1";

    /// Table: which request an idempotency key stands for, and what it was answered.
    /// Key: org, hash of the idempotency key (16).
    /// Value: time (8), digest of the request (32), what was done (ids of a session, a thing and a decision or zeros, and a byte for
    /// whether it was so already); once there is a reply, org and session of its owner, then the reply under that owner's key.
    /// The envelope is bound to the row's key.
    REPLIES replies "replies-2";

    /// Table: those keys by age, to forget the oldest.
    /// Key: org, time (8), hash of the idempotency key (16).
    /// Value: nothing.
    REPLIES_AGE replies_age "replies-age-1";

    /// Table: owners whose rows are gone and whose keys are still to be destroyed.
    /// Key: org, session, or zeros for the org itself.
    /// Value: slot (4), slot generation (4), since (8), when its rows went (8), discarded events (8), SHA-256 of the slot as it
    /// was (32), then a session's [`portcullis_core::Removal`] as JSON: ids, times and words only.
    TOMBSTONES tombstones "tombstones-2";
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_table_has_a_version_and_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|table| table.name().to_owned()).collect();
        assert_eq!(names.len(), ALL.len());
        let versioned = |name: &str| name.rsplit_once('-').is_some_and(|(_, version)| version.parse::<u32>().is_ok());
        assert!(names.iter().all(|name| versioned(name)), "{names:?}");
    }
}
