//! The simulated engine, with somebody who can make any of its runs tell anything.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use portcullis_core::operation::Presence;
use portcullis_core::session::{AccountLimit, FailureCause};
use portcullis_core::{Attempt, Device, DeviceStore, EngineFact, Fact as Told, OrgId, SessionId, Timestamp};
use portcullis_engine::{
    Command, Engine, NumberCheck, OutgoingText, Report, ReportBody, SendError, Sent, Simulated, Task,
};

use crate::steps::Fact;

pub(crate) struct Talking {
    inner: Simulated,
    said: Mutex<Vec<Report>>,
}

impl Talking {
    pub(crate) fn new(devices: Arc<dyn DeviceStore>) -> Self {
        Self { inner: Simulated::new(devices), said: Mutex::default() }
    }

    /// Has a run tell something; it is over if that is the end of a run.
    pub(crate) fn tell(&self, org: OrgId, session: SessionId, run: u64, fact: Fact, now: Timestamp) {
        let attempt = (0..run).fold(Attempt::default(), |attempt, _| attempt.next());
        if fact.ends_its_run() {
            self.inner.perform(Command { org, session, task: Task::Halt { attempt } }, now);
        }
        let fact = match fact {
            Fact::Passkey => Told::PasskeyRequested,
            Fact::Exhausted => Told::CodesExhausted,
            Fact::Linked => {
                let jid = "628123456789@s.whatsapp.net".to_owned();
                Told::Linked { device: Device { jid, lid: None, push_name: None } }
            }
            Fact::Connected => Told::Connected,
            Fact::Disconnected => Told::Disconnected,
            Fact::LoggedOut => Told::LoggedOut,
            Fact::NotLinked => Told::NotLinked,
            Fact::Unlinked(confirmed) => Told::Unlinked { confirmed },
            Fact::Ended(cause) => Told::Ended { cause: cause_of(cause), until: None },
            Fact::Limited(code) => Told::Limited { limit: AccountLimit { code: code.into(), until: None, since: now } },
            Fact::Code(..) | Fact::Lost => panic!("nobody tells {fact:?} out of the blue"),
        };
        let body = ReportBody::Fact(EngineFact { attempt, fact });
        self.said.lock().unwrap().push(Report { org, session, body });
    }
}

fn cause_of(word: &str) -> FailureCause {
    FailureCause::ALL.into_iter().find(|cause| cause.name() == word).unwrap()
}

impl Engine for Talking {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn perform(&self, command: Command, now: Timestamp) {
        self.inner.perform(command, now);
    }

    fn runs(&self) -> Vec<(SessionId, Attempt)> {
        self.inner.runs()
    }

    fn run(&self, session: SessionId) -> Option<Attempt> {
        self.inner.run(session)
    }

    fn poll(&self, now: Timestamp) -> Vec<Report> {
        let mut said = std::mem::take(&mut *self.said.lock().unwrap());
        said.extend(self.inner.poll(now));
        said
    }

    fn next_wake(&self) -> Option<Timestamp> {
        if self.said.lock().unwrap().is_empty() { self.inner.next_wake() } else { Some(Timestamp::default()) }
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.inner.ready()
    }

    fn send_text(
        &self,
        session: SessionId,
        attempt: Attempt,
        text: OutgoingText,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<Sent, SendError>> + Send + '_>> {
        self.inner.send_text(session, attempt, text, now)
    }

    fn check_numbers(
        &self,
        session: SessionId,
        attempt: Attempt,
        numbers: Vec<String>,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<NumberCheck>, SendError>> + Send + '_>> {
        self.inner.check_numbers(session, attempt, numbers)
    }

    fn show_presence(
        &self,
        session: SessionId,
        attempt: Attempt,
        chat: Option<String>,
        presence: Presence,
    ) -> Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + '_>> {
        self.inner.show_presence(session, attempt, chat, presence)
    }

    fn simulator(&self) -> Option<&Simulated> {
        Some(&self.inner)
    }
}
