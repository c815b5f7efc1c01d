//! Recorded decisions: found by what they are about, and shown without what is the operator's.

use portcullis_core::{
    Answer, BindingId, DecisionId, DecisionRecord, OperationKind, OrgId, Permit, PluginId, SessionId, Timestamp,
};
use portcullis_store::DecisionFilter;
use serde_json::Value;

use crate::queries::expect;
use crate::{Service, ServiceError};

/// Which decisions are looked for; empty looks for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionQuery {
    /// About this session.
    pub session: Option<SessionId>,
    /// About operations of this kind.
    pub operation: Option<OperationKind>,
    /// That ended so, by the stable word ([`DecisionRecord::ending`]).
    pub ending: Option<String>,
    /// For which this plugin was asked.
    pub plugin: Option<PluginId>,
    /// For which this binding was asked.
    pub binding: Option<BindingId>,
    /// Made then or later.
    pub since: Option<Timestamp>,
    /// Made before then.
    pub until: Option<Timestamp>,
}

impl DecisionQuery {
    pub(crate) fn filter(&self) -> DecisionFilter<'_> {
        DecisionFilter {
            session: self.session,
            operation: self.operation,
            verdict: self.ending.as_deref(),
            plugin: self.plugin,
            binding: self.binding,
            from: self.since,
            until: self.until,
            replayable: false,
        }
    }
}

/// Some of the decisions that are looked for, newest first. A page may be short though there are more.
#[derive(Debug, Clone)]
pub struct DecisionPage {
    /// The decisions.
    pub decisions: Vec<DecisionRecord>,
    /// Where the next page begins; none if this was the last.
    pub next: Option<DecisionId>,
}

impl Service {
    /// Recorded decisions, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn decisions(
        &self,
        permit: &Permit,
        query: &DecisionQuery,
        before: Option<DecisionId>,
        limit: usize,
    ) -> Result<DecisionPage, ServiceError> {
        expect(permit, OperationKind::DecisionRead)?;
        let mut page = self.store.snapshot()?.decisions(permit.target().org, before, &query.filter(), limit)?;
        page.decisions.iter_mut().for_each(|record| mask(permit, record));
        Ok(DecisionPage { decisions: page.decisions, next: page.next })
    }

    /// One recorded decision.
    ///
    /// # Errors
    /// If there is none, or the store cannot be read.
    pub fn decision(&self, permit: &Permit, id: DecisionId) -> Result<DecisionRecord, ServiceError> {
        expect(permit, OperationKind::DecisionRead)?;
        let found = self.store.snapshot()?.decision(permit.target().org, id)?;
        let mut record = found.ok_or(ServiceError::NotFound("decision"))?;
        mask(permit, &mut record);
        Ok(record)
    }
}

/// The settings of the platform's bindings are the operator's, also where they stand in an organisation's decision.
/// So is what its plugins read: codes under the operator's secrets are among it, and what those plugins keep about the organisation.
fn mask(permit: &Permit, record: &mut DecisionRecord) {
    if permit.principal().is_operator() {
        return;
    }
    let first = record.first_round.as_mut().map(|first| (&mut first.input, &first.answers));
    for (input, answers) in first.into_iter().chain([(&mut record.input, &record.answers)]) {
        mask_input(input, answers);
    }
}

fn mask_input(input: &mut Option<String>, answers: &[Answer]) {
    let mut of_platform = answers.iter().filter(|answer| answer.owner == OrgId::PLATFORM).peekable();
    if of_platform.peek().is_none() {
        return;
    }
    let bindings: Vec<String> = of_platform.map(|answer| answer.binding.to_string()).collect();
    let is_theirs = |binding: &str| bindings.iter().any(|own| own == binding);
    let Some(mut told) = input.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return };
    for link in told["links"].as_array_mut().into_iter().flatten() {
        if link["binding"].as_str().is_none_or(is_theirs) {
            (link["settings"], link["reads"]) = (Value::Null, Value::Null);
        }
    }
    *input = Some(told.to_string());
}
