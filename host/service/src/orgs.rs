//! Organisations: made, changed and erased by the operator.

use std::sync::{Arc, PoisonError};

use portcullis_core::{
    AuditEntry, AuditId, AuditOutcome, Grant, Labels, OperationKind, Org, OrgId, Permit, Plan, PluginRules, Quotas,
    RequestId, Timestamp, label,
};
use portcullis_engine::{Command, Task};
use portcullis_store::{Commit, CommitError, Expectation, Write};

use crate::{Call, Service, ServiceError, StoreFailure, mint};

/// The longest name of an organisation, a key or a session, in bytes.
pub(crate) const MAX_NAME: usize = 200;

/// What a new organisation is to be.
#[derive(Debug, Clone, Default)]
pub struct NewOrg {
    /// Its name.
    pub name: String,
    /// Its plan.
    pub plan: Plan,
    /// Its quotas.
    pub quotas: Quotas,
    /// Its labels.
    pub labels: Labels,
}

/// What to change about an organisation; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct OrgChange {
    /// Another name.
    pub name: Option<String>,
    /// Another plan.
    pub plan: Option<Plan>,
    /// Other quotas; what is left out stays.
    pub quotas: QuotaChange,
    /// Other labels, all of them.
    pub labels: Option<Labels>,
    /// Whether it is suspended.
    pub suspended: Option<bool>,
    /// Another ceiling of its plugins' grants; none within lifts it.
    pub plugin_ceiling: Option<Option<Vec<Grant>>>,
    /// Whether the operator lets only signed plugins be bound.
    pub require_signature: Option<bool>,
}

/// What to change about quotas; `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
pub struct QuotaChange {
    /// Sessions that exist.
    pub sessions: Option<u32>,
    /// Keys that open something.
    pub keys: Option<u32>,
    /// Plugins that exist.
    pub plugins: Option<u32>,
    /// Plugin versions of the `large` class that exist.
    pub large_plugins: Option<u32>,
    /// Keys that each plugin keeps.
    pub kv_keys: Option<u32>,
    /// Bytes that the keys and values of each plugin have together.
    pub kv_bytes: Option<u32>,
    /// Bindings that exist.
    pub bindings: Option<u32>,
    /// Webhooks that exist.
    pub webhooks: Option<u32>,
    /// Messages that wait to be sent.
    pub queued_messages: Option<u32>,
    /// Operations under way at once.
    pub concurrency: Option<u32>,
}

impl QuotaChange {
    fn apply(self, quotas: &mut Quotas) {
        let Quotas {
            sessions,
            keys,
            plugins,
            large_plugins,
            kv_keys,
            kv_bytes,
            bindings,
            webhooks,
            queued_messages,
            concurrency,
        } = quotas;
        *sessions = self.sessions.unwrap_or(*sessions);
        *keys = self.keys.unwrap_or(*keys);
        *plugins = self.plugins.unwrap_or(*plugins);
        *large_plugins = self.large_plugins.unwrap_or(*large_plugins);
        *kv_keys = self.kv_keys.unwrap_or(*kv_keys);
        *kv_bytes = self.kv_bytes.unwrap_or(*kv_bytes);
        *bindings = self.bindings.unwrap_or(*bindings);
        *webhooks = self.webhooks.unwrap_or(*webhooks);
        *queued_messages = self.queued_messages.unwrap_or(*queued_messages);
        *concurrency = self.concurrency.unwrap_or(*concurrency);
    }
}

impl Service {
    /// Makes an organisation.
    ///
    /// # Errors
    /// If the name or the labels break their bounds, or the store fails.
    pub async fn create_org(&self, permit: &Permit, new: NewOrg, call: &Call) -> Result<Arc<Org>, ServiceError> {
        check_name("name", &new.name)?;
        check_name("plan.name", &new.plan.name)?;
        check_labels(&new.labels)?;
        let now = self.now();
        let org = Org {
            id: mint::id(OrgId::new, now),
            name: new.name,
            plan: new.plan,
            quotas: new.quotas,
            labels: new.labels,
            plugin_rules: PluginRules::default(),
            suspended: false,
            erasing: false,
            generation: 1,
            created_at: now,
            updated_at: now,
        };
        let mut commit = Commit::new(org.id, now);
        commit.expect.push(Expectation::Org(None));
        commit.writes.push(Write::PutOrg(org.clone()));
        commit.audit.push(admin_audit(permit, org.id, OperationKind::OrgCreate, org.id.to_string(), call.request, now));
        self.carry_out(call, commit).await?;
        self.put_org(org.clone());
        Ok(Arc::new(org))
    }

    /// Changes an organisation.
    ///
    /// # Errors
    /// If it does not exist, a value breaks its bounds, or the store fails.
    pub async fn update_org(&self, permit: &Permit, change: OrgChange, call: &Call) -> Result<Arc<Org>, ServiceError> {
        let id = permit.target().org;
        if let Some(name) = &change.name {
            check_name("name", name)?;
        }
        if let Some(plan) = &change.plan {
            check_name("plan.name", &plan.name)?;
        }
        if let Some(labels) = &change.labels {
            check_labels(labels)?;
        }
        let now = self.now();
        let current = self.org(id).ok_or(ServiceError::NotFound("organisation"))?;
        let mut org = Org::clone(&current);
        org.name = change.name.unwrap_or(org.name);
        org.plan = change.plan.unwrap_or(org.plan);
        change.quotas.apply(&mut org.quotas);
        org.labels = change.labels.unwrap_or(org.labels);
        org.suspended = change.suspended.unwrap_or(org.suspended);
        let rules = &mut org.plugin_rules;
        rules.ceiling = change.plugin_ceiling.unwrap_or_else(|| rules.ceiling.take());
        rules.require_signature = change.require_signature.unwrap_or(rules.require_signature);
        org.generation += 1;
        org.updated_at = now;
        let mut commit = Commit::new(id, now);
        commit.expect.push(Expectation::Org(Some(current.generation)));
        commit.writes.push(Write::PutOrg(org.clone()));
        commit.audit.push(admin_audit(permit, id, OperationKind::OrgUpdate, id.to_string(), call.request, now));
        self.carry_out(call, commit).await?;
        self.put_org(org.clone());
        // The operator's ceiling is part of every link of the chain.
        self.chains.changed(id);
        Ok(Arc::new(org))
    }

    /// Erases an organisation with everything it owns. From the first commit on nothing can happen under it, and the platform's audit
    /// says who asked; what a crash leaves of it goes at the next start.
    ///
    /// # Errors
    /// If it does not exist or the store fails; an erasure that was begun is finished at the next start.
    pub async fn erase_org(&self, permit: &Permit, call: &Call) -> Result<(), ServiceError> {
        let id = permit.target().org;
        let current = self.org(id).ok_or(ServiceError::NotFound("organisation"))?;
        let now = self.now();
        let mut org = Org::clone(&current);
        org.erasing = true;
        org.generation += 1;
        org.updated_at = now;
        let mut commit = Commit::new(id, now);
        commit.expect.push(Expectation::Org(Some(current.generation)));
        commit.writes.push(Write::PutOrg(org.clone()));
        // The organisation's own audit goes with it; that it goes and who asked is the platform's to remember, from now on.
        commit.audit.push(admin_audit(
            permit,
            OrgId::PLATFORM,
            OperationKind::OrgDelete,
            id.to_string(),
            call.request,
            now,
        ));
        self.carry_out(call, commit).await?;
        self.put_org(org);
        self.finish_org_erasure(id).await
    }

    /// Finishes every erasure of an organisation that a crash interrupted.
    pub(crate) async fn finish_org_erasures(&self) {
        let erasing: Vec<OrgId> = {
            let orgs = self.orgs.read().unwrap_or_else(PoisonError::into_inner);
            orgs.values().filter(|org| org.erasing).map(|org| org.id).collect()
        };
        for org in erasing {
            if let Err(error) = self.finish_org_erasure(org).await {
                tracing::error!(%org, error = &error as &dyn std::error::Error, "an organisation's erasure did not finish");
            }
        }
    }

    async fn finish_org_erasure(&self, id: OrgId) -> Result<(), ServiceError> {
        self.keyring.forget_org(id);
        let sessions = self.views.newest(id, None, usize::MAX);
        let (engine, now) = (Arc::clone(&self.engine), self.now());
        let halted: Vec<_> = sessions.iter().map(|session| session.id).collect();
        let halt = move || {
            for session in halted {
                if let Some(attempt) = engine.run(session) {
                    engine.perform(Command { org: id, session, task: Task::Halt { attempt } }, now);
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(halt).await {
            tracing::error!(org = %id, %error, "the engine panicked while an organisation was erased");
        }
        let mut commit = Commit::new(id, now);
        commit.writes.push(Write::EraseOrg);
        self.store.commit(commit).await.map_err(admin_error)?;
        self.finish_erasures().await?;
        for session in sessions {
            self.views.remove(id, session.id);
        }
        self.chains.changed(id);
        self.forget_org(id);
        Ok(())
    }
}

impl Service {
    /// Makes the commit of an administrative call. Of a call that is only tried the commit is checked, and nothing is made:
    /// every such call ends here, with an error that says so.
    pub(crate) async fn carry_out(&self, call: &Call, commit: Commit) -> Result<(), ServiceError> {
        self.carry_out_or(call, commit, admin_error).await
    }

    /// The same for commits that can be refused for reasons of their own.
    pub(crate) async fn carry_out_or(
        &self,
        call: &Call,
        commit: Commit,
        refused: impl FnOnce(CommitError) -> ServiceError,
    ) -> Result<(), ServiceError> {
        if call.dry_run {
            self.store.check(commit).await.map_err(refused)?;
            return Err(ServiceError::DryRun);
        }
        self.commit_claiming(commit, call.claim.as_ref()).await.map_err(refused).map(drop)
    }
}

/// The audit entry of an administrative operation that was done.
pub(crate) fn admin_audit(
    permit: &Permit,
    org: OrgId,
    operation: OperationKind,
    subject: String,
    request: Option<RequestId>,
    now: Timestamp,
) -> AuditEntry {
    AuditEntry {
        id: mint::id(AuditId::new, now),
        org,
        at: now,
        actor: permit.principal().kind.clone(),
        request,
        operation,
        session: None,
        subject: Some(subject),
        outcome: AuditOutcome::Done,
        decision: None,
    }
}

/// What a commit of an administrative operation that did not hold means to its caller.
pub(crate) fn admin_error(error: CommitError) -> ServiceError {
    match error {
        CommitError::Conflict => ServiceError::Contention,
        CommitError::Quota { of, max } => ServiceError::Quota { of: crate::undecided::quota_name(of), max },
        CommitError::UnknownOrg(_) => ServiceError::NotFound("organisation"),
        CommitError::NameTaken => ServiceError::NameTaken,
        error => ServiceError::Store(StoreFailure::Commit(error)),
    }
}

pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), ServiceError> {
    let fits = !name.trim().is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    let message = format!("{field} must be 1 to {MAX_NAME} bytes of text without control characters");
    Err(ServiceError::Invalid { field, message })
}

pub(crate) fn check_labels(labels: &Labels) -> Result<(), ServiceError> {
    label::check(labels).map_err(|error| ServiceError::Invalid { field: "labels", message: error.to_string() })
}
