//! One of each thing that the store keeps, and short ways to keep and read them.

use std::collections::BTreeMap;

use portcullis_core::confirmation::Question;
use portcullis_core::decision::Decision;
use portcullis_core::delivery::AttemptOutcome;
use portcullis_core::operation::SendText;
use portcullis_core::plugin::{FailureFold, Mode, Selector};
use portcullis_core::session::Names;
use portcullis_core::verdict::{Allowance, Veto};
use portcullis_core::{
    Answer, ApiKey, AuditEntry, AuditId, AuditOutcome, Binding, BindingId, Capabilities, Confirmation, DecisionId,
    DecisionRecord, Delivered, Delivery, DeliveryAttempt, DeliveryKey, DeliveryRecord, DeliveryState, DomainEvent,
    Errand, ErrandBody, ErrandId, EventBody, EventFormat, EventId, FirstRound, Intent, KeyId, Labels, Line, MessageId,
    MessageState, Operation, OperationKind, Org, OrgId, OutboxPlace, OutgoingMessage, Plan, PluginClass, PluginId,
    PluginRules, PluginVersion, Principal, PrincipalKind, Publisher, PublisherId, Quotas, RetryPolicy, Secret, Session,
    SessionId, Suspension, Timestamp, Verdict, Webhook, WebhookId, WebhookSpec,
};

use crate::{Commit, Committed, Erased, Expectation, FactRecord, PluginTimer, Snapshot, Store, Write};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(super) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + millis)
}

pub(super) fn org_id(byte: u8) -> OrgId {
    OrgId::from_bytes([byte; 16])
}

pub(super) fn session_id(byte: u8) -> SessionId {
    SessionId::from_bytes([byte; 16])
}

pub(super) fn plugin_id(byte: u8) -> PluginId {
    PluginId::from_bytes([byte; 16])
}

pub(super) fn org(byte: u8) -> Org {
    Org {
        id: org_id(byte),
        name: format!("Organisation {byte}"),
        plan: Plan::default(),
        quotas: Quotas::default(),
        labels: Labels::new(),
        plugin_rules: PluginRules::default(),
        suspended: false,
        erasing: false,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(super) fn session(owner: u8, byte: u8) -> Session {
    let names = Names::new(u128::from(byte), Some(format!("instance-{byte}")));
    Session::new(session_id(byte), org_id(owner), names, NOW)
}

pub(super) fn removed(session: &Session, since: Timestamp) -> Session {
    let mut next = session.changed(since);
    next.intent = Intent::Removed { due: since, reason: String::new(), since, was_running: false };
    next
}

/// An event that goes with its session, if it is about one.
pub(super) fn event(owner: u8, about: Option<u8>, unique: u128) -> DomainEvent {
    DomainEvent {
        id: EventId::new(NOW, unique),
        org: org_id(owner),
        session: about.map(session_id),
        at: NOW,
        generation: 1,
        device: None,
        body: EventBody::MessageIn {
            message: "3EB0".into(),
            from: "49151@s.whatsapp.net".into(),
            sender: None,
            name: None,
            sent_at: None,
            text: "hello".into(),
        },
    }
}

pub(super) fn audit(owner: u8, about: Option<u8>, unique: u128) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(NOW, unique),
        org: org_id(owner),
        at: NOW,
        actor: PrincipalKind::Operator,
        request: None,
        operation: OperationKind::SessionCreate,
        session: about.map(session_id),
        subject: None,
        outcome: AuditOutcome::Done,
        decision: None,
    }
}

pub(super) fn answer(denies: bool) -> Answer {
    let deny = Decision::Deny { code: "hold".into(), message: "a secret sentence".into(), retry_after: None };
    Answer {
        position: 0,
        binding: BindingId::from_bytes([4; 16]),
        owner: OrgId::PLATFORM,
        plugin: plugin_id(3),
        plugin_name: "grace-delete".into(),
        version: 2,
        digest: [5; 32],
        signer: None,
        mode: Mode::Enforce,
        shadow: false,
        on_failure: FailureFold::Deny,
        result: Ok(if denies { deny } else { Decision::Allow }),
        fuel: 7,
        micros: 8,
        memory: 9,
    }
}

pub(super) fn decision(owner: u8, about: Option<u8>, unique: u128) -> DecisionRecord {
    DecisionRecord {
        id: DecisionId::new(NOW, unique),
        org: org_id(owner),
        session: about.map(session_id),
        at: NOW,
        seed: 11,
        actor: PrincipalKind::Operator,
        operation: OperationKind::SessionDelete,
        due_since: None,
        input: Some(r#"{"text": "a secret input"}"#.into()),
        answers: vec![answer(false)],
        first_round: None,
        verdict: Verdict::Allowed(Allowance::default()),
        stopped: None,
    }
}

/// A fact with this id: something was paid.
pub(super) fn fact(id: &str) -> FactRecord {
    FactRecord { id: id.into(), content: b"paid".into(), event: EventId::from_bytes([7; 16]) }
}

pub(super) fn denied(owner: u8, about: u8, unique: u128) -> DecisionRecord {
    let veto = Veto {
        plugin: "grace-delete".into(),
        code: "hold".into(),
        message: "a secret sentence".into(),
        retry_after: Some(5),
        failure: None,
    };
    let verdict = Verdict::Denied { denials: vec![veto] };
    // Somebody had amended it before.
    let first = FirstRound {
        input: Some(r#"{"text": "a secret input"}"#.into()),
        answers: vec![answer(false)],
        patches: vec![],
    };
    DecisionRecord {
        answers: vec![answer(true)],
        first_round: Some(first),
        verdict,
        ..decision(owner, Some(about), unique)
    }
}

pub(super) fn api_key(owner: u8, byte: u8) -> ApiKey {
    ApiKey {
        id: KeyId::from_bytes([byte; 16]),
        org: org_id(owner),
        name: "build server".into(),
        capabilities: Capabilities::default(),
        session_scope: None,
        hash: [byte; 32],
        expires_at: None,
        revoked_at: None,
        created_at: NOW,
    }
}

pub(super) fn plugin(owner: u8, byte: u8, version: u32, digest: u8) -> PluginVersion {
    PluginVersion {
        plugin: plugin_id(byte),
        org: org_id(owner),
        version,
        name: format!("plugin-{byte}"),
        declared_version: "1.0.0".into(),
        description: "does things".into(),
        digest: [digest; 32],
        size: 3,
        contract: "0.1.0".into(),
        exports: vec!["gate".into()],
        settings_schema: None,
        hooks: vec![],
        events: vec![],
        wants: vec![],
        class: PluginClass::Standard,
        signer: None,
        uploaded_at: NOW,
    }
}

pub(super) fn binding(owner: u8, byte: u8) -> Binding {
    Binding {
        id: BindingId::from_bytes([byte; 16]),
        org: org_id(owner),
        plugin: plugin_id(3),
        version: 1,
        hooks: vec![],
        mode: Mode::Enforce,
        settings: "{}".into(),
        on_failure: FailureFold::Deny,
        order: 0,
        http_hosts: Vec::new(),
        grants: vec![],
        selector: Selector::default(),
        authority: Capabilities::all(),
        candidate: None,
        previous: None,
        wall_millis: None,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(super) fn timer(owner: u8, about: Option<u8>, name: &str, due: Timestamp) -> PluginTimer {
    PluginTimer {
        org: org_id(owner),
        plugin: plugin_id(3),
        binding: BindingId::from_bytes([4; 16]),
        key: name.into(),
        at: due,
        payload: "a payload".into(),
        session: about.map(session_id),
        attempts: 0,
    }
}

pub(super) fn webhook(owner: u8, about: Option<u8>, byte: u8) -> Webhook {
    Webhook {
        id: WebhookId::from_bytes([byte; 16]),
        org: org_id(owner),
        session: about.map(session_id),
        spec: WebhookSpec {
            format: EventFormat::Router,
            url: format!("https://example.org/{byte}"),
            events: vec!["*".into()],
            headers: BTreeMap::from([("x-key".into(), Secret::new("a secret header"))]),
            secret: Some(Secret::new("a secret to sign with")),
            retry: RetryPolicy::default(),
            active: true,
            path_per_event: false,
            inline_media: false,
        },
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
        retired: None,
        disabled: None,
    }
}

/// A delivery of a webhook's line at a place.
pub(super) fn delivery_key(byte: u8, place: u64) -> DeliveryKey {
    let line = Line::Webhook(WebhookId::from_bytes([byte; 16]));
    DeliveryKey { line, place: OutboxPlace(place), part: 0 }
}

pub(super) fn delivery(unique: u128, about: Option<u8>, state: DeliveryState) -> Delivery {
    let attempt = DeliveryAttempt {
        at: NOW,
        took_ms: 7,
        outcome: AttemptOutcome::Answered { status: 503, body: "not now".into() },
    };
    let record = DeliveryRecord { what: Delivered::Event, failures: 1, is_held: false, attempts: vec![attempt] };
    let (id, session) = (EventId::new(NOW, unique), about.map(session_id));
    Delivery { id, session, state, at: NOW, changed_at: NOW, record }
}

pub(super) fn waiting(due: Timestamp) -> DeliveryState {
    DeliveryState::Waiting { due }
}

pub(super) fn message_id(byte: u8) -> MessageId {
    MessageId::from_bytes([byte; 16])
}

/// A message that waits to be sent.
pub(super) fn message(owner: u8, about: u8, byte: u8) -> OutgoingMessage {
    let session = session_id(about);
    OutgoingMessage {
        id: message_id(byte),
        org: org_id(owner),
        session,
        asked_by: Principal::system(org_id(owner)),
        request: None,
        content: SendText::plain(session, "49151@s.whatsapp.net", "hello"),
        confirmed: None,
        state: MessageState::Queued,
        created_at: NOW,
        updated_at: NOW,
    }
}

/// What a plugin is to be told; ids follow the bytes.
pub(super) fn errand(owner: u8, about: Option<u8>, byte: u8, due: Timestamp) -> Errand {
    Errand {
        id: errand_id(byte),
        org: org_id(owner),
        binding: BindingId::from_bytes([4; 16]),
        plugin: plugin_id(3),
        session: about.map(session_id),
        depth: 0,
        due,
        attempts: 0,
        body: ErrandBody::Tell {
            event: EventId::from_bytes([byte; 16]),
            name: "session.linked".into(),
            at: NOW,
            about: None,
            json: r#"{"text": "a secret errand"}"#.into(),
        },
    }
}

/// An errand that asks for an operation.
pub(super) fn request(owner: u8, about: Option<u8>, byte: u8, due: Timestamp) -> Errand {
    let operation = Box::new(Operation::SessionStop { session: session_id(5) });
    Errand { body: ErrandBody::Request { operation }, ..errand(owner, about, byte, due) }
}

pub(super) fn errand_id(byte: u8) -> ErrandId {
    ErrandId::from_bytes([byte; 16])
}

/// What a caller is asked; it ends a second from now.
pub(super) fn confirmation(owner: u8, about: Option<u8>, byte: u8) -> Confirmation {
    Confirmation {
        hash: [byte; 32],
        org: org_id(owner),
        session: about.map(session_id),
        asker: PrincipalKind::Operator,
        operation: [7; 32],
        intent: None,
        questions: vec![Question {
            binding: BindingId::from_bytes([4; 16]),
            digest: [5; 32],
            prompt: "a secret question".into(),
            answer: Some("a secret answer".into()),
        }],
        expires: at(1_000),
    }
}

pub(super) fn suspension(owner: u8, byte: u8, generation: u64) -> Suspension {
    Suspension {
        org: org_id(owner),
        binding: BindingId::from_bytes([byte; 16]),
        candidate: false,
        version: 1,
        generation,
        since: NOW,
        failure: "plugin_trap".into(),
    }
}

pub(super) fn publisher(owner: u8, byte: u8) -> Publisher {
    Publisher {
        id: PublisherId::from_bytes([byte; 16]),
        org: org_id(owner),
        name: "a publisher".into(),
        public_key: [byte; 32],
        created_at: NOW,
    }
}

/// The message, further on.
pub(super) fn moved(message: &OutgoingMessage, state: MessageState, now: Timestamp) -> OutgoingMessage {
    OutgoingMessage { state, updated_at: now, ..message.clone() }
}

pub(super) fn sent(now: Timestamp) -> MessageState {
    MessageState::Sent { message: "3EB0".into(), at: now }
}

/// A session with a token.
pub(super) fn tokened(owner: u8, byte: u8, token: &str) -> Session {
    Session { token: Some(Secret::new(token)), ..session(owner, byte) }
}

/// A commit of an organisation that writes these rows.
pub(super) fn writing(owner: u8, writes: Vec<Write>) -> Commit {
    Commit { writes, ..Commit::new(org_id(owner), NOW) }
}

/// A whole creation of a session: row, audit, event and decision.
pub(super) fn creating(owner: u8, byte: u8) -> Commit {
    let unique = u128::from(byte);
    Commit {
        expect: vec![Expectation::Session(session_id(byte), None)],
        audit: vec![audit(owner, Some(byte), unique)],
        decision: Some(decision(owner, Some(byte), unique)),
        events: vec![event(owner, Some(byte), unique)],
        ..writing(owner, vec![Write::PutSession(session(owner, byte))])
    }
}

/// A store in memory with organisations 1 and 2.
pub(super) fn store() -> Store {
    let store = Store::in_memory().expect("a store in memory");
    keep(&store, writing(1, vec![Write::PutOrg(org(1))]));
    keep(&store, writing(2, vec![Write::PutOrg(org(2))]));
    store
}

pub(super) fn keep(store: &Store, commit: Commit) -> Committed {
    store.commit_blocking(commit).expect("a commit that holds")
}

pub(super) fn read(store: &Store) -> Snapshot {
    store.snapshot().expect("a snapshot")
}

pub(super) fn finish(store: &Store, now: Timestamp) -> Vec<Erased> {
    block_on(store.finish_erasures(now)).expect("finished")
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// The store has nothing to complain about.
/// What verifying finds. That a binding's version is there is looked at by the service before it commits and by verifying, but not
/// by the writer; most tests here bind what nobody has uploaded.
pub(super) fn findings(store: &Store) -> Vec<String> {
    let mut findings = store.verify().expect("verified").findings;
    findings.retain(|finding| !finding.contains(" binds version "));
    findings
}

pub(super) fn assert_sound(store: &Store) {
    assert_eq!(findings(store), Vec::<String>::new());
}

/// What the latest lines of an audit say, newest first.
pub(super) fn audited(snapshot: &Snapshot, org: OrgId, limit: usize) -> Vec<AuditEntry> {
    snapshot.audit(org, None, limit).expect("read").into_iter().map(|line| line.entry).collect()
}
