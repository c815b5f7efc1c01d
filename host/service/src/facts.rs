//! Facts: what happened outside of the gateway, told by the organisation so that its plugins can act on it.
//!
//! A fact is told once under an id of its teller's. Telling it again answers the same document; telling another one under its id is refused.
//! It is one commit: the id, the event for webhooks, the audit, and an errand for each plugin that listens.

use portcullis_core::{DomainEvent, EventBody, EventId, OperationKind, Permit, SessionId, Timestamp};
use portcullis_store::{Commit, CommitError, Expectation, FACT_BYTES, FactRecord, QuotaKind};
use serde_json::{Value, json};

use crate::errands::MOST_WAITING;
use crate::orgs::{admin_audit, admin_error};
use crate::queries::expect;
use crate::{Call, Service, ServiceError, mint};

/// The longest name of a fact, in bytes.
const MAX_NAME: usize = 128;
/// The largest payload of a fact as JSON text, in bytes.
const MAX_DATA: usize = 32 << 10;
/// What the names of the gateway's own events begin with.
const OWN_NAMES: [&str; 4] = ["session.", "message.", "plugin.", "policy."];
/// When there may be room for more errands.
const BACKLOG_RETRY: std::time::Duration = std::time::Duration::from_secs(30);

/// A fact as it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFact {
    /// The teller's own id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The session that it is about.
    pub session: Option<SessionId>,
    /// When it happened; now if that is not said.
    pub at: Option<Timestamp>,
    /// Its payload.
    pub data: Value,
}

/// A fact that was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The event that it became.
    pub event: EventId,
    /// The teller's own id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The session that it is about.
    pub session: Option<SessionId>,
    /// When it happened.
    pub at: Timestamp,
    /// Whether it had been told before.
    pub known: bool,
}

impl Service {
    /// Tells a fact.
    ///
    /// # Errors
    /// If a value breaks its bounds, there is no such session, the id stands for another fact, too much waits to be told already,
    /// or the store fails.
    pub async fn tell_fact(&self, permit: &Permit, new: NewFact, call: &Call) -> Result<Fact, ServiceError> {
        expect(permit, OperationKind::EventTell)?;
        let data = check(&new)?;
        if permit.target().session != new.session {
            return Err(ServiceError::NotFound("session"));
        }
        if let Some(known) = self.known(permit, &new)? {
            return Ok(known);
        }
        let (org, now) = (permit.target().org, self.now());
        let mut commit = Commit::new(org, now);
        if let Some(id) = new.session {
            let session = self.store.snapshot()?.session(org, id)?.ok_or(ServiceError::NotFound("session"))?;
            commit.expect.push(Expectation::Session(id, Some(session.generation)));
        }
        let event = DomainEvent {
            id: mint::id(EventId::new, now),
            org,
            session: new.session,
            at: new.at.unwrap_or(now),
            generation: 0,
            device: None,
            body: EventBody::Fact { id: new.id.clone(), name: new.name.clone(), json: data },
        };
        let fact = Fact {
            event: event.id,
            id: new.id.clone(),
            name: new.name.clone(),
            session: new.session,
            at: event.at,
            known: false,
        };
        commit.fact = Some(FactRecord { id: new.id.clone(), content: content(&new), event: event.id });
        let mut entry = admin_audit(permit, org, OperationKind::EventTell, event.id.to_string(), call.request, now);
        entry.session = new.session;
        commit.audit.push(entry);
        commit.events.push(event);
        if self.store.snapshot()?.count(org, QuotaKind::Errands)? >= MOST_WAITING {
            return Err(ServiceError::Backlog { retry_after: BACKLOG_RETRY });
        }
        if call.dry_run {
            self.store.check(commit).await.map_err(told_error)?;
            return Err(ServiceError::DryRun);
        }
        match self.write_claiming(commit, 0, call.claim.as_ref()).await.map_err(told_error) {
            Ok(_) => Ok(fact),
            // Somebody told it at the same time.
            Err(ServiceError::FactTaken) => self.known(permit, &new)?.ok_or(ServiceError::FactTaken),
            Err(error) => Err(error),
        }
    }

    /// The fact, if it was told before.
    fn known(&self, permit: &Permit, new: &NewFact) -> Result<Option<Fact>, ServiceError> {
        let found = self.store.snapshot()?.fact(permit.target().org, &new.id, &content(new), self.now())?;
        match found {
            None => Ok(None),
            Some(known) if !known.same => Err(ServiceError::FactTaken),
            Some(known) => Ok(Some(Fact {
                event: known.event,
                id: new.id.clone(),
                name: new.name.clone(),
                session: new.session,
                at: new.at.unwrap_or(known.at),
                known: true,
            })),
        }
    }
}

/// Whether a fact keeps its bounds; its payload as text.
fn check(new: &NewFact) -> Result<String, ServiceError> {
    let invalid = |field: &'static str, message: String| Err(ServiceError::Invalid { field, message });
    if new.id.is_empty() || new.id.len() > FACT_BYTES || !new.id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return invalid("id", format!("id must be 1 to {FACT_BYTES} printable ASCII characters without spaces"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if new.name.is_empty() || new.name.len() > MAX_NAME || !new.name.bytes().all(plain) {
        return invalid(
            "name",
            format!("name must be 1 to {MAX_NAME} of the characters a-z, A-Z, 0-9, '.', '_' and '-'"),
        );
    }
    if let Some(own) = OWN_NAMES.iter().find(|own| new.name.starts_with(**own)) {
        return invalid("name", format!("names that begin with {own} are the gateway's own"));
    }
    let data = new.data.to_string();
    if data.len() > MAX_DATA {
        return invalid("data", format!("data has {} bytes and {MAX_DATA} are allowed", data.len()));
    }
    Ok(data)
}

/// Everything that was told, the same for the same fact: the fields of JSON objects are in order here.
fn content(new: &NewFact) -> Vec<u8> {
    json!([new.name, new.session, new.at, new.data]).to_string().into_bytes()
}

fn told_error(error: CommitError) -> ServiceError {
    match error {
        CommitError::FactKnown => ServiceError::FactTaken,
        CommitError::UnknownSession(_) => ServiceError::NotFound("session"),
        error => admin_error(error),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn fact() -> NewFact {
        NewFact {
            id: "inv_7".into(),
            name: "subscription.cancelled".into(),
            session: None,
            at: None,
            data: json!({ "plan": "pro" }),
        }
    }

    #[test]
    fn facts_have_names_of_their_own() {
        for (name, fits) in [
            ("subscription.cancelled", true),
            ("sessions.of.ours", true),
            (&"a".repeat(128), true),
            (&"a".repeat(129), false),
            ("", false),
            ("with space", false),
            ("session.deleted", false),
            ("message.in", false),
            ("plugin.suspended", false),
            ("policy.denied", false),
        ] {
            assert_eq!(check(&NewFact { name: name.to_owned(), ..fact() }).is_ok(), fits, "{name}");
        }
    }

    #[test]
    fn ids_and_payloads_are_bounded() {
        for (id, fits) in
            [("a", true), (&"a".repeat(128), true), (&"a".repeat(129), false), ("", false), ("a b", false)]
        {
            assert_eq!(check(&NewFact { id: id.to_owned(), ..fact() }).is_ok(), fits, "{id}");
        }
        // A text in JSON has two quotes around it.
        for (length, fits) in [(MAX_DATA - 2, true), (MAX_DATA - 1, false)] {
            assert_eq!(check(&NewFact { data: json!("x".repeat(length)), ..fact() }).is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn the_order_of_fields_makes_no_other_fact() {
        let of = |text: &str| content(&NewFact { data: serde_json::from_str(text).unwrap(), ..fact() });
        assert_eq!(of(r#"{"a": 1, "b": {"c": 2, "d": 3}}"#), of(r#"{"b": {"d": 3, "c": 2}, "a": 1}"#));
        assert_ne!(of(r#"{"a": 1}"#), of(r#"{"a": 2}"#));
    }
}
