//! What every worker has: a caller with a key, the journal, dice, and names that are given once.
//!
//! Most of what changes something goes with an idempotency key. What was not answered is made again with the same key once the gateway
//! is back; and what was answered, now and then, to see that it is answered the same.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use super::journal::{Again, Fault, Journal, What};
use super::sessions::PATIENCE;
use crate::calls::{Answer, Caller, Lost};
use crate::deliveries::receiver::Dice;

/// How many that were answered are made again, perhaps.
const REMEMBERED: usize = 6;

/// What one worker calls with.
pub(super) struct Hands {
    pub(super) org: String,
    pub(super) journal: Journal,
    pub(super) dice: Dice,
    caller: Caller,
    name: String,
    given: u64,
    /// What was asked with a key and not answered.
    open: Option<Change>,
    /// What was asked with a key and answered, with what.
    answered: VecDeque<(Change, Answer)>,
}

/// What was not answered, made again.
#[derive(Debug)]
pub(super) enum Retried {
    /// It was done before.
    Before,
    /// It is done now.
    Now(Answer),
    /// It was not done, and is not.
    Refused,
    /// It is to be made once more.
    Later,
}

/// One call that changes something.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// As the audit names it; none for what is not in the audit, such as what the simulated phone does.
    pub(super) operation: Option<&'static str>,
    pub(super) session: Option<String>,
    pub(super) key: Option<String>,
    /// Whether it may be so already, and then leaves no line in the audit.
    pub(super) is_again: bool,
}

impl Change {
    pub(super) fn new(method: &'static str, path: impl Into<String>, operation: &'static str) -> Self {
        let operation = Some(operation).filter(|operation| !operation.is_empty());
        Self { method, path: path.into(), body: Vec::new(), operation, session: None, key: None, is_again: false }
    }

    pub(super) fn with(self, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), ..self }
    }

    pub(super) fn about(self, session: &str) -> Self {
        Self { session: Some(session.to_owned()), ..self }
    }

    /// Whether it may be made with a key. Messages have keys of their own; of facts, the id is what makes them the same; and what is
    /// only tried, or done by the simulated phone, takes none.
    fn may_have_key(&self) -> bool {
        let has_own = self.operation.is_some_and(|operation| ["message.send", "event.tell"].contains(&operation));
        self.method != "GET" && !has_own && !self.path.contains("dry_run") && !self.path.contains("/simulator:")
    }

    /// Where what an answer is about is read; nothing for what goes only with the organisation.
    fn subject(&self, answer: &Answer) -> Option<String> {
        let made = answer.body["id"].as_str();
        match (&self.session, self.path.as_str()) {
            (Some(session), _) => Some(format!("/api/v1/sessions/{session}")),
            (None, "/api/v1/sessions" | "/api/v1/orgs") => made.map(|id| format!("{}/{id}", self.path)),
            (None, path) => path.starts_with("/api/v1/orgs/").then(|| path.to_owned()),
        }
    }
}

impl Hands {
    pub(super) fn new(name: String, org: &str, caller: Caller, journal: Journal, seed: u64) -> Self {
        let number = name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self {
            org: org.to_owned(),
            journal,
            dice: Dice::new(number),
            caller,
            name,
            given: 0,
            open: None,
            answered: VecDeque::new(),
        }
    }

    /// A text that nobody else has and that was not given before.
    pub(super) fn mark(&mut self) -> String {
        self.given += 1;
        format!("{}-{}", self.name, self.given)
    }

    /// What all of its marks begin with.
    pub(super) fn prefix(&self) -> String {
        format!("{}-", self.name)
    }

    /// One of a number of things.
    pub(super) fn pick(&mut self, among: usize) -> usize {
        usize::try_from(self.dice.below(among.max(1) as u64)).unwrap_or_default()
    }

    /// Reads.
    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, Lost> {
        self.caller.ask("GET", path, Bytes::new(), None).await
    }

    /// Changes something, seven times out of ten with a key, and notes what came of it.
    pub(super) async fn ask(&mut self, change: &Change) -> Result<Answer, Lost> {
        if !change.may_have_key() || self.dice.below(10) >= 7 {
            return self.ask_plainly(change).await;
        }
        let change = Change { key: Some(format!("key-{}", self.mark())), ..change.clone() };
        let asked = self.ask_keyed(&change).await;
        if let Ok(answer) = &asked
            && (200..300).contains(&answer.status)
        {
            self.answered.push_back((change, answer.clone()));
            if self.answered.len() > REMEMBERED {
                self.answered.pop_front();
            }
        }
        asked
    }

    async fn ask_keyed(&mut self, change: &Change) -> Result<Answer, Lost> {
        let (what, key) = (self.what(change), change.key.as_deref());
        let asked = self.caller.ask(change.method, &change.path, Bytes::from(change.body.clone()), key).await;
        match &asked {
            Ok(answer) => self.note(change, what, answer),
            Err(Lost::Unanswered) => {
                self.journal.unanswered_keyed(key.unwrap_or_default(), what, change.is_again);
                self.open = Some(change.clone());
            }
            Err(Lost::Unsent) => {}
        }
        asked
    }

    /// Whether something was asked with a key and not answered.
    pub(super) fn has_open(&self) -> bool {
        self.open.is_some()
    }

    /// Makes what was asked with a key and not answered once more; none if there is no such thing.
    pub(super) async fn retry(&mut self) -> Result<Option<Retried>, Lost> {
        let Some(change) = self.open.clone() else { return Ok(None) };
        let (what, key) = (self.what(&change), change.key.clone().unwrap_or_default());
        let body = Bytes::from(change.body.clone());
        let answer = match self.caller.ask(change.method, &change.path, body, Some(&key)).await {
            Err(Lost::Unanswered) => {
                self.journal.unanswered_keyed(&key, what, change.is_again);
                return Err(Lost::Unanswered);
            }
            asked => asked?,
        };
        let retried = match (answer.status, reason(&answer)) {
            (200..300, _) if answer.is_replayed => {
                self.journal.count(|counts| counts.replayed += 1);
                Retried::Before
            }
            (200..300, _) => Retried::Now(answer.clone()),
            (409, "already_shown") => {
                self.journal.count(|counts| counts.shown += 1);
                Retried::Before
            }
            (409, "reply_lost") => {
                self.journal.count(|counts| counts.replies_lost += 1);
                Retried::Before
            }
            (409, "idempotency_in_flight") => {
                self.journal.count(|counts| counts.in_flight += 1);
                Retried::Later
            }
            (404, _) if is_erased(&answer) => {
                self.journal.count(|counts| counts.erased += 1);
                Retried::Before
            }
            (429 | 503, _) => Retried::Later,
            _ => Retried::Refused,
        };
        let again = match &retried {
            Retried::Before => Again::Before,
            Retried::Now(_) => Again::Now,
            Retried::Refused => Again::Refused,
            Retried::Later => {
                // It leaves a line, if any, that says so.
                self.note(&change, what, &answer);
                return Ok(Some(retried));
            }
        };
        self.open = None;
        self.journal.answered_keyed(&key, again);
        match again {
            // It was done before; what it comes to now may have a line of its own, which says why it is not told.
            Again::Before if answer.status >= 300 => self.note(&change, what, &answer),
            Again::Before => self.journal.acknowledged_without_audit(),
            Again::Now | Again::Refused => self.note(&change, what, &answer),
        }
        Ok(Some(retried))
    }

    /// Now and then makes something again that was answered: it must be answered the same, for as long as what it is about is there.
    pub(super) async fn ask_again(&mut self) -> Result<(), Lost> {
        let there = self.answered.len();
        if there == 0 || self.dice.below(8) > 0 {
            return Ok(());
        }
        let at = self.pick(there);
        let Some((change, first)) = self.answered.get(at).cloned() else { return Ok(()) };
        let body = Bytes::from(change.body.clone());
        let again = match self.caller.ask(change.method, &change.path, body, change.key.as_deref()).await {
            Err(Lost::Unanswered) => {
                // A no that nobody has heard has a line all the same.
                if let Some(what) = self.what(&change) {
                    self.journal.unanswered(what);
                }
                return Err(Lost::Unanswered);
            }
            asked => asked?,
        };
        let mut is_same = true;
        if again.status >= 300 {
            // A no has a line of its own.
            self.note(&change, self.what(&change), &again);
        }
        match (again.status, reason(&again)) {
            (status, _) if again.is_replayed && (status, &again.bytes) == (first.status, &first.bytes) => {
                self.journal.count(|counts| counts.replayed += 1);
            }
            (409, "already_shown") if change.operation.is_none_or(is_shown_once) => {
                self.journal.count(|counts| counts.shown += 1);
            }
            (409, "idempotency_in_flight") => self.journal.count(|counts| counts.in_flight += 1),
            (404, _) if is_erased(&again) => {
                self.journal.count(|counts| counts.erased += 1);
                self.answered.remove(at);
                is_same = match change.subject(&first) {
                    Some(subject) => self.goes(&subject).await?,
                    None => false,
                };
            }
            (429 | 503, _) => {}
            _ => is_same = false,
        }
        if !is_same {
            let Change { method, path, key, .. } = &change;
            let (was, is) = (first.status, again.status);
            let said = format!(
                "{method} {path} with {key:?} was answered {was} {}, and again {is} {}",
                first.body, again.body
            );
            self.fault(Fault::Lost, said);
        }
        Ok(())
    }

    /// Whether something is gone, or is in a moment: its rows go before it is taken out of what readers see.
    async fn goes(&mut self, subject: &str) -> Result<bool, Lost> {
        let since = Instant::now();
        loop {
            match self.get(subject).await?.status {
                404 => return Ok(true),
                _ if since.elapsed() > PATIENCE => return Ok(false),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn what(&self, change: &Change) -> Option<What> {
        let (org, session) = (self.org.clone(), change.session.clone());
        change.operation.map(|operation| What { org, operation, session })
    }

    async fn ask_plainly(&mut self, change: &Change) -> Result<Answer, Lost> {
        let what = self.what(change);
        let body = Bytes::from(change.body.clone());
        let asked = self.caller.ask(change.method, &change.path, body, change.key.as_deref()).await;
        match (&asked, what) {
            (Ok(answer), what) => self.note(change, what, answer),
            (Err(Lost::Unanswered), Some(what)) => self.journal.unanswered(what),
            (Err(_), _) => {}
        }
        asked
    }

    /// Notes what was answered.
    fn note(&self, change: &Change, what: Option<What>, answer: &Answer) {
        if answer.status == 500 {
            let said = format!("{} {} was answered {}: {}", change.method, change.path, answer.status, answer.body);
            self.journal.fault(Fault::Finding, said);
        }
        let request = answer.request.clone();
        // What was done before, and is only answered again, has its line of then.
        let is_again =
            answer.body["replayed"] == true || (change.operation == Some("event.tell") && answer.status == 200);
        match what {
            Some(_) if is_again => self.journal.acknowledged_without_audit(),
            // A message that waits for its turn has its line when that has come.
            Some(what)
                if answer.status < 300
                    && (change.is_again || (answer.status == 202 && what.operation == "message.send")) =>
            {
                self.journal.queued(request, what);
            }
            Some(what) if answer.status < 300 => self.journal.acknowledged(request, what),
            Some(what) => self.journal.refused(request, what),
            None if answer.status < 300 => self.journal.acknowledged_without_audit(),
            None => {}
        }
    }

    pub(super) fn fault(&self, fault: Fault, mut what: String) {
        what.insert_str(0, &format!("{}: ", self.name));
        self.journal.fault(fault, what);
    }
}

/// Why something was refused, in a word.
fn reason(answer: &Answer) -> &str {
    let error = &answer.body["error"];
    error["details"]["reason"].as_str().or_else(|| error["code"].as_str()).unwrap_or_default()
}

/// Whether an answer says that the one which was asked for again went with what it was about.
fn is_erased(answer: &Answer) -> bool {
    answer.body["error"]["message"].as_str().is_some_and(|message| message.contains("what it was about is erased"))
}

/// Whether the first answer to this is shown once.
fn is_shown_once(operation: &str) -> bool {
    ["key.create", "session.link", "webhook.create"].contains(&operation)
}
