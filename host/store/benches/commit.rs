//! How fast lifecycle commits become durable: through the store, and as raw redb writes of the same bytes.
//!
//! A lifecycle commit is one move of a session: its row, an audit entry, an event and a decision, expecting the generation before.
//! The raw side writes rows with the same keys and of the same sizes into as many tables, in batches of as many as are in flight, with the same durability.
//! It neither seals nor checks, and it has no callers to wake: it is the ceiling, not a competitor.
//!
//! The last lines compare both in turns within one run, because disks change their mind between runs.

#![expect(clippy::print_stdout, reason = "the comparison is what this program is for")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use portcullis_core::decision::Decision;
use portcullis_core::plugin::{FailureFold, Mode};
use portcullis_core::session::{Device, Names};
use portcullis_core::verdict::Allowance;
use portcullis_core::{
    Answer, AuditEntry, AuditId, AuditOutcome, BindingId, DecisionId, DecisionRecord, DomainEvent, EventBody, EventId,
    Labels, OperationKind, Org, OrgId, Plan, PluginId, PluginRules, PrincipalKind, Quotas, Session, SessionId,
    Timestamp, Verdict,
};
use portcullis_store::{Commit, CommitMode, Expectation, Store, StoreOptions, Write};
use redb::{Database, Durability, TableDefinition};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const ORG: OrgId = OrgId::PLATFORM;
const IN_FLIGHT: [usize; 4] = [1, 8, 64, 512];
const MODES: [CommitMode; 2] = [CommitMode::OnePhase, CommitMode::TwoPhase];

fn main() {
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2)).configure_from_args();
    groups(&mut criterion);
    criterion.final_summary();
    compare();
}

fn groups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    for in_flight in IN_FLIGHT {
        group.throughput(Throughput::Elements(in_flight as u64));
        let dir = tempfile::tempdir().expect("a directory");
        let mut side = StoreSide::open(dir.path(), CommitMode::OnePhase, in_flight);
        group.bench_function(format!("store/{in_flight}"), |bencher| {
            bencher.iter_custom(|rounds| side.run(rounds));
        });
        let dir = tempfile::tempdir().expect("a directory");
        let mut side = RawSide::open(dir.path(), CommitMode::OnePhase, in_flight);
        group.bench_function(format!("raw/{in_flight}"), |bencher| {
            bencher.iter_custom(|rounds| side.run(rounds));
        });
    }
    group.finish();

    let dir = tempfile::tempdir().expect("a directory");
    let side = StoreSide::open(dir.path(), CommitMode::OnePhase, 64);
    criterion.bench_function("snapshot and one session", |bencher| {
        bencher.iter(|| {
            let snapshot = side.store.snapshot().expect("a snapshot");
            snapshot.session(side.org, side.sessions[7].id).expect("read")
        });
    });
}

/// Both sides in turns, at each number in flight and each way of making durable.
fn compare() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes: usize = RawSide::open(dir.path(), CommitMode::OnePhase, 1).sizes.iter().sum();
    println!("a commit writes {bytes} bytes of values");
    for mode in MODES {
        for in_flight in IN_FLIGHT {
            let (store_dir, raw_dir) =
                (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
            let mut store = StoreSide::open(store_dir.path(), mode, in_flight);
            let mut raw = RawSide::open(raw_dir.path(), mode, in_flight);
            let rounds = (2_048 / in_flight as u64).clamp(8, 256);
            let (mut stores, mut raws) = (Vec::new(), Vec::new());
            for _ in 0..9 {
                stores.push(store.run(rounds));
                raws.push(raw.run(rounds));
            }
            let commits = (rounds as usize * in_flight) as f64;
            let rate = |mut times: Vec<Duration>| {
                times.sort_unstable();
                commits / times[times.len() / 2].as_secs_f64()
            };
            let (store, raw) = (rate(stores), rate(raws));
            println!(
                "{mode:?}, {in_flight} in flight: store {store:.0}/s, raw {raw:.0}/s, ratio store/raw = {:.2}{}",
                store / raw,
                if in_flight == 64 { " (goal >= 0.7)" } else { "" }
            );
        }
    }
}

/// The store with as many sessions as are in flight.
struct StoreSide {
    runtime: tokio::runtime::Runtime,
    store: Store,
    org: OrgId,
    sessions: Vec<Session>,
}

impl StoreSide {
    fn open(dir: &Path, commit_mode: CommitMode, in_flight: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        let store = Store::open(dir, StoreOptions { commit_mode, ..StoreOptions::default() })
            .expect("a store in a new directory");
        let org = OrgId::from_bytes([1; 16]);
        let mut commit = Commit::new(org, NOW);
        commit.writes.push(Write::PutOrg(sample_org(org)));
        let sessions: Vec<Session> = (1..=in_flight).map(|number| sample_session(org, number as u128)).collect();
        commit.writes.extend(sessions.iter().cloned().map(Write::PutSession));
        store.commit_blocking(commit).expect("kept");
        Self { runtime, store, org, sessions }
    }

    /// Moves every session so many times, all sessions at once.
    fn run(&mut self, rounds: u64) -> Duration {
        let began = Instant::now();
        let mut tasks = Vec::with_capacity(self.sessions.len());
        for session in std::mem::take(&mut self.sessions) {
            tasks.push(self.runtime.spawn(moves(self.store.clone(), session, rounds)));
        }
        self.sessions = tasks.into_iter().map(|task| self.runtime.block_on(task).expect("no panic")).collect();
        began.elapsed()
    }
}

async fn moves(store: Store, mut session: Session, rounds: u64) -> Session {
    for _ in 0..rounds {
        let unique = next_number();
        let next = session.changed(NOW);
        let mut commit = Commit::new(session.org, NOW);
        commit.expect.push(Expectation::Session(session.id, Some(session.generation)));
        commit.audit.push(sample_audit(&next, unique));
        commit.events.push(sample_event(&next, unique));
        commit.decision = Some(sample_decision(&next, unique));
        commit.writes.push(Write::PutSession(next.clone()));
        store.commit(commit).await.expect("no conflict");
        session = next;
    }
    session
}

/// The same rows by size and number, without the store.
struct RawSide {
    database: Database,
    mode: CommitMode,
    sessions: Vec<Session>,
    sizes: [usize; 6],
}

const TABLES: [TableDefinition<'static, &'static [u8], &'static [u8]>; 6] = [
    TableDefinition::new("sessions"),
    TableDefinition::new("audit"),
    TableDefinition::new("events"),
    TableDefinition::new("outbox-order"),
    TableDefinition::new("decisions"),
    TableDefinition::new("decision-records"),
];

impl RawSide {
    fn open(dir: &Path, mode: CommitMode, in_flight: usize) -> Self {
        let database = Database::builder()
            .set_cache_size(StoreOptions::default().cache_bytes)
            .create(dir.join("raw.redb"))
            .expect("a database in a new directory");
        let session = sample_session(ORG, 1);
        let json = |row: serde_json::Result<Vec<u8>>| row.expect("encoded").len() + 45;
        let decision = sample_decision(&session, 1);
        let skeleton = DecisionRecord { input: None, answers: vec![], ..decision.clone() };
        // Heads and envelopes as the store's schema has them.
        let sizes = [
            24 + json(serde_json::to_vec(&session)),
            json(serde_json::to_vec(&sample_audit(&session, 1))),
            16 + json(serde_json::to_vec(&sample_event(&session, 1))),
            32,
            json(serde_json::to_vec(&skeleton)),
            json(serde_json::to_vec(&decision)),
        ];
        let sessions = (1..=in_flight).map(|number| sample_session(ORG, number as u128)).collect();
        Self { database, mode, sessions, sizes }
    }

    fn run(&mut self, rounds: u64) -> Duration {
        let value = vec![0x5a; self.sizes.into_iter().max().unwrap_or_default()];
        let began = Instant::now();
        for _ in 0..rounds {
            let mut transaction = self.database.begin_write().expect("begun");
            transaction.set_durability(Durability::Immediate).expect("a durability");
            transaction.set_two_phase_commit(self.mode == CommitMode::TwoPhase);
            {
                let mut tables = TABLES.map(|table| transaction.open_table(table).expect("opened"));
                for session in &self.sessions {
                    let number = next_number();
                    let (org, session) = (ORG.to_bytes(), session.id.to_bytes());
                    let (audit, decision) = (AuditId::new(tick(number), number), DecisionId::new(tick(number), number));
                    let place = (number as u64).to_be_bytes();
                    let keys = [
                        [&org[..], &session].concat(),
                        [&org[..], &audit.to_bytes()].concat(),
                        // A change of status outlives its session, so it is kept under none.
                        [&org[..], &[0; 16], &place].concat(),
                        place.to_vec(),
                        [&org[..], &decision.to_bytes()].concat(),
                        [&org[..], &session, &decision.to_bytes()].concat(),
                    ];
                    for ((table, key), size) in tables.iter_mut().zip(keys).zip(self.sizes) {
                        table.insert(&key[..], &value[..size]).expect("written");
                    }
                }
            }
            transaction.commit().expect("durable");
        }
        began.elapsed()
    }
}

/// Numbers in the order in which commits are made, over all threads.
fn next_number() -> u128 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed).into()
}

/// Ids are born one after the other, as they are in a gateway.
fn tick(number: u128) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + number as u64)
}

fn sample_org(id: OrgId) -> Org {
    Org {
        id,
        name: "Benchmark".into(),
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

fn sample_session(org: OrgId, number: u128) -> Session {
    let mut session =
        Session::new(SessionId::new(NOW, number), org, Names::new(number << 64 | number << 48, None), NOW);
    session.display_name = Some("Support, Hamburg".into());
    session.labels = [("env", "production"), ("team", "support")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    session.device = Some(Device {
        jid: "4915112345678@s.whatsapp.net".into(),
        lid: Some("123456789012345@lid".into()),
        push_name: Some("Support".into()),
    });
    session
}

fn sample_audit(session: &Session, unique: u128) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(tick(unique), unique),
        org: session.org,
        at: NOW,
        actor: PrincipalKind::Operator,
        request: None,
        operation: OperationKind::SessionStart,
        session: Some(session.id),
        subject: None,
        outcome: AuditOutcome::Done,
        decision: Some(DecisionId::new(tick(unique), unique)),
    }
}

fn sample_event(session: &Session, unique: u128) -> DomainEvent {
    let body = EventBody::StatusChanged { from: "stopped".into(), to: "starting".into(), cause: None, by: None };
    DomainEvent {
        id: EventId::new(tick(unique), unique),
        org: session.org,
        session: Some(session.id),
        at: NOW,
        generation: session.generation,
        device: None,
        body,
    }
}

fn sample_decision(session: &Session, unique: u128) -> DecisionRecord {
    let answer = |position| Answer {
        position,
        binding: BindingId::new(NOW, 1),
        owner: OrgId::PLATFORM,
        plugin: PluginId::new(NOW, 1),
        plugin_name: "grace-delete".into(),
        version: 3,
        digest: [7; 32],
        signer: None,
        mode: Mode::Enforce,
        shadow: false,
        on_failure: FailureFold::Deny,
        result: Ok(Decision::Allow),
        fuel: 12_345,
        micros: 43,
        memory: 1_114_112,
    };
    DecisionRecord {
        id: DecisionId::new(tick(unique), unique),
        org: session.org,
        session: Some(session.id),
        at: NOW,
        seed: 42,
        actor: PrincipalKind::Operator,
        operation: OperationKind::SessionStart,
        due_since: None,
        input: Some(serde_json::to_string(session).expect("encoded")),
        answers: vec![answer(0), answer(1)],
        first_round: None,
        verdict: Verdict::Allowed(Allowance::default()),
        stopped: None,
    }
}
