//! Reading decisions: one of them, and pages of those that somebody looks for.
//!
//! What can be looked for is under seal, so a page is found by opening decisions, newest first. No call opens more than
//! [`LOOKED_AT`] of them: a page may be short, and even empty, though there are more, and says where to go on.

use portcullis_core::{BindingId, DecisionId, DecisionRecord, OperationKind, OrgId, PluginId, SessionId, Timestamp};

use super::Snapshot;
use crate::error::ReadError;
use crate::keyfile::Owner;
use crate::tables::{self, Prefix, key, part, session_part};

/// At most so many decisions are opened for one page.
const LOOKED_AT: usize = 1_000;

/// Which decisions are looked for; empty looks for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecisionFilter<'a> {
    /// About this session.
    pub session: Option<SessionId>,
    /// About operations of this kind.
    pub operation: Option<OperationKind>,
    /// That ended so, by the stable word ([`DecisionRecord::ending`]).
    pub verdict: Option<&'a str>,
    /// For which this plugin was asked. That is no longer known once the session is erased.
    pub plugin: Option<PluginId>,
    /// For which this binding was asked. That is no longer known once the session is erased.
    pub binding: Option<BindingId>,
    /// Made then or later.
    pub from: Option<Timestamp>,
    /// Made before then.
    pub until: Option<Timestamp>,
    /// Whose input was kept and is still there.
    pub replayable: bool,
}

impl DecisionFilter<'_> {
    /// Whether a decision can be one that is looked for, by what outlives its session.
    fn may_want(&self, skeleton: &DecisionRecord) -> bool {
        self.operation.is_none_or(|kind| skeleton.operation == kind)
            && self.verdict.is_none_or(|verdict| skeleton.ending() == verdict)
    }

    /// Whether it is, by all that is kept of it.
    fn wants(&self, record: &DecisionRecord) -> bool {
        (!self.replayable || record.input.is_some())
            && self.plugin.is_none_or(|plugin| record.answers.iter().any(|answer| answer.plugin == plugin))
            && self.binding.is_none_or(|binding| record.answers.iter().any(|answer| answer.binding == binding))
    }
}

/// Some of the decisions that somebody looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionPage {
    /// The decisions, newest first. Those of erased sessions have a verdict without text, and neither input nor answers.
    pub decisions: Vec<DecisionRecord>,
    /// The `before` of the next page; `None` if there are no more.
    pub next: Option<DecisionId>,
}

impl Snapshot {
    /// At most `limit` of the decisions that are looked for, newest first, from the one before `before` on.
    pub fn decisions(
        &self,
        org: OrgId,
        before: Option<DecisionId>,
        filter: &DecisionFilter<'_>,
        limit: usize,
    ) -> Result<DecisionPage, ReadError> {
        // The decisions of one session have rows of their own; whether they can be opened does not matter here.
        let (table, owner) = match filter.session {
            Some(session) => (tables::DECISION_RECORDS, key(&[&org.to_bytes(), &session.to_bytes()])),
            None => (tables::DECISIONS, org.to_bytes().to_vec()),
        };
        let own = Prefix::new(&[&owner]);
        let bound = |id: DecisionId| key(&[&owner, &id.to_bytes()]);
        let until = filter.until.map(|until| DecisionId::new(until, 0));
        let end = before.into_iter().chain(until).min().map(bound);
        let from = filter.from.map(|from| bound(DecisionId::new(from, 0)));
        let rows = self.table(table)?;
        let mut page = DecisionPage { decisions: Vec::new(), next: None };
        let mut last = None;
        for (looked_at, row) in rows.range::<&[u8]>(own.before(end.as_deref()))?.rev().enumerate() {
            let (row, _) = row?;
            if from.as_deref().is_some_and(|from| row.value() < from) {
                break;
            }
            if page.decisions.len() == limit || looked_at == LOOKED_AT {
                page.next = last;
                break;
            }
            let Some(id) = part(row.value(), owner.len()).map(DecisionId::from_bytes) else { continue };
            last = Some(id);
            let Some(skeleton) = self.skeleton(org, id)?.filter(|skeleton| filter.may_want(skeleton)) else { continue };
            let record = self.full(skeleton)?;
            if filter.wants(&record) {
                page.decisions.push(record);
            }
        }
        Ok(page)
    }

    /// One decision.
    pub fn decision(&self, org: OrgId, id: DecisionId) -> Result<Option<DecisionRecord>, ReadError> {
        self.skeleton(org, id)?.map(|skeleton| self.full(skeleton)).transpose()
    }

    /// When the oldest decision was made that an organisation still has.
    pub fn oldest_decision(&self, org: OrgId) -> Result<Option<Timestamp>, ReadError> {
        let own = Prefix::new(&[&org.to_bytes()]);
        let first = self.table(tables::DECISIONS)?.range::<&[u8]>(own.span())?.next().transpose()?;
        Ok(first.and_then(|(row, _)| part(row.value(), 16)).map(made_at))
    }

    /// What outlives the session of a decision.
    fn skeleton(&self, org: OrgId, id: DecisionId) -> Result<Option<DecisionRecord>, ReadError> {
        self.get(tables::DECISIONS, Owner::org(org), &key(&[&org.to_bytes(), &id.to_bytes()]), 0)
    }

    /// All that is kept of a decision.
    fn full(&self, skeleton: DecisionRecord) -> Result<DecisionRecord, ReadError> {
        let DecisionRecord { org, session, id, .. } = skeleton;
        let row = key(&[&org.to_bytes(), &session_part(session), &id.to_bytes()]);
        let rows = self.table(tables::DECISION_RECORDS)?;
        let full = match rows.get(&row[..])? {
            Some(value) if !value.value().is_empty() => {
                self.decode(tables::DECISION_RECORDS, Owner { org, session }, &row, &row, value.value(), 0)?
            }
            Some(_) | None => None,
        };
        Ok(full.unwrap_or(skeleton))
    }
}

/// When an id was made: its first 48 bits.
fn made_at([a, b, c, d, e, f]: [u8; 6]) -> Timestamp {
    Timestamp::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}
