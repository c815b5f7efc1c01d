//! The owner of one session, who does with it what owners do, whatever becomes of the gateway meanwhile, and remembers what was
//! acknowledged. No words are ever sent twice by it, so words that arrive twice are the gateway's doing.

use std::time::{Duration, Instant};

use portcullis_whatsapp_server::Action;
use tokio::sync::watch;

use super::line::{Came, Line};
use super::scene::LOOK;
use crate::calls::Lost;
use crate::deliveries::receiver::Dice;

/// How long a session may take to come up after the last kill, and a last text to be taken.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest pause between two things that are done, in milliseconds.
const PAUSE: u64 = 30;

/// The owner of one session.
pub(super) struct Worker {
    pub(super) line: Line,
    /// What was sent and acknowledged: WhatsApp's id, and the words.
    pub(super) told: Vec<(String, String)>,
    /// What a phone has sent to one of the session's devices: the device, and WhatsApp's id.
    pub(super) heard: Vec<(u16, String)>,
    /// Texts that were refused, and those of which nobody has said what became of them.
    pub(super) unsent: (usize, usize),
    dice: Dice,
    /// It has asked for a logout, which was not confirmed yet.
    leaving: bool,
    given: u64,
}

impl Worker {
    pub(super) fn new(line: Line, seed: u64) -> Self {
        let dice = Dice::new(seed.wrapping_mul(1_000_003).wrapping_add(line.number));
        let (told, heard) = (Vec::new(), Vec::new());
        Self { line, told, heard, unsent: (0, 0), dice, leaving: false, given: 0 }
    }

    /// Words that were never sent before.
    fn words(&mut self) -> String {
        self.given += 1;
        format!("{} says {}", self.line.number, self.given)
    }

    /// Lives until that is over.
    pub(super) async fn live(&mut self, over: &watch::Receiver<bool>) {
        while !*over.borrow() {
            if self.step().await.is_err() {
                // The gateway is gone, and comes back.
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Lost> {
        if !self.line.create(true).await? {
            tokio::time::sleep(LOOK).await;
            return Ok(());
        }
        if self.leaving {
            return self.leave().await;
        }
        let status = self.line.status().await?;
        if status != "working" {
            let by_code = self.dice.below(5) == 0;
            return self.line.nudge(&status, by_code).await;
        }
        match self.dice.below(100) {
            0..50 => self.say().await?,
            50..78 => self.hear(),
            78..86 => self.cut(),
            86..92 => {
                self.line.act("stop").await?;
            }
            92..96 => {
                self.line.let_go();
                self.leaving = true;
                self.leave().await?;
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(self.dice.below(PAUSE))).await;
        Ok(())
    }

    async fn say(&mut self) -> Result<(), Lost> {
        let words = self.words();
        match self.line.says(&words).await {
            Ok(Some(id)) => self.told.push((id, words)),
            Ok(None) => self.unsent.0 += 1,
            Err(lost) => {
                self.unsent.1 += usize::from(lost == Lost::Unanswered);
                return Err(lost);
            }
        }
        Ok(())
    }

    fn hear(&mut self) {
        let words = self.words();
        self.heard.extend(self.line.hears(&words));
    }

    /// Its connection is lost in one of the ways in which connections are.
    fn cut(&mut self) {
        let action = match self.dice.below(3) {
            0 => Action::Drop,
            1 => Action::Close,
            _ => Action::Error { code: 503 },
        };
        if let Some(device) = self.line.device(&self.line.seen.now()) {
            // It may be lost already.
            let _ = self.line.controls.act(self.line.number, device, action);
        }
    }

    /// Asks for the logout until it has happened.
    async fn leave(&mut self) -> Result<(), Lost> {
        if self.line.status().await? == "logged_out" {
            self.leaving = false;
            return Ok(());
        }
        self.line.act("logout").await?;
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// After the last kill: the session is connected, without a scan if its device is linked, and a text goes each way.
    pub(super) async fn settle(&mut self) -> Result<Came, Lost> {
        let began = Instant::now();
        // A connection may be left of a gateway that was killed.
        self.line.rest();
        while self.leaving {
            if began.elapsed() > PATIENCE {
                return Ok(Came::Stuck);
            }
            self.leave().await?;
        }
        let came = self.line.comes_up(PATIENCE).await?;
        let (told, heard) = (self.told.len(), self.heard.len());
        while came == Came::Up && (self.told.len() == told || self.heard.len() == heard) {
            if began.elapsed() > 2 * PATIENCE {
                return Ok(Came::Stuck);
            }
            if self.told.len() == told {
                self.say().await?;
            }
            if self.heard.len() == heard {
                self.hear();
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(came)
    }
}
