//! What the runs have to tell, until the service takes it.
//!
//! Facts are few and always have room. Texts are owed an answer: WhatsApp is told that a text has come in only once the service
//! has recorded it, so that the client waits with each of them; of those that wait there is a bounded number, and who comes then
//! waits for room. A text that is waited for no longer comes again, so that it does not lie here besides. Receipts are worth less
//! than anybody's time: when too many lie here, further ones are dropped.
//!
//! A run that was halted, or that a newer one has replaced, is silenced: what it had to say is taken back, and it says nothing more.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::{Attempt, EngineFact, Fact, OrgId, SessionId};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::{IncomingText, Progress, Report, ReportBody};

/// How many texts may wait to be recorded, over all sessions.
const MAX_TEXTS: usize = 1024;
/// How many receipts may wait to be taken, over all sessions.
const MAX_RECEIPTS: usize = 4096;

/// The reports of all runs.
pub(super) struct Reports {
    state: Mutex<State>,
    ready: Notify,
    room: Semaphore,
}

#[derive(Default)]
struct State {
    /// In the order of their numbers.
    queue: VecDeque<Told>,
    told: u64,
    receipts: usize,
    /// Who waits until a text is recorded. The same text may be waited for twice, after a connection was lost meanwhile.
    unrecorded: HashMap<TextId, Vec<Waiting>>,
}

/// A report that nobody has taken yet.
struct Told {
    number: u64,
    run: RunId,
    report: Report,
}

/// Somebody who waits until the text of a report is recorded.
struct Waiting {
    number: u64,
    run: RunId,
    tell: oneshot::Sender<()>,
}

/// Having told of a text. Whoever waits for it no longer drops this, and takes back what nobody has taken.
struct Owed<'a> {
    reports: &'a Reports,
    id: TextId,
    number: u64,
}

/// The number of a run in this process.
pub(super) type RunId = u64;

/// A text among all texts: WhatsApp's ids are unique only for one sender in one chat.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TextId {
    session: SessionId,
    chat: String,
    sender: Option<String>,
    id: String,
}

/// With which a run reports.
pub(super) struct Voice {
    reports: Arc<Reports>,
    run: RunId,
    org: OrgId,
    session: SessionId,
    attempt: Attempt,
    /// Changes only under the lock of the reports.
    is_silent: AtomicBool,
}

impl Reports {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), ready: Notify::new(), room: Semaphore::new(MAX_TEXTS) }
    }

    pub(super) fn take(&self) -> Vec<Report> {
        let mut state = self.state();
        state.receipts = 0;
        state.queue.drain(..).map(|told| told.report).collect()
    }

    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Lets whoever has reported this text go on.
    pub(super) fn recorded(&self, report: &Report) {
        if let ReportBody::TextIn(text) = &report.body {
            let waiting = self.state().unrecorded.remove(&TextId::new(report.session, text));
            for Waiting { tell, .. } in waiting.into_iter().flatten() {
                let _ = tell.send(());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TextId {
    fn new(session: SessionId, text: &IncomingText) -> Self {
        Self { session, chat: text.from.clone(), sender: text.sender.clone(), id: text.id.clone() }
    }
}

impl Voice {
    pub(super) fn new(reports: Arc<Reports>, run: RunId, org: OrgId, session: SessionId, attempt: Attempt) -> Self {
        Self { reports, run, org, session, attempt, is_silent: AtomicBool::new(false) }
    }

    pub(super) fn fact(&self, fact: Fact) {
        let mut state = self.reports.state();
        self.push(&mut state, ReportBody::Fact(EngineFact { attempt: self.attempt, fact }));
    }

    /// Tells how far messages are, if there is room for it.
    pub(super) fn progress(&self, progress: Progress) {
        let mut state = self.reports.state();
        if state.receipts < MAX_RECEIPTS {
            state.receipts += 1;
            self.push(&mut state, ReportBody::Progress(progress));
        }
    }

    /// Tells of texts without waiting for anything, because WhatsApp is owed no answer to them.
    pub(super) fn tell(&self, texts: Vec<IncomingText>) {
        let mut state = self.reports.state();
        for text in texts {
            self.push(&mut state, ReportBody::TextIn(text));
        }
    }

    /// Tells of a text and waits until it is recorded. Answers whether it was, by `end`.
    pub(super) async fn record(&self, text: IncomingText, end: Instant) -> bool {
        let Ok(Ok(_room)) = timeout_at(end, self.reports.room.acquire()).await else { return false };
        let id = TextId::new(self.session, &text);
        let (tell, recorded) = oneshot::channel();
        let number = {
            let mut state = self.reports.state();
            let Some(number) = self.push(&mut state, ReportBody::TextIn(text)) else { return false };
            state.unrecorded.entry(id.clone()).or_default().push(Waiting { number, run: self.run, tell });
            number
        };
        let _owed = Owed { reports: &self.reports, id, number };
        matches!(timeout_at(end, recorded).await, Ok(Ok(())))
    }

    /// Takes back what this run has said and nobody has taken, and says nothing more.
    pub(super) fn silence(&self) {
        let mut state = self.reports.state();
        self.is_silent.store(true, Ordering::Relaxed);
        state.queue.retain(|told| told.run != self.run);
        state.receipts = state.queue.iter().filter(|told| matches!(told.report.body, ReportBody::Progress(_))).count();
        state.unrecorded.retain(|_, waiting| {
            waiting.retain(|waiting| waiting.run != self.run);
            !waiting.is_empty()
        });
    }

    /// The number of what was told; none if the run says nothing any more.
    fn push(&self, state: &mut State, body: ReportBody) -> Option<u64> {
        if self.is_silent.load(Ordering::Relaxed) {
            return None;
        }
        let number = state.told;
        state.told += 1;
        let report = Report { org: self.org, session: self.session, body };
        state.queue.push_back(Told { number, run: self.run, report });
        self.reports.ready.notify_one();
        Some(number)
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        let mut state = self.reports.state();
        if let Ok(at) = state.queue.binary_search_by_key(&self.number, |told| told.number) {
            state.queue.remove(at);
        }
        if let Some(waiting) = state.unrecorded.get_mut(&self.id) {
            waiting.retain(|waiting| waiting.number != self.number);
            if waiting.is_empty() {
                state.unrecorded.remove(&self.id);
            }
        }
    }
}

/// How long the service may take to record a text, before WhatsApp is left without an answer and sends it again later.
pub(super) const RECORD_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod test {
    use futures_util::FutureExt;
    use portcullis_core::{MessageStage, Timestamp};

    use super::*;

    fn voice(reports: &Arc<Reports>, run: RunId) -> Voice {
        let (org, session) = (OrgId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
        Voice::new(Arc::clone(reports), run, org, session, Attempt::default())
    }

    fn text(id: &str) -> IncomingText {
        let at = Timestamp::from_millis(1);
        let from = "15550000001@s.whatsapp.net".to_owned();
        IncomingText { id: id.to_owned(), from, sender: None, name: None, at, text: "hello".to_owned() }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    fn late() -> Instant {
        Instant::now() + RECORD_TIMEOUT
    }

    #[tokio::test]
    async fn a_text_waits_until_the_service_has_recorded_it_and_not_only_taken_it() {
        let reports = Arc::new(Reports::new());
        let voice = voice(&reports, 1);
        let mut telling = Box::pin(voice.record(text("A"), late()));
        assert!((&mut telling).now_or_never().is_none());
        let [taken] = &reports.take()[..] else { panic!("there is one report") };
        assert!((&mut telling).now_or_never().is_none());
        reports.recorded(taken);
        assert!(telling.await);
    }

    #[tokio::test]
    async fn a_text_that_is_not_recorded_in_time_is_given_up_and_can_be_told_again() {
        let reports = Arc::new(Reports::new());
        let voice = voice(&reports, 1);
        assert!(!voice.record(text("A"), soon()).await);
        let mut again = Box::pin(voice.record(text("A"), late()));
        assert!((&mut again).now_or_never().is_none());
        for report in reports.take() {
            reports.recorded(&report);
        }
        assert!(again.await);
        assert!(reports.state().unrecorded.is_empty());
    }

    /// The story: a text that the service had not come to in its time lay in the queue still when WhatsApp sent it again, and was
    /// told twice.
    #[tokio::test]
    async fn a_text_that_is_given_up_is_not_told_unless_it_comes_again() {
        let reports = Arc::new(Reports::new());
        let voice = voice(&reports, 1);
        voice.fact(Fact::Connected);
        assert!(!voice.record(text("A"), Instant::now()).await);
        // The client may give up sooner, with its connection.
        let mut telling = Box::pin(voice.record(text("B"), late()));
        assert!((&mut telling).now_or_never().is_none());
        drop(telling);
        assert!(reports.state().unrecorded.is_empty());
        voice.fact(Fact::Disconnected);
        let mut again = Box::pin(voice.record(text("A"), late()));
        assert!((&mut again).now_or_never().is_none());
        let taken = reports.take();
        let texts = taken.iter().filter(|report| matches!(report.body, ReportBody::TextIn(_))).count();
        assert_eq!((taken.len(), texts), (3, 1));
        // What was taken is the service's, and whoever waits for it twice hears of it twice.
        let mut twice = Box::pin(voice.record(text("A"), late()));
        assert!((&mut twice).now_or_never().is_none());
        reports.recorded(taken.last().unwrap());
        assert!(again.await && twice.await);
        assert_eq!(reports.take(), []);
    }

    #[tokio::test]
    async fn a_silenced_run_takes_back_what_it_said_and_keeps_nobody_waiting() {
        let reports = Arc::new(Reports::new());
        let (old, new) = (voice(&reports, 1), voice(&reports, 2));
        old.fact(Fact::Connected);
        let mut telling = Box::pin(old.record(text("A"), late()));
        assert!((&mut telling).now_or_never().is_none());
        old.silence();
        assert!(!telling.await);
        old.fact(Fact::Disconnected);
        assert_eq!(reports.take(), []);
        new.fact(Fact::Connected);
        assert_eq!(reports.take().len(), 1);
    }

    #[tokio::test]
    async fn receipts_are_dropped_when_nobody_takes_them_and_facts_are_not() {
        let reports = Arc::new(Reports::new());
        let voice = voice(&reports, 1);
        for _ in 0..MAX_RECEIPTS + 10 {
            voice.progress(Progress { messages: Vec::new(), chat: String::new(), stage: MessageStage::Read });
        }
        voice.fact(Fact::Connected);
        let taken = reports.take();
        assert_eq!(taken.len(), MAX_RECEIPTS + 1);
        assert!(matches!(taken.last().unwrap().body, ReportBody::Fact(_)));
    }

    #[tokio::test]
    async fn texts_wait_for_room() {
        let reports = Arc::new(Reports::new());
        let voice = voice(&reports, 1);
        let all = reports.room.acquire_many(u32::try_from(MAX_TEXTS).unwrap()).await.unwrap();
        let mut telling = Box::pin(voice.record(text("A"), late()));
        assert!((&mut telling).now_or_never().is_none());
        assert_eq!(reports.take(), []);
        drop(all);
        assert!((&mut telling).now_or_never().is_none());
        assert_eq!(reports.take().len(), 1);
    }
}
