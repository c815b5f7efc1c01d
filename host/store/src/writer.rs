//! The writer: the one thread that changes anything.
//!
//! ```text
//! callers ──seal──▶ queue ──▶ gather a batch ─▶ check and apply each ─▶ sync new key slots ─▶ commit ─▶ answer all
//!                               ▲                 losers: answer now                                      │
//!                               └───────────────────────── next batch ────────────────────────────────────┘
//! ```
//!
//! Everything that waits is made durable together, so the price of a sync is shared by all who wait for one.
//! Nobody is told of success before the transaction is durable. If it fails, everybody in it is told so.
//!
//! A batch is gathered for a moment ([`GATHER`]) if the batch before held several commits: its callers have just been
//! answered and are about to come back, and without the wait every other batch would hold only the first of them.
//! A caller who is alone never waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_core::{OutboxPlace, Timestamp};
use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::apply::{self, Batch};
use crate::audit::Chains;
use crate::commit::{Committed, Erased};
use crate::erase;
use crate::error::{CommitError, StoreFault};
use crate::keyring::{Keyring, Reserved};
use crate::outbox::Ends;
use crate::step::Prepared;
use crate::tables::Tables;

/// The most commits in one transaction.
const BATCH: usize = 512;
/// How long a batch waits for the callers of the one before it.
const GATHER: Duration = Duration::from_micros(300);

/// How transactions are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitMode {
    /// With one sync, and checksums that tell a torn transaction. `docs/durability.md` says why this is the default.
    #[default]
    OnePhase,
    /// With two syncs: the data first, then the pointer to it.
    TwoPhase,
}

/// What the writer can be asked.
pub(crate) enum Job {
    Commit(Box<Prepared>, Reply<Committed>),
    FinishErasures(Timestamp, Reply<Vec<Erased>>),
}

/// Where an answer goes. A caller who has gone away is not missed.
pub(crate) enum Reply<T> {
    /// To a task, which holds a place in the queue until then.
    Task(oneshot::Sender<Result<T, CommitError>>, OwnedSemaphorePermit),
    /// To a thread, which waits and so never has a second job.
    Thread(SyncSender<Result<T, CommitError>>),
}

impl<T> Reply<T> {
    fn send(self, answer: Result<T, CommitError>) {
        match self {
            Self::Task(reply, permit) => {
                drop(permit);
                reply.send(answer).ok();
            }
            Self::Thread(reply) => {
                reply.send(answer).ok();
            }
        }
    }
}

/// The writer's thread. Dropping this lets it finish its queue and waits for it.
pub(crate) struct Writer {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    healthy: Arc<AtomicBool>,
}

impl Writer {
    pub(crate) fn start(database: Arc<Database>, ring: Arc<Keyring>, mode: CommitMode) -> std::io::Result<Self> {
        let (queue, jobs) = channel();
        let healthy = Arc::new(AtomicBool::new(true));
        let work = Work { database, ring, mode, jobs, healthy: Arc::clone(&healthy) };
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || work.run())?;
        Ok(Self { queue: Some(queue), thread: Some(thread), healthy })
    }

    /// Whether the last transaction could be made durable. redb takes no more after a fault of the disk, until it is opened again.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Queues a job; the job itself comes back if the writer has ended.
    pub(crate) fn send(&self, job: Job) -> Result<(), CommitError> {
        match &self.queue {
            Some(queue) => queue.send(job).map_err(|_ended| CommitError::Closed),
            None => Err(CommitError::Closed),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }
}

/// Begins a transaction that is durable when its commit returns.
pub(crate) fn begin(database: &Database, mode: CommitMode) -> Result<WriteTransaction, StoreFault> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(mode == CommitMode::TwoPhase);
    Ok(transaction)
}

struct Work {
    database: Arc<Database>,
    ring: Arc<Keyring>,
    mode: CommitMode,
    jobs: Receiver<Job>,
    /// Whether the last transaction could be made durable.
    healthy: Arc<AtomicBool>,
}

impl Work {
    fn run(self) {
        let mut last_size = 1;
        while let Ok(first) = self.jobs.recv() {
            let mut batch = Vec::new();
            let mut next = Some(first);
            let began = Instant::now();
            while let Some(job) = next.take() {
                match job {
                    Job::Commit(commit, reply) => batch.push((commit, reply)),
                    Job::FinishErasures(now, reply) => {
                        // Erasures of the commits that came before are finished too.
                        self.transact(std::mem::take(&mut batch));
                        reply.send(erase::finish(&self.database, &self.ring, self.mode, now));
                    }
                }
                if batch.len() < BATCH {
                    next = self.another(batch.len() * 2 < last_size, began);
                }
            }
            last_size = batch.len();
            self.transact(batch);
        }
    }

    /// The next job, if there is one or is about to be one.
    fn another(&self, expected: bool, began: Instant) -> Option<Job> {
        if let Ok(job) = self.jobs.try_recv() {
            return Some(job);
        }
        let left = GATHER.checked_sub(began.elapsed()).filter(|_| expected)?;
        self.jobs.recv_timeout(left).ok()
    }

    /// Makes those commits durable that hold, in one transaction, and answers everybody.
    fn transact(&self, jobs: Vec<(Box<Prepared>, Reply<Committed>)>) {
        if jobs.is_empty() {
            return;
        }
        let mut winners = Vec::with_capacity(jobs.len());
        // What was applied is freed after the answers: its callers prepare their next commits meanwhile.
        let mut applied = Vec::with_capacity(jobs.len());
        let mut waiting = jobs.into_iter();
        let result = self.try_transact(&mut waiting, &mut winners, &mut applied);
        self.healthy.store(result.is_ok(), Ordering::Relaxed);
        if let Err(fault) = &result {
            tracing::error!(error = fault as &dyn std::error::Error, "a batch of commits failed");
        }
        for (reply, committed) in winners {
            reply.send(result.clone().map(|()| committed).map_err(CommitError::Store));
        }
        // Those that a failure left unread.
        for (_, reply) in waiting {
            reply.send(Err(result.clone().err().map_or(CommitError::Closed, CommitError::Store)));
        }
    }

    #[expect(clippy::vec_box, reason = "the commits come boxed; unboxing them would copy each once more")]
    fn try_transact(
        &self,
        waiting: &mut impl Iterator<Item = (Box<Prepared>, Reply<Committed>)>,
        winners: &mut Vec<(Reply<Committed>, Committed)>,
        applied: &mut Vec<Box<Prepared>>,
    ) -> Result<(), StoreFault> {
        let transaction = begin(&self.database, self.mode)?;
        let mut reserved = Vec::new();
        let doomed = {
            let mut tables = Tables::of(&transaction);
            let (made, doomed) = (HashMap::new(), HashSet::new());
            let mut batch = Batch { ring: &self.ring, made, doomed, ends: Ends::default(), chains: Chains::default() };
            for (mut commit, reply) in waiting {
                match apply::check(&tables, &batch, &commit) {
                    Ok(()) if commit.only_checked => {
                        drop(commit);
                        reply.send(Ok(Committed { last_event: None }));
                        continue;
                    }
                    Ok(()) => {}
                    Err(CommitError::Store(fault)) => {
                        reply.send(Err(CommitError::Store(fault.clone())));
                        return Err(fault);
                    }
                    Err(refused) => {
                        // Its reserved keys are given back before its caller comes again.
                        drop(commit);
                        reply.send(Err(refused));
                        continue;
                    }
                }
                match apply::apply(&mut tables, &mut batch, &mut commit) {
                    Ok(last) => winners.push((reply, Committed { last_event: last.map(OutboxPlace) })),
                    Err(fault) => {
                        reply.send(Err(CommitError::Store(fault.clone())));
                        return Err(fault);
                    }
                }
                reserved.append(&mut commit.reserved);
                applied.push(commit);
            }
            batch.ends.write(&mut tables)?;
            batch.chains.write(&mut tables)?;
            batch.doomed
        };
        if winners.is_empty() {
            return Ok(transaction.abort()?);
        }
        self.publish(reserved)?;
        transaction.commit()?;
        self.ring.doom(doomed);
        Ok(())
    }

    /// Makes the batch's new keys durable, and only then lets them be found.
    fn publish(&self, reserved: Vec<Reserved>) -> Result<(), StoreFault> {
        if !reserved.is_empty() {
            self.ring.file.sync()?;
            reserved.into_iter().for_each(Reserved::publish);
        }
        Ok(())
    }
}
