//! What a request asks for and what it is answered, in the words of the service and of no dialect.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::operation::SendText;
use portcullis_core::{
    ApiKey, BindingId, DecisionId, DecisionRecord, Delivery, DeliveryId, EventFormat, EventId, KeyId, MessageId,
    Operation, OperationKind, Org, OrgId, OutboxPlace, OutgoingMessage, PluginClass, PluginId, PluginRules,
    PluginVersion, Publisher, PublisherId, RatePolicy, Secret, Session, SessionId, Timestamp, Verdict, Webhook,
    WebhookId,
};
use portcullis_service::{
    AuditExport, AuditLine, BackupStream, BindingChange, BindingState, DecisionPage, DecisionQuery, DeliveryFilter,
    DeliveryRow, DeliveryRows, Dispatched, Done, Fact, KeyRequest, NewBinding, NewFact, NewKey, NewOrg, NewPublisher,
    Novelty, OrgChange, Page, PluginLogLine, Replay, Replayed, RequestQuery, Scan, Scanned, SecretName, Signature,
    SignedReceipt, SimulatorAct, WebhookHealth,
};
use tokio::time::Instant;

use crate::live::{Opened, Since};
use crate::places::Full;

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// An operation on a session.
    Operate {
        operation: Operation,
        then: WaitFor,
    },
    /// Pair by a code for this phone number; or, if a device is linked already, connect it.
    PairOrStart {
        session: SessionId,
        /// Digits only.
        phone: Secret,
        then: WaitFor,
    },
    /// One session.
    Session {
        session: SessionId,
    },
    /// Sessions, newest first. Who is bound to one session sees that one.
    Sessions {
        before: Option<SessionId>,
        limit: usize,
    },
    /// Sessions of all organisations, newest first.
    AllSessions {
        before: Option<SessionId>,
        limit: usize,
    },
    /// All sessions that fit, newest first, for dialects without pages.
    FindSessions(SessionFilter),
    /// Whether the caller may do what the route needs; nothing else.
    Nothing,
    /// A text to send, once, and perhaps later.
    Send {
        send: SendText,
        /// The caller's `Idempotency-Key`.
        key: Option<String>,
        /// Whether the answer does not wait for WhatsApp.
        queue: bool,
    },
    /// What became of a message.
    Message {
        session: SessionId,
        message: MessageId,
    },
    /// Webhooks: of the organisation and all its sessions, or those of one session in one format.
    Webhooks {
        of: Option<(SessionId, EventFormat)>,
    },
    /// One webhook.
    Webhook {
        webhook: WebhookId,
    },
    /// What a webhook was told, newest first.
    Deliveries {
        webhook: WebhookId,
        filter: DeliveryFilter,
        before: Option<DeliveryId>,
        limit: usize,
    },
    /// One delivery to a webhook.
    Delivery {
        webhook: WebhookId,
        delivery: DeliveryId,
    },
    /// Tell a webhook that it is tried out.
    TestWebhook {
        webhook: WebhookId,
    },
    /// A ticket for the stream of events.
    Ticket(StreamRequest),
    /// The stream of events itself.
    Follow(StreamRequest),
    /// The gateway's metrics.
    Metrics,
    /// A backup of everything.
    Backup,
    /// The key file that goes with it.
    BackupKeys,
    /// Another master key.
    RotateMasterKey,
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
        class: PluginClass,
        signature: Option<Signature>,
        wait: bool,
    },
    PluginLog {
        plugin: PluginId,
    },
    PluginRequests {
        plugin: PluginId,
        query: RequestQuery,
    },
    Secrets {
        plugin: PluginId,
    },
    PutSecret {
        plugin: PluginId,
        name: String,
        value: Secret,
    },
    DeleteSecret {
        plugin: PluginId,
        name: String,
    },
    Publishers,
    CreatePublisher(NewPublisher),
    DeletePublisher {
        publisher: PublisherId,
    },
    PluginRules,
    RequireSignature {
        required: bool,
    },
    Replay {
        plugin: PluginId,
        replay: Replay,
    },
    Scan {
        plugin: PluginId,
        scan: Scan,
    },
    /// The audit in order, from after a line on.
    ExportAudit {
        /// The number of the line.
        after: u64,
        /// How many lines at most.
        limit: Option<u64>,
    },
    /// Everything of a session that its owner may want to keep.
    ExportSession {
        /// The session.
        session: SessionId,
    },
    /// The receipt of a session that was erased.
    Receipt {
        /// The session.
        session: SessionId,
    },
    /// The receipt of an organisation that was erased.
    ReceiptOfOrg {
        /// The organisation.
        org: OrgId,
    },
    /// Something that happened outside of the gateway.
    Tell(NewFact),
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
    MoveBinding {
        binding: BindingId,
        to: Move,
    },
    DeleteBinding {
        binding: BindingId,
    },
    Decisions {
        query: DecisionQuery,
        before: Option<DecisionId>,
        limit: usize,
    },
    Decision {
        decision: DecisionId,
    },
    Audit {
        before: Option<u64>,
        limit: usize,
    },
}

impl Asked {
    /// The kind of operation that is asked for, if it is another than its route's.
    pub(crate) fn kind(&self) -> Option<OperationKind> {
        match self {
            Self::Operate { operation, .. } => Some(operation.kind()),
            Self::PairOrStart { .. } => Some(OperationKind::SessionPairingCode),
            _ => None,
        }
    }

    /// The same as somebody asks it who is bound to one session.
    pub(crate) fn seen_from(self, scope: Option<SessionId>) -> Self {
        match self {
            Self::Operate { operation, then } => Self::Operate { operation: operation.seen_from(scope), then },
            asked => asked,
        }
    }
}

/// Which sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionFilter {
    /// All of them.
    All,
    /// The one with this name within the organisation.
    InstanceName(String),
    /// The one with this UUID.
    Uuid(String),
    /// Those that are linked to, or meant for, this phone number.
    Phone(String),
}

/// What a stream of events is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamRequest {
    /// The only session; all of the organisation otherwise.
    pub(crate) session: Option<SessionId>,
    /// Every organisation's, which is the operator's.
    pub(crate) firehose: bool,
    /// The names of events, `*` for all.
    pub(crate) events: Vec<String>,
    /// What the client knows already.
    pub(crate) since: Option<Since>,
    /// When the caller's token ends, if it says so.
    pub(crate) until: Option<Timestamp>,
}

/// Where a binding goes that is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// On to its candidate.
    Candidate,
    /// Back to what was bound before.
    Previous,
    /// On as before, after it was suspended.
    Resumed,
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
    /// Nothing was done, because only the answer was wanted.
    DryRun(Verdict),
    /// An operation ended; the session is as of after the wait.
    Operated(Done),
    /// A deletion reached its end.
    Gone(Option<DecisionId>),
    Session(Arc<Session>),
    Sessions(Page<Arc<Session>>),
    RatePolicy {
        session: Arc<Session>,
        current: RatePolicy,
        policies: &'static [RatePolicy],
        used: (u64, u64),
        /// Whether the organisation has an active plan, which policies that are not free need.
        plan_active: bool,
    },
    /// All sessions that fit.
    Found(Vec<Arc<Session>>),
    /// The caller may.
    Permitted,
    /// A message is on its way, or was asked for before under the same key.
    Dispatched(Dispatched),
    Message(Box<OutgoingMessage>),
    Webhooks(Vec<Webhook>),
    /// A webhook, and how it fares.
    Webhook(Box<Webhook>, WebhookHealth),
    Deliveries(DeliveryRows),
    Delivery(Box<DeliveryRow>),
    /// A webhook will be told this event, in this delivery.
    Tested {
        event: EventId,
        delivery: Option<DeliveryId>,
    },
    Ticket(String),
    /// A stream of events, or that there is no place for another one.
    Followed(Result<Box<Opened>, Full>),
    Metrics(String),
    /// A backup, and when it must be taken.
    Backup(BackupStream, Instant),
    BackupKeys(Vec<u8>),
    /// How many keys were sealed anew.
    MasterKeyRotated(usize),
    Simulated,
    OrgCreated(Arc<Org>),
    Org(Arc<Org>),
    Orgs(Page<Org>),
    OrgErased,
    KeyCreated(NewKey),
    Keys(Vec<ApiKey>),
    KeyRevoked,
    Uploaded(Box<PluginVersion>, Novelty),
    UploadBegun,
    Catalogue(Vec<&'static str>),
    Plugins(Vec<PluginVersion>),
    PluginVersions(Vec<PluginVersion>),
    PluginDeleted,
    PluginLog(Vec<PluginLogLine>),
    PluginRequests(Page<(OutboxPlace, Delivery)>),
    Secrets(Vec<SecretName>),
    SecretPut,
    SecretDeleted,
    Publishers(Vec<Publisher>),
    PublisherCreated(Publisher),
    PublisherDeleted,
    PluginRules(PluginRules),
    Replayed(Box<Replayed>),
    Scanned(Box<Scanned>),
    Told(Fact),
    BindingCreated(Box<BindingState>),
    Binding(Box<BindingState>),
    Bindings(Vec<BindingState>),
    BindingDeleted,
    Decisions(DecisionPage),
    Decision(Box<DecisionRecord>),
    Audit(Page<AuditLine>),
    /// An audit in order, to be read bit by bit.
    AuditExport(Box<AuditExport>),
    /// A session with what its owner may want to keep.
    SessionExport {
        /// The session.
        session: Arc<Session>,
        /// Its webhooks.
        webhooks: Vec<Webhook>,
        /// What of the audit is about it.
        export: Box<AuditExport>,
    },
    /// A receipt.
    Receipt(Box<SignedReceipt>),
}

impl Answer {
    /// The decision that led to this answer, if policy was asked.
    pub(crate) fn decision(&self) -> Option<DecisionId> {
        match self {
            Self::Operated(done) | Self::Dispatched(Dispatched::Done(done)) => done.decision,
            Self::Dispatched(Dispatched::Queued { decision, .. }) | Self::Gone(decision) => *decision,
            _ => None,
        }
    }
}
