//! The simulated engine's stories, told in virtual time.

use std::fmt::Write;

use expect_test::{Expect, expect};

use portcullis_core::Settings;

use super::*;
use crate::Setup;
use crate::test::Memory;

const SESSION: SessionId = SessionId::from_bytes([1; 16]);
const ORG: OrgId = OrgId::from_bytes([2; 16]);

struct Story {
    engine: Simulated,
    now: Timestamp,
    text: String,
}

impl Story {
    fn new() -> Self {
        Self { engine: Simulated::new(Arc::new(Memory::default())), now: Timestamp::default(), text: String::new() }
    }

    fn perform(&mut self, task: Task) {
        self.engine.perform(Command { org: ORG, session: SESSION, task }, self.now);
        self.listen();
    }

    /// Lets time pass from one thing the engine does to the next.
    fn pass(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while let Some(at) = self.engine.next_wake().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.listen();
        }
        self.now = end;
    }

    fn listen(&mut self) {
        for report in self.engine.poll(self.now) {
            let what = match report.body {
                ReportBody::Fact(EngineFact { fact: Fact::CodeIssued { code, .. }, .. }) => {
                    format!("code {} until {}", code.text.reveal(), code.expires_at.as_millis())
                }
                ReportBody::Fact(fact) => fact.fact.name().to_owned(),
                ReportBody::TextIn(text) => format!("text from {}: {}", text.from, text.text),
                ReportBody::Progress(progress) => format!("{} in {}", progress.stage.name(), progress.chat),
            };
            writeln!(self.text, "{:<7}{what}", self.now.as_millis()).unwrap();
        }
    }

    fn check(&self, expected: &Expect) {
        expected.assert_eq(&self.text);
    }
}

fn setup() -> Box<Setup> {
    Box::new(Setup { proxy: None, settings: Settings::default() })
}

fn first() -> Attempt {
    Attempt::default().next()
}

#[test]
fn qr_codes_rotate_six_times_and_then_pairing_has_failed() {
    let mut story = Story::new();
    story.perform(Task::Pair { attempt: first(), phone: None, setup: setup() });
    story.pass(Duration::from_secs(300));
    story.check(&expect![[r#"
        0      code 2@simulated,sess_01040G2081040G2081040G2081,1,1 until 60000
        60000  code 2@simulated,sess_01040G2081040G2081040G2081,1,2 until 80000
        80000  code 2@simulated,sess_01040G2081040G2081040G2081,1,3 until 100000
        100000 code 2@simulated,sess_01040G2081040G2081040G2081,1,4 until 120000
        120000 code 2@simulated,sess_01040G2081040G2081040G2081,1,5 until 140000
        140000 code 2@simulated,sess_01040G2081040G2081040G2081,1,6 until 160000
        160000 codes-exhausted
    "#]]);
    assert_eq!(story.engine.runs(), []);
}

#[test]
fn a_scan_links_and_connects_and_a_launch_finds_the_device_again() {
    let mut story = Story::new();
    story.perform(Task::Pair { attempt: first(), phone: None, setup: setup() });
    story.engine.scan(SESSION, Some("628123"), story.now).unwrap();
    story.pass(Duration::from_secs(2));
    story.engine.disconnect(SESSION, RECONNECT, story.now).unwrap();
    story.pass(Duration::from_secs(5));
    story.engine.receive_text(SESSION, "49123@s.whatsapp.net", "hello", story.now).unwrap();
    story.listen();
    story.perform(Task::Halt { attempt: first() });
    story.perform(Task::Launch { attempt: first().next(), setup: setup() });
    story.pass(Duration::from_secs(2));
    story.perform(Task::Unlink { attempt: first().next(), setup: setup() });
    story.pass(Duration::from_secs(2));
    story.perform(Task::Launch { attempt: first().next().next(), setup: setup() });
    story.check(&expect![[r#"
        0      code 2@simulated,sess_01040G2081040G2081040G2081,1,1 until 60000
        0      linked
        500    connected
        2000   disconnected
        4000   connected
        7000   text from 49123@s.whatsapp.net: hello
        7500   connected
        9200   unlinked
        11000  logged-out
    "#]]);
}

#[test]
fn a_pairing_code_has_the_form_of_whatsapps() {
    let mut story = Story::new();
    story.perform(Task::Pair { attempt: first(), phone: Some(Secret::new("628123")), setup: setup() });
    story.pass(Duration::from_secs(200));
    story.check(&expect![[r#"
        0      code 3EK9-1J7M until 160000
        160000 codes-exhausted
    "#]]);
}

#[test]
fn controls_refuse_what_does_not_fit() {
    let story = Story::new();
    assert_eq!(story.engine.scan(SESSION, None, story.now), Err(SimulatorError::NotRunning));
    story.engine.perform(
        Command { org: ORG, session: SESSION, task: Task::Pair { attempt: first(), phone: None, setup: setup() } },
        story.now,
    );
    assert_eq!(story.engine.receive_text(SESSION, "x", "y", story.now), Err(SimulatorError::NotConnected));
    assert_eq!(story.engine.scan(SESSION, None, story.now), Ok(()));
    assert_eq!(story.engine.scan(SESSION, None, story.now), Err(SimulatorError::NotPairing));
}
