//! Changes of plugins and bindings: operations like any other, about which the platform's plugins are asked.
//!
//! What such a change rests on besides its own rows (a binding needs its version, a plugin can only go when nothing binds it)
//! is looked at again under one lock right before the commit, because the writer does not check it.

use std::sync::Arc;

use portcullis_core::{
    Binding, Operation, Org, OrgId, Permit, Plan as Subscription, PluginClass, PluginId, PluginRules, PluginVersion,
    Quotas, Timestamp,
};
use portcullis_store::{Commit, Expectation, Quota, QuotaKind, Snapshot, Write};

use crate::execute::extend;
use crate::outcome::{Call, Done, Novelty};
use crate::plan::Plan;
use crate::ruling::{Case, Question};
use crate::undecided::Unsettled;
use crate::{Outcome, Service, ServiceError};

/// How many versions of one plugin are kept.
const MAX_VERSIONS: usize = 50;

/// Rows of plugins and bindings to write.
#[derive(Default)]
pub(crate) struct Rows {
    writes: Vec<Write>,
    expect: Vec<Expectation>,
    quotas: Vec<Quota>,
    /// The id of what changes, for the audit.
    subject: String,
    /// What the caller is shown.
    shown: Option<Outcome>,
}

impl Rows {
    /// Puts them into a commit.
    pub(crate) fn join(self, commit: &mut Commit) {
        commit.writes.extend(self.writes);
        commit.expect.extend(self.expect);
        commit.quotas.extend(self.quotas);
    }
}

impl Service {
    /// Changes a plugin or a binding of the permit's organisation, if policy agrees.
    pub(crate) async fn administer(
        self: &Arc<Self>,
        permit: &Permit,
        operation: Operation,
        component: Option<Vec<u8>>,
        call: Call,
    ) -> Result<Done, ServiceError> {
        let question =
            Question { component: component.map(Arc::new), ..Question::asked(permit, operation, call, self.now()) };
        self.ask_in_place(question).await
    }

    /// Commits a change of plugins or bindings.
    pub(crate) async fn settle_rows(
        self: &Arc<Self>,
        question: &Question,
        case: &Case,
        mut commit: Commit,
        rows: Rows,
        allowance: &portcullis_core::verdict::Allowance,
    ) -> Result<Done, Unsettled> {
        let decision = commit.decision.as_ref().map(|record| record.id);
        let alone = self.administering.lock().await;
        still_fits(&self.store.snapshot().map_err(ServiceError::from)?, question.org, &question.operation, &rows)?;
        let mut entry = question.audit(portcullis_core::AuditOutcome::Done, decision, None);
        entry.subject = Some(rows.subject.clone());
        let shown = rows.shown.clone();
        rows.join(&mut commit);
        commit.audit.push(entry);
        commit.limits = allowance.limits.iter().map(|limit| limit.check.clone()).collect();
        commit.done = Some(question.operation.kind());
        extend(question, case, &mut commit, allowance);
        self.tell_ended(question, case, &mut commit, portcullis_core::errand::Outcome::Done, None);
        self.commit_limited(commit, &allowance.limits, question).await?;
        self.chains.changed(question.org);
        drop(alone);
        Ok(Done { session: None, outcome: shown.unwrap_or(Outcome::Done), decision })
    }
}

/// What the platform is where an organisation is expected: nobody can change it, and it has no sessions.
pub(crate) fn platform(now: Timestamp) -> Org {
    Org {
        id: OrgId::PLATFORM,
        name: "platform".to_owned(),
        plan: Subscription::default(),
        quotas: Quotas::default(),
        labels: portcullis_core::Labels::new(),
        plugin_rules: PluginRules::default(),
        suspended: false,
        erasing: false,
        generation: 0,
        created_at: now,
        updated_at: now,
    }
}

/// Plans a change of plugins or bindings.
pub(crate) fn plan(question: &Question, case: &Case, operation: &Operation) -> Result<Plan, ServiceError> {
    let snapshot = &case.snapshot;
    let rows = match operation {
        Operation::PluginUpload(version) => upload(question, case, version)?,
        Operation::PluginDelete { plugin } => {
            if snapshot.plugin_versions(question.org, *plugin)?.is_empty() {
                return Err(ServiceError::NotFound("plugin"));
            }
            Rows { writes: vec![Write::RemovePlugin(*plugin)], subject: plugin.to_string(), ..Rows::default() }
        }
        Operation::BindingCreate(binding) => Rows {
            writes: vec![Write::PutBinding(Binding::clone(binding))],
            expect: vec![Expectation::Binding(binding.id, None)],
            quotas: vec![Quota { of: QuotaKind::Bindings, max: case.org.quotas.bindings }],
            subject: binding.id.to_string(),
            shown: Some(Outcome::Bound(Arc::new(Binding::clone(binding)))),
        },
        Operation::BindingUpdate(binding) => Rows {
            writes: vec![Write::PutBinding(Binding::clone(binding))],
            expect: vec![Expectation::Binding(binding.id, Some(binding.generation - 1))],
            quotas: Vec::new(),
            subject: binding.id.to_string(),
            shown: Some(Outcome::Bound(Arc::new(Binding::clone(binding)))),
        },
        Operation::BindingDelete { binding } => {
            let current = snapshot.binding(question.org, *binding)?.ok_or(ServiceError::NotFound("binding"))?;
            Rows {
                writes: vec![Write::RemoveBinding(*binding)],
                expect: vec![Expectation::Binding(*binding, Some(current.generation))],
                subject: binding.to_string(),
                ..Rows::default()
            }
        }
        _ => return Err(ServiceError::NotFound("plugin")),
    };
    Ok(Plan::Rows(rows))
}

/// The next version of a plugin, or what changes about a known one.
/// The number is found anew for every try: somebody else may have uploaded meanwhile.
fn upload(question: &Question, case: &Case, version: &PluginVersion) -> Result<Rows, ServiceError> {
    let versions = case.snapshot.plugins(question.org)?;
    let rows = |version: PluginVersion, novelty| Rows {
        writes: vec![Write::PutPlugin(version.clone())],
        subject: version.plugin.to_string(),
        shown: Some(Outcome::Uploaded(Box::new(version), novelty)),
        ..Rows::default()
    };
    if let Some(known) = versions.iter().find(|known| known.digest == version.digest) {
        return Ok(rows(PluginVersion { signer: version.signer, ..known.clone() }, Novelty::Known));
    }
    let named: Vec<_> = versions.iter().filter(|known| known.name == version.name).collect();
    let mut version = version.clone();
    version.plugin = named.first().map_or(version.plugin, |known| known.plugin);
    version.version = named.iter().map(|known| known.version).max().unwrap_or(0) + 1;
    let plugin = version.plugin;
    let quotas = &case.org.quotas;
    let large = versions.iter().filter(|known| known.class == PluginClass::Large).count();
    if version.class == PluginClass::Large && large >= quotas.large_plugins as usize {
        return Err(ServiceError::Quota { of: "plugin versions of the large class", max: quotas.large_plugins });
    }
    let bytes = question.component.as_deref().cloned().unwrap_or_default();
    let component = Write::PutComponent { digest: version.digest, bytes };
    let mut rows = rows(version, Novelty::New);
    rows.writes.insert(0, component);
    if named.is_empty() {
        rows.quotas.push(Quota { of: QuotaKind::Plugins, max: quotas.plugins });
    }
    if named.len() >= MAX_VERSIONS {
        let bindings = case.snapshot.bindings(question.org)?;
        let is_needed = |version: u32| bindings.iter().any(|binding| binding.needs(plugin, version));
        let oldest = named.iter().map(|known| known.version).filter(|version| !is_needed(*version)).min();
        let version = oldest.ok_or(ServiceError::Quota { of: "versions of one plugin", max: 50 })?;
        rows.writes.insert(0, Write::RemovePluginVersion { plugin, version });
    }
    Ok(rows)
}

/// Whether what the change rests on is still so.
fn still_fits(snapshot: &Snapshot, org: OrgId, operation: &Operation, rows: &Rows) -> Result<(), ServiceError> {
    for write in &rows.writes {
        let Write::RemovePluginVersion { plugin, version } = write else { continue };
        if snapshot.bindings(org)?.iter().any(|binding| binding.needs(*plugin, *version)) {
            return Err(ServiceError::Contention);
        }
    }
    match operation {
        Operation::BindingCreate(binding) | Operation::BindingUpdate(binding) => {
            let versions = std::iter::once(binding.version).chain(binding.candidate.as_ref().map(|next| next.version));
            for version in versions {
                snapshot.plugin(org, binding.plugin, version)?.ok_or(ServiceError::NotFound("plugin version"))?;
            }
            Ok(())
        }
        Operation::PluginDelete { plugin } if is_bound(snapshot, org, *plugin)? => {
            Err(ServiceError::InUse("a binding uses this plugin; delete the binding first"))
        }
        _ => Ok(()),
    }
}

fn is_bound(snapshot: &Snapshot, org: OrgId, plugin: PluginId) -> Result<bool, ServiceError> {
    Ok(snapshot.bindings(org)?.iter().any(|binding: &Binding| binding.plugin == plugin))
}
