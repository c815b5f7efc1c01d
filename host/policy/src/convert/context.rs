//! The contract's context, as it is lowered: the record `context` of `types.wit` with words that never change borrowed instead of copied.
//!
//! The context is the largest thing that every call hands over, and the generated type owns each of its texts.
//! That these records are the contract's is checked whenever a function is looked up by its type, at the latest when a plugin is uploaded.

use serde::Serialize;
use wasmtime::component::{ComponentType, Lower};

use crate::bindings::portcullis::policy::types::{Confirmation, Label, Phase, PrincipalKind, Session};

/// Everything a decision may depend on, besides the operation and what the plugin reads.
#[derive(ComponentType, Lower, Serialize)]
#[component(record)]
pub(crate) struct Context {
    #[component(name = "decision-id")]
    pub(crate) decision_id: String,
    #[component(name = "binding-id")]
    pub(crate) binding_id: String,
    pub(crate) now: u64,
    pub(crate) seed: u64,
    pub(crate) phase: Phase,
    pub(crate) confirmed: Option<Confirmation>,
    pub(crate) principal: Principal,
    pub(crate) org: Org,
    pub(crate) session: Option<Session>,
    #[component(name = "dry-run")]
    pub(crate) dry_run: bool,
    pub(crate) settings: String,
}

impl Context {
    /// Fills in what differs from binding to binding.
    pub(crate) fn speak_to(&mut self, binding: &portcullis_core::Binding) {
        self.binding_id = binding.id.to_string();
        self.settings.clone_from(&binding.settings);
    }

    /// Takes out what differs from binding to binding, for the record.
    pub(crate) fn speak_to_nobody(&mut self) {
        self.binding_id.clear();
        self.settings.clear();
    }
}

/// Who asks.
#[derive(ComponentType, Lower, Serialize)]
#[component(record)]
pub(crate) struct Principal {
    pub(crate) kind: PrincipalKind,
    pub(crate) id: Option<String>,
    pub(crate) capabilities: Vec<&'static str>,
    #[component(name = "session-scope")]
    pub(crate) session_scope: Option<String>,
}

/// An organisation.
#[derive(ComponentType, Lower, Serialize)]
#[component(record)]
pub(crate) struct Org {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) plan: String,
    #[component(name = "plan-active")]
    pub(crate) plan_active: bool,
    pub(crate) labels: Vec<Label>,
    pub(crate) quotas: Vec<(&'static str, u64)>,
}
