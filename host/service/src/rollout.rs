//! Roll-outs: a candidate beside the bound version, its promotion, the way back, and what a binding shows of all that.
//!
//! ```text
//! PATCH candidate ─▶ shadow (0 %) or share of sessions ─▶ promote ─▶ bound, with the way back
//!                                                                      rollback ─▶ what was bound before
//! ```

use std::sync::Arc;

use portcullis_core::verdict::Allowance;
use portcullis_core::{Binding, BindingId, Candidate, OperationKind, OrgId, Permit, Suspension, Tally, Verdict};
use portcullis_store::{Commit, Snapshot, Write};

use crate::orgs::admin_audit;
use crate::queries::expect;
use crate::{Call, Done, Outcome, Service, ServiceError};

/// A binding with how it fares.
#[derive(Debug, Clone)]
pub struct BindingState {
    /// The binding.
    pub binding: Arc<Binding>,
    /// How its candidate compares, if it has one.
    pub tally: Option<Tally>,
    /// Set if the bound version is not asked in the organisation because it failed too often there.
    pub suspension: Option<Suspension>,
    /// The same of its candidate.
    pub candidate_suspension: Option<Suspension>,
}

impl Service {
    /// All bindings, in the order in which they are asked.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn list_bindings(&self, permit: &Permit) -> Result<Vec<BindingState>, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        let (org, snapshot) = (permit.target().org, self.store.snapshot()?);
        let mut bindings = snapshot.bindings(org)?;
        bindings.sort_by_key(|binding| (binding.order, binding.id));
        bindings.into_iter().map(|binding| state(org, Arc::new(binding), &snapshot)).collect()
    }

    /// One binding.
    ///
    /// # Errors
    /// If there is none, or the store cannot be read.
    pub fn binding(&self, permit: &Permit, id: BindingId) -> Result<BindingState, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        let (org, snapshot) = (permit.target().org, self.store.snapshot()?);
        let binding = snapshot.binding(org, id)?.ok_or(ServiceError::NotFound("binding"))?;
        state(org, Arc::new(binding), &snapshot)
    }

    /// A binding of an answer, with how it fares.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn state_of(&self, permit: &Permit, binding: Arc<Binding>) -> Result<BindingState, ServiceError> {
        state(permit.target().org, binding, &self.store.snapshot()?)
    }

    /// Binds the candidate, with its settings.
    ///
    /// # Errors
    /// If there is no such binding, it has no candidate, or as [`Service::update_binding`].
    pub async fn promote(self: &Arc<Self>, permit: &Permit, id: BindingId, call: Call) -> Result<Done, ServiceError> {
        let next = |binding: &mut Binding| {
            let Candidate { version, settings, .. } = binding.candidate.take().ok_or(ServiceError::NoCandidate)?;
            let settings = settings.unwrap_or_else(|| binding.settings.clone());
            binding.rebind(version, settings);
            Ok(())
        };
        self.move_binding(permit, id, next, call).await
    }

    /// Binds again what was bound before the present version, with the settings and grants of that time. Done twice, it changes nothing.
    ///
    /// # Errors
    /// If there is no such binding, nothing was bound before, or as [`Service::update_binding`].
    pub async fn roll_back(self: &Arc<Self>, permit: &Permit, id: BindingId, call: Call) -> Result<Done, ServiceError> {
        let next = |binding: &mut Binding| if binding.roll_back() { Ok(()) } else { Err(ServiceError::NoPrevious) };
        self.move_binding(permit, id, next, call).await
    }

    /// Asks a binding again that was suspended in the organisation, and its candidate.
    ///
    /// # Errors
    /// If there is no such binding, or the store fails.
    pub async fn resume(self: &Arc<Self>, permit: &Permit, id: BindingId, call: Call) -> Result<Done, ServiceError> {
        expect(permit, OperationKind::BindingUpdate)?;
        let (org, snapshot) = (permit.target().org, self.store.snapshot()?);
        // The platform's bindings are suspended in one organisation at a time, too; only the operator can know of them.
        let owner = if permit.principal().is_operator() { OrgId::PLATFORM } else { org };
        let found = match snapshot.binding(org, id)? {
            Some(binding) => Some(binding),
            None => snapshot.binding(owner, id)?,
        };
        let binding = Arc::new(found.ok_or(ServiceError::NotFound("binding"))?);
        if snapshot.suspensions(org)?.iter().all(|suspension| suspension.binding != id) {
            return Ok(unchanged(Outcome::Bound(binding), &call));
        }
        let mut commit = Commit::new(org, self.now());
        commit.writes.push(Write::RemoveSuspensions(id));
        let subject = id.to_string();
        commit.audit.push(admin_audit(permit, org, OperationKind::BindingUpdate, subject, call.request, commit.now));
        self.carry_out(&call, commit).await?;
        self.chains.changed(org);
        Ok(unchanged(Outcome::Bound(binding), &call))
    }

    async fn move_binding(
        self: &Arc<Self>,
        permit: &Permit,
        id: BindingId,
        next: impl FnOnce(&mut Binding) -> Result<(), ServiceError>,
        call: Call,
    ) -> Result<Done, ServiceError> {
        expect(permit, OperationKind::BindingUpdate)?;
        let current =
            self.store.snapshot()?.binding(permit.target().org, id)?.ok_or(ServiceError::NotFound("binding"))?;
        let mut binding = current.clone();
        next(&mut binding)?;
        self.replace_binding(permit, &current, binding, &[], call).await
    }
}

/// The answer to a call that policy is not asked about.
pub(crate) fn unchanged(shown: Outcome, call: &Call) -> Done {
    let outcome = if call.dry_run { Outcome::DryRun(Verdict::Allowed(Allowance::default())) } else { shown };
    Done { session: None, outcome, decision: None }
}

/// A binding as an organisation sees it.
fn state(org: OrgId, binding: Arc<Binding>, snapshot: &Snapshot) -> Result<BindingState, ServiceError> {
    let tally = match &binding.candidate {
        Some(candidate) => Some(snapshot.tally(binding.id, candidate.version)?),
        None => None,
    };
    let suspensions = snapshot.suspensions(org)?;
    let of = |candidate| suspensions.iter().find(|found| found.holds_for(&binding, candidate)).cloned();
    let (suspension, candidate_suspension) = (of(false), of(true));
    Ok(BindingState { binding, tally, suspension, candidate_suspension })
}
