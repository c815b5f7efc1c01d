//! What every worker has: a caller with a key, the journal, dice, and names that are given once.

use bytes::Bytes;
use serde_json::Value;

use super::journal::{Fault, Journal, What};
use crate::calls::{Answer, Caller, Lost};
use crate::deliveries::receiver::Dice;

/// What one worker calls with.
pub(super) struct Hands {
    pub(super) org: String,
    pub(super) journal: Journal,
    pub(super) dice: Dice,
    caller: Caller,
    name: String,
    given: u64,
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
}

impl Hands {
    pub(super) fn new(name: String, org: &str, caller: Caller, journal: Journal, seed: u64) -> Self {
        let number = name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self { org: org.to_owned(), journal, dice: Dice::new(number), caller, name, given: 0 }
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

    /// Changes something, and notes what came of it.
    pub(super) async fn ask(&mut self, change: &Change) -> Result<Answer, Lost> {
        let what = change.operation.map(|operation| What {
            org: self.org.clone(),
            operation,
            session: change.session.clone(),
        });
        let body = Bytes::from(change.body.clone());
        match (self.caller.ask(change.method, &change.path, body, change.key.as_deref()).await, what) {
            (Ok(answer), what) => {
                if answer.status == 500 {
                    let said =
                        format!("{} {} was answered {}: {}", change.method, change.path, answer.status, answer.body);
                    self.journal.fault(Fault::Finding, said);
                }
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
                        self.journal.queued(answer.request.clone(), what);
                    }
                    Some(what) if answer.status < 300 => self.journal.acknowledged(answer.request.clone(), what),
                    Some(what) => self.journal.refused(answer.request.clone(), what),
                    None if answer.status < 300 => self.journal.acknowledged_without_audit(),
                    None => {}
                }
                Ok(answer)
            }
            (Err(Lost::Unanswered), Some(what)) => {
                self.journal.unanswered(what);
                Err(Lost::Unanswered)
            }
            (Err(lost), _) => Err(lost),
        }
    }

    pub(super) fn fault(&self, fault: Fault, mut what: String) {
        what.insert_str(0, &format!("{}: ", self.name));
        self.journal.fault(fault, what);
    }
}
