//! Scans: what a version of a plugin would answer about every session as it is now, before it is put to work.
//!
//! A scan asks the gate as a live operation does, with live reads and as a dry run, and drops everything that the plugin wants to keep.
//! It goes through the sessions page by page, oldest first, and holds no place of an operation meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use portcullis_core::operation::{WhenStopped, WhenUnpaired};
use portcullis_core::{
    Answer, Binding, BindingId, Capability, Decision, DecisionId, Denial, FailureFold, Hook, Mode, Operation,
    OperationKind, Permit, PluginFailure, PluginId, Selector, Session, SessionId, Timestamp,
};
use portcullis_policy::{Ask, Link};

use crate::execute::BUSY_RETRY;
use crate::queries::expect;
use crate::reads::OrgReads;
use crate::replay::{PATIENCE, Tried};
use crate::{Service, ServiceError, mint};

/// The most sessions of one page of a scan.
pub const MOST_SCANNED: usize = 500;

/// What is to be scanned.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Which version of the plugin; the newest if none is named.
    pub version: Option<u32>,
    /// Its settings, a JSON document.
    pub settings: Option<String>,
    /// About which operation; about all that the plugin wants to be asked about and that a session's id says in full, if none is named.
    pub operation: Option<OperationKind>,
    /// The last session of the page before.
    pub after: Option<SessionId>,
    /// How many sessions.
    pub limit: usize,
}

/// What would be answered.
#[derive(Debug, Clone, Default)]
pub struct Scanned {
    /// Which version was asked.
    pub version: u32,
    /// How many sessions were looked at.
    pub sessions: usize,
    /// How often each kind of answer would be given, by its word.
    pub answers: BTreeMap<&'static str, usize>,
    /// Where the operation would not simply be done.
    pub rows: Vec<ScanRow>,
    /// The last session of this page, if there are more.
    pub next: Option<SessionId>,
}

/// An operation that would not simply be done.
#[derive(Debug, Clone)]
pub struct ScanRow {
    /// About which session.
    pub session: SessionId,
    /// Which operation.
    pub operation: OperationKind,
    /// The plugin's answer.
    pub answer: Result<Decision, PluginFailure>,
}

impl Service {
    /// Asks a version of a plugin about every session.
    ///
    /// # Errors
    /// If there is no such version, the caller may not read sessions, the plugin cannot be asked about such an operation,
    /// another scan of the organisation is under way, or the store cannot be read.
    pub async fn scan_plugin(&self, permit: &Permit, plugin: PluginId, scan: Scan) -> Result<Scanned, ServiceError> {
        expect(permit, OperationKind::PluginScan)?;
        if !permit.principal().capabilities.allow(Capability::Read) {
            return Err(Denial::Forbidden(Capability::Read).into());
        }
        let org = permit.target().org;
        let began = Instant::now();
        let _place = self.rehearsing.enter(org, 1).map_err(|_full| ServiceError::Busy { retry_after: BUSY_RETRY })?;
        let snapshot = self.snapshot()?;
        let owner = self.org(org).ok_or(ServiceError::NotFound("organisation"))?;
        let tried = self.tried(permit, plugin, scan.version, &snapshot).await?;
        let kinds = kinds(&scan, &tried)?;
        if let Some(settings) = &scan.settings {
            self.check_settings(&tried.version, settings).await?;
        }
        let link = [link(&tried, scan.settings.clone())];
        let limit = scan.limit.clamp(1, MOST_SCANNED);
        let mut sessions = snapshot.sessions(org, scan.after, limit + 1)?;
        let mut scanned = Scanned { version: tried.version.version, ..Scanned::default() };
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        let last = sessions.last().map(|session| session.id);
        for session in sessions {
            let session = Arc::new(session);
            let now = self.now();
            let ask = Ask {
                decision: mint::id(DecisionId::new, now),
                now,
                seed: mint::seed(),
                due_since: None,
                confirmed: None,
                principal: permit.principal().clone(),
                org: Arc::clone(&owner),
                session: Some(Arc::clone(&session)),
                dry_run: true,
            };
            for kind in &kinds {
                let Some(operation) = bare(*kind, session.id) else { continue };
                let reads = Arc::new(OrgReads { snapshot: Arc::clone(&snapshot), org, now, outbound: None });
                let run = self.runtime.gate(&link, &ask, &operation, reads).await;
                let Some(Answer { result, .. }) = run.answers.into_iter().next() else { continue };
                if result == Err(PluginFailure::Overloaded) {
                    return Err(ServiceError::Busy { retry_after: BUSY_RETRY });
                }
                scanned.take(&session, *kind, result);
            }
            scanned.sessions += 1;
            if began.elapsed() > PATIENCE && last != Some(session.id) {
                scanned.next = Some(session.id);
                return Ok(scanned);
            }
        }
        scanned.next = last.filter(|_| more);
        Ok(scanned)
    }
}

impl Scanned {
    fn take(&mut self, session: &Session, operation: OperationKind, answer: Result<Decision, PluginFailure>) {
        let (word, simple) = match &answer {
            Ok(Decision::Allow) => ("allow", true),
            Ok(Decision::Deny { .. }) => ("deny", false),
            Ok(Decision::Defer { .. }) => ("defer", false),
            Ok(Decision::Amend { .. }) => ("amend", true),
            Ok(Decision::Confirm { .. }) => ("confirm", false),
            Ok(Decision::Limit { .. }) => ("limit", true),
            Ok(Decision::Extend { .. }) => ("extend", true),
            Err(_) => ("failure", false),
        };
        *self.answers.entry(word).or_default() += 1;
        if !simple {
            self.rows.push(ScanRow { session: session.id, operation, answer });
        }
    }
}

/// The operations that are asked about.
fn kinds(scan: &Scan, tried: &Tried) -> Result<Vec<OperationKind>, ServiceError> {
    if !tried.version.exports.iter().any(|export| export == Hook::Gate.interface()) {
        let message = "the plugin exports no gate, so it is never asked about operations".to_owned();
        return Err(ServiceError::Invalid { field: "version", message });
    }
    match scan.operation {
        Some(kind) if is_scannable(kind) => Ok(vec![kind]),
        Some(kind) => {
            let message = format!("{} takes more than a session; a scan cannot ask about it", kind.name());
            Err(ServiceError::Invalid { field: "operation", message })
        }
        None => {
            let hooks = &tried.version.hooks;
            let wanted = |kind: &&OperationKind| is_scannable(**kind) && (hooks.is_empty() || hooks.contains(kind));
            let kinds: Vec<_> = OperationKind::ALL.iter().filter(wanted).copied().collect();
            if kinds.is_empty() {
                let message = "the plugin is asked about no operation that a session's id says in full".to_owned();
                return Err(ServiceError::Invalid { field: "operation", message });
            }
            Ok(kinds)
        }
    }
}

/// Whether a scan can ask about such operations: those that say everything with their name and their session.
#[must_use]
pub fn is_scannable(kind: OperationKind) -> bool {
    bare(kind, SessionId::from_bytes([0; 16])).is_some()
}

/// An operation that says everything with its name and its session.
fn bare(kind: OperationKind, session: SessionId) -> Option<Operation> {
    let (when_unpaired, when_stopped) = (WhenUnpaired::Refuse, WhenStopped::Refuse);
    Some(match kind {
        OperationKind::SessionStart => Operation::SessionStart { session, when_unpaired },
        OperationKind::SessionStop => Operation::SessionStop { session },
        OperationKind::SessionRestart => Operation::SessionRestart { session, when_unpaired, when_stopped },
        OperationKind::SessionLogout => Operation::SessionLogout { session, when_stopped },
        OperationKind::SessionDelete => Operation::SessionDelete { session },
        OperationKind::SessionRestore => Operation::SessionRestore { session },
        OperationKind::SessionQr => Operation::SessionQr { session },
        _ => return None,
    })
}

/// The version as if it were bound.
fn link(tried: &Tried, settings: Option<String>) -> Link {
    let version = Arc::clone(&tried.version);
    let binding = Binding {
        id: BindingId::from_bytes([0; 16]),
        org: version.org,
        plugin: version.plugin,
        version: version.version,
        hooks: Vec::new(),
        mode: Mode::Enforce,
        settings: settings.unwrap_or_else(|| "{}".to_owned()),
        on_failure: FailureFold::Deny,
        order: 0,
        grants: tried.grants.clone(),
        http_hosts: Vec::new(),
        selector: Selector::default(),
        authority: portcullis_core::Capabilities::default(),
        candidate: None,
        previous: None,
        wall_millis: None,
        generation: 1,
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    };
    Link::new(0, Arc::new(binding), version)
}
