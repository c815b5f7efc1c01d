//! Replays: what a version of a plugin would have answered to the decisions of the past, as a table of what would change.
//!
//! ```text
//! recorded decisions, newest first ─▶ those in which the plugin took part ─▶ the same inputs, the same reads ─▶ same, changed, not exact
//! ```
//!
//! A decision keeps what every plugin saw, so the answer is the one that would have been given then. Where the version reads
//! what the record does not tell, its answer is reported as not exact and compared with nothing. Nothing is done or recorded.
//! A decision that plugins amended has two rounds; the first is replayed about the operation as it was asked for, the second about
//! what it became, and an answer that would have amended it otherwise is compared with the first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_core::confirmation::Question;
use portcullis_core::verdict::{Amendment, fold_confirmed};
use portcullis_core::{
    Answer, BindingId, Capability, Decision, DecisionId, DecisionRecord, Denial, FailureFold, FirstRound, Grant, Mode,
    OperationKind, OrgId, Permit, PluginFailure, PluginId, PluginVersion, SessionId, Timestamp, Verdict, fold,
};
use portcullis_policy::{ReadsFrom, RecordedInput, RecordedLink, Rehearsal, RehearsalError, Rehearsed, Said};
use portcullis_store::Snapshot;

use crate::decisions::DecisionQuery;
use crate::execute::BUSY_RETRY;
use crate::queries::expect;
use crate::{Service, ServiceError};

/// The most decisions that one replay asks about.
pub const MOST_REPLAYED: usize = 1_000;
/// How many decisions are looked at to find those.
const LOOKED_AT: usize = 20_000;
/// How many decisions are read at once.
const PAGE: usize = 200;
/// How long one replay or scan may take; it answers what it has by then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What is to be replayed.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// Which version of the plugin; the newest if none is named.
    pub version: Option<u32>,
    /// Its settings, a JSON document; those of the time of each decision if there are none.
    pub settings: Option<String>,
    /// How many decisions, the newest first.
    pub last: usize,
    /// Which decisions.
    pub query: DecisionQuery,
}

/// What would change.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    /// Which version was asked.
    pub version: u32,
    /// How many answers were asked for.
    pub asked: usize,
    /// How many would be the same.
    pub same: usize,
    /// How many could not be found out, because the version reads what was not recorded.
    pub not_exact: usize,
    /// How many decisions were left out because their session was erased.
    pub erased: usize,
    /// How many were left out because what the plugins saw was too large to be recorded.
    pub too_large: usize,
    /// Whether the plugin never took part, so that it was asked about whatever its hooks fit. It knows no reads then.
    pub never_asked: bool,
    /// Whether all that was asked for was looked at in time.
    pub complete: bool,
    /// The answers that would be others.
    pub changes: Vec<Change>,
}

/// An answer that would be another.
#[derive(Debug, Clone)]
pub struct Change {
    /// The decision.
    pub decision: DecisionId,
    /// When it was made.
    pub at: Timestamp,
    /// About which session.
    pub session: Option<SessionId>,
    /// About which operation.
    pub operation: OperationKind,
    /// Through which binding the plugin was asked, if it was.
    pub binding: Option<BindingId>,
    /// What it answered, if it was asked.
    pub before: Option<Result<Decision, PluginFailure>>,
    /// What it would have answered.
    pub after: Result<Decision, PluginFailure>,
    /// The word for what all answers folded to.
    pub verdict_before: &'static str,
    /// The word for what they would have folded to.
    pub verdict_after: &'static str,
}

/// A version that is asked in replays and scans, and on what terms.
pub(crate) struct Tried {
    pub(crate) version: Arc<PluginVersion>,
    /// What it could use at most if it were bound now; a replay asks with the grants of the time, where there were any.
    pub(crate) grants: Vec<Grant>,
}

/// Which decisions there are to be replayed.
#[derive(Default)]
struct Found {
    took_part: Vec<DecisionId>,
    fits: Vec<DecisionId>,
    erased: usize,
    complete: bool,
}

impl Service {
    /// Asks a version of a plugin again about decisions of the past.
    ///
    /// # Errors
    /// If there is no such version, the caller may not read decisions, another replay of the organisation is under way, or the store cannot be read.
    pub async fn replay_plugin(
        &self,
        permit: &Permit,
        plugin: PluginId,
        replay: Replay,
    ) -> Result<Replayed, ServiceError> {
        expect(permit, OperationKind::PluginReplay)?;
        if !permit.principal().capabilities.allow(Capability::Audit) {
            return Err(Denial::Forbidden(Capability::Audit).into());
        }
        let org = permit.target().org;
        let began = Instant::now();
        let _place = self.rehearsing.enter(org, 1).map_err(|_full| ServiceError::Busy { retry_after: BUSY_RETRY })?;
        let snapshot = self.snapshot()?;
        let tried = self.tried(permit, plugin, replay.version, &snapshot).await?;
        if let Some(settings) = &replay.settings {
            self.check_settings(&tried.version, settings).await?;
        }
        let found = find(&snapshot, org, &tried.version, &replay, began)?;
        let mut replayed = Replayed {
            version: tried.version.version,
            erased: found.erased,
            never_asked: found.took_part.is_empty() && !found.fits.is_empty(),
            complete: found.complete,
            ..Replayed::default()
        };
        let decisions = if replayed.never_asked { found.fits } else { found.took_part };
        for id in decisions {
            if began.elapsed() > PATIENCE {
                replayed.complete = false;
                break;
            }
            // It may have been forgotten meanwhile.
            let Some(record) = snapshot.decision(org, id)? else { continue };
            self.replay_one(&tried, &record, replay.settings.as_deref(), &mut replayed).await?;
        }
        Ok(replayed)
    }

    async fn replay_one(
        &self,
        tried: &Tried,
        record: &DecisionRecord,
        settings: Option<&str>,
        replayed: &mut Replayed,
    ) -> Result<(), ServiceError> {
        let Some(rounds) = Round::all_of(record) else {
            replayed.too_large += 1;
            return Ok(());
        };
        for binding in places(record, &tried.version) {
            self.replay_place(tried, record, &rounds, binding, settings, replayed).await?;
        }
        Ok(())
    }

    /// Asks the version in one place, round by round: only a first round that comes to the same amendments has the recorded second one.
    async fn replay_place(
        &self,
        tried: &Tried,
        record: &DecisionRecord,
        rounds: &[Round<'_>],
        binding: Option<BindingId>,
        settings: Option<&str>,
        replayed: &mut Replayed,
    ) -> Result<(), ServiceError> {
        for round in rounds {
            let Some((link, answer)) = round.place(binding, tried) else { continue };
            let rehearsed = self.rehearse(tried, record.org, &round.input, &link, settings).await?;
            if rehearsed.unrecorded.is_some() {
                replayed.asked += 1;
                replayed.not_exact += 1;
                return Ok(());
            }
            let after = decided(rehearsed);
            let folded = round.folded(answer, &tried.version, &after);
            if round.patches.is_some_and(|patches| patches == patches_of(&folded)) {
                continue;
            }
            replayed.asked += 1;
            if answer.is_some_and(|answer| answer.result == after) {
                replayed.same += 1;
                return Ok(());
            }
            replayed.changes.push(Change {
                decision: record.id,
                at: record.at,
                session: record.session,
                operation: record.operation,
                binding: answer.map(|answer| answer.binding),
                before: answer.map(|answer| answer.result.clone()),
                after,
                verdict_before: record.verdict.name(),
                verdict_after: folded.name(),
            });
            return Ok(());
        }
        Ok(())
    }

    async fn rehearse(
        &self,
        tried: &Tried,
        org: OrgId,
        input: &RecordedInput,
        link: &RecordedLink,
        settings: Option<&str>,
    ) -> Result<Rehearsed, ServiceError> {
        let version = &tried.version;
        // What it could use then, as far as this version asks for it.
        let grants: Vec<Grant> = link.grants.iter().copied().filter(|grant| version.asks_for(*grant)).collect();
        let rehearsal = Rehearsal {
            digest: version.digest,
            class: version.class,
            org,
            owner: version.org,
            plugin: version.plugin,
            grants: &grants,
            // Only gates are replayed, and they send nothing.
            http_hosts: &[],
            question: input.before(link, settings),
            reads: ReadsFrom::Recorded(link.reads.clone()),
        };
        self.runtime.rehearse(rehearsal).await.map_err(|error| match error {
            RehearsalError::Overloaded => ServiceError::Busy { retry_after: BUSY_RETRY },
            error => ServiceError::Invalid { field: "version", message: error.to_string() },
        })
    }

    /// A version of a plugin of the organisation, or of the platform for the operator, ready to be asked.
    pub(crate) async fn tried(
        &self,
        permit: &Permit,
        plugin: PluginId,
        number: Option<u32>,
        snapshot: &Arc<Snapshot>,
    ) -> Result<Tried, ServiceError> {
        let org = permit.target().org;
        let mut versions = snapshot.plugin_versions(org, plugin)?;
        if versions.is_empty() && permit.principal().is_operator() {
            versions = snapshot.plugin_versions(OrgId::PLATFORM, plugin)?;
        }
        if versions.is_empty() {
            return Err(ServiceError::NotFound("plugin"));
        }
        let version = match number {
            Some(number) => versions.into_iter().find(|version| version.version == number),
            None => versions.into_iter().max_by_key(|version| version.version),
        };
        let version = version.ok_or(ServiceError::NotFound("plugin version"))?;
        let (owner, digest, bytes) = (version.org, version.digest, Arc::clone(snapshot));
        let load = self.runtime.load(digest, version.class, move || bytes.component(owner, digest).ok().flatten());
        if let Err(error) = load.await {
            let error: &dyn std::error::Error = &*error;
            tracing::warn!(%plugin, error, "a plugin could not be loaded");
            return Err(ServiceError::Invalid { field: "version", message: PluginFailure::Unavailable.to_string() });
        }
        let rules = self.rules(org);
        let grants = version.wanted().filter(|grant| rules.beyond_ceiling(&[*grant]).is_none());
        Ok(Tried { grants: grants.collect(), version: Arc::new(version) })
    }
}

/// Finds the decisions that a replay is about.
fn find(
    snapshot: &Snapshot,
    org: OrgId,
    version: &PluginVersion,
    replay: &Replay,
    began: Instant,
) -> Result<Found, ServiceError> {
    let mut found = Found { complete: true, ..Found::default() };
    let last = replay.last.min(MOST_REPLAYED);
    // Which plugins were asked is no longer known of a session that was erased, so nothing is left to the filter that rests on it.
    let query = DecisionQuery { plugin: None, ..replay.query.clone() };
    let (mut before, mut looked_at) = (None, 0);
    loop {
        let page = snapshot.decisions(org, before, &query.filter(), PAGE)?;
        for record in &page.decisions {
            looked_at += 1;
            if found.took_part.len() + found.erased >= last {
                return Ok(found);
            }
            let hooked = version.hooks.is_empty() || version.hooks.contains(&record.operation);
            if record.answers.is_empty() {
                found.erased += usize::from(hooked);
            } else if record.answers.iter().any(|answer| answer.plugin == version.plugin && !answer.shadow) {
                found.took_part.push(record.id);
            } else if hooked && found.fits.len() < last {
                found.fits.push(record.id);
            }
        }
        before = page.next;
        if before.is_none() {
            return Ok(found);
        }
        if looked_at >= LOOKED_AT || began.elapsed() > PATIENCE / 2 {
            found.complete = false;
            return Ok(found);
        }
    }
}

/// One asking of a recorded chain.
struct Round<'a> {
    input: RecordedInput,
    answers: &'a [Answer],
    /// The patches that it came to, if another round followed.
    patches: Option<&'a [Amendment]>,
    /// What the caller had confirmed by then.
    confirmed: Vec<Question>,
}

impl<'a> Round<'a> {
    /// The rounds of a decision, in their order; none if not all that was seen in them is recorded.
    fn all_of(record: &'a DecisionRecord) -> Option<Vec<Self>> {
        let mut rounds = Vec::with_capacity(2);
        if let Some(FirstRound { input, answers, patches }) = &record.first_round {
            // A round that another one followed left no question open.
            let (confirmed, patches) = (Question::all_of(answers), Some(patches.as_slice()));
            rounds.push(Self { input: parsed(input.as_deref())?, answers, patches, confirmed });
        }
        let answers = &record.answers;
        let confirmed = match fold(answers).name() == record.verdict.name() {
            true => Vec::new(),
            false => Question::all_of(answers),
        };
        rounds.push(Self { input: parsed(record.input.as_deref())?, answers, patches: None, confirmed });
        Some(rounds)
    }

    /// Where the plugin was asked through this binding, with what it saw and said; without a binding a made-up place at the end.
    fn place(&self, binding: Option<BindingId>, tried: &Tried) -> Option<(RecordedLink, Option<&'a Answer>)> {
        let Some(binding) = binding else {
            let link = RecordedLink {
                position: u32::try_from(self.answers.len()).unwrap_or(u32::MAX),
                binding: BindingId::from_bytes([0; 16]),
                shadow: false,
                settings: "{}".to_owned(),
                grants: tried.grants.clone(),
                reads: Vec::new(),
            };
            return Some((link, None));
        };
        let link = self.input.links.iter().find(|link| link.binding == binding && !link.shadow)?;
        let answer = self.answers.iter().find(|answer| answer.binding == binding && !answer.shadow)?;
        Some((link.clone(), Some(answer)))
    }

    /// What the answers would have folded to with one in the place of another, or one more.
    fn folded(
        &self,
        answer: Option<&Answer>,
        version: &PluginVersion,
        after: &Result<Decision, PluginFailure>,
    ) -> Verdict {
        let mut answers = self.answers.to_vec();
        match answer.and_then(|answer| answers.iter_mut().find(|other| *other == answer)) {
            Some(place) => place.result.clone_from(after),
            None => answers.push(made_up(u32::try_from(answers.len()).unwrap_or(u32::MAX), version, after)),
        }
        fold_confirmed(&answers, &self.confirmed)
    }
}

fn parsed(input: Option<&str>) -> Option<RecordedInput> {
    RecordedInput::parse(input?).ok()
}

/// The bindings through which the plugin was asked in a decision; one made-up place if it never was.
fn places(record: &DecisionRecord, version: &PluginVersion) -> Vec<Option<BindingId>> {
    let own = record.answers.iter().filter(|answer| answer.plugin == version.plugin && !answer.shadow);
    let bindings: Vec<_> = own.map(|answer| Some(answer.binding)).collect();
    if bindings.is_empty() { vec![None] } else { bindings }
}

fn patches_of(verdict: &Verdict) -> &[Amendment] {
    match verdict {
        Verdict::Allowed(allowance) | Verdict::Deferred { allowance, .. } => &allowance.patches,
        Verdict::Denied { .. } | Verdict::ConfirmationRequired { .. } => &[],
    }
}

fn decided(rehearsed: Rehearsed) -> Result<Decision, PluginFailure> {
    match rehearsed.result {
        Ok(Said::Decision(decision)) => Ok(decision),
        Ok(_) => Err(PluginFailure::BadOutput),
        Err(failure) => Err(failure),
    }
}

/// An answer as if a binding had asked for it.
fn made_up(position: u32, version: &PluginVersion, result: &Result<Decision, PluginFailure>) -> Answer {
    Answer {
        position,
        binding: BindingId::from_bytes([0; 16]),
        owner: version.org,
        plugin: version.plugin,
        plugin_name: version.name.clone(),
        version: version.version,
        digest: version.digest,
        signer: version.signer,
        mode: Mode::Enforce,
        shadow: false,
        on_failure: FailureFold::Deny,
        result: result.clone(),
        fuel: 0,
        micros: 0,
        memory: 0,
    }
}
