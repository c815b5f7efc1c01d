//! What a request asks for and what it is answered, in the words of the service and of no dialect.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{
    ApiKey, AuditEntry, AuditId, Binding, BindingId, DecisionId, DecisionRecord, KeyId, Operation, Org, OrgId,
    PluginId, PluginVersion, RatePolicy, Session, SessionId,
};
use portcullis_service::{
    BindingChange, Done, KeyRequest, NewBinding, NewKey, NewOrg, OrgChange, Page, SimulatorAct, Uploaded,
};

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// An operation on a session.
    Operate {
        operation: Operation,
        then: WaitFor,
    },
    /// One session.
    Session {
        session: SessionId,
    },
    /// Sessions, newest first.
    Sessions {
        before: Option<SessionId>,
        limit: usize,
    },
    /// A session's rate policy and what is used of it.
    RatePolicy {
        session: SessionId,
    },
    /// Act as the simulated phone or network.
    Simulate {
        session: SessionId,
        act: SimulatorAct,
    },
    CreateOrg(NewOrg),
    Orgs {
        after: Option<OrgId>,
        limit: usize,
    },
    Org {
        org: OrgId,
    },
    UpdateOrg {
        org: OrgId,
        change: OrgChange,
    },
    EraseOrg {
        org: OrgId,
    },
    CreateKey {
        org: OrgId,
        key: KeyRequest,
    },
    Keys {
        org: OrgId,
    },
    RevokeKey {
        org: OrgId,
        key: KeyId,
    },
    UploadPlugin {
        component: Component,
        wait: bool,
    },
    Catalogue,
    Plugins,
    PluginVersions {
        plugin: PluginId,
    },
    DeletePlugin {
        plugin: PluginId,
    },
    CreateBinding(Box<NewBinding>),
    Bindings,
    Binding {
        binding: BindingId,
    },
    UpdateBinding {
        binding: BindingId,
        change: Box<BindingChange>,
    },
    DeleteBinding {
        binding: BindingId,
    },
    Decisions {
        session: Option<SessionId>,
        before: Option<DecisionId>,
        limit: usize,
    },
    Decision {
        decision: DecisionId,
    },
    Audit {
        before: Option<AuditId>,
        limit: usize,
    },
}

/// Where a component comes from.
#[derive(Debug)]
pub(crate) enum Component {
    /// The request's body.
    Bytes(Vec<u8>),
    /// The catalogue.
    Catalogue(String),
}

/// What to wait for after an operation, before answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// Nothing.
    Nothing,
    /// A code to show or tell to the phone.
    PairingCode(Duration),
    /// The end of a deletion that was begun.
    Gone(Duration),
}

/// What the service answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An operation ended; the session is as of after the wait.
    Operated(Done),
    /// A deletion reached its end.
    Gone,
    Session(Arc<Session>),
    Sessions(Page<Arc<Session>>),
    RatePolicy {
        session: Arc<Session>,
        current: RatePolicy,
        policies: Vec<RatePolicy>,
        used: (u64, u64),
    },
    Simulated,
    OrgCreated(Arc<Org>),
    Org(Arc<Org>),
    Orgs(Page<Org>),
    OrgErased,
    KeyCreated(NewKey),
    Keys(Vec<ApiKey>),
    KeyRevoked,
    Uploaded(Uploaded),
    UploadBegun,
    Catalogue(Vec<&'static str>),
    Plugins(Vec<PluginVersion>),
    PluginVersions(Vec<PluginVersion>),
    PluginDeleted,
    BindingCreated(Arc<Binding>),
    Binding(Arc<Binding>),
    Bindings(Vec<Binding>),
    BindingDeleted,
    Decisions(Page<DecisionRecord>),
    Decision(Box<DecisionRecord>),
    Audit(Page<AuditEntry>),
}

impl Answer {
    /// The decision that led to this answer, if policy was asked.
    pub(crate) fn decision(&self) -> Option<DecisionId> {
        match self {
            Self::Operated(done) => done.decision,
            _ => None,
        }
    }
}
