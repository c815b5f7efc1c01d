//! A worker with sessions of its own, who does one thing after the other with them: so that of each only the last thing can be in doubt.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::hands::{Change, Hands, Retried};
use super::journal::Fault;
use super::kept::{Act, Kept, Life, Stands};
use super::now;
use crate::calls::{Answer, Lost};

/// How many sessions a worker has at most.
const MOST: usize = 5;
/// How many that are gone are looked for again.
const REMEMBERED: usize = 4;
/// How long everything that passes by itself may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A message, and how often it may and must have gone out.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) session: String,
    pub(super) text: String,
    pub(super) least: usize,
    pub(super) most: usize,
    /// Its own id, if it was told.
    outbox: Option<String>,
    /// What asks for it once more under its key, until there is an answer.
    repeat: Option<Change>,
}

/// The worker.
pub(super) struct Sessions {
    pub(super) hands: Hands,
    short_grace: bool,
    /// Whether a plugin slows sends down, so that what is queued may stay so for long.
    paced: bool,
    pub(super) kept: Vec<Kept>,
    pub(super) gone: Vec<String>,
    pub(super) messages: Vec<Message>,
    /// The mark of a session whose making was not answered.
    creating: Option<(String, bool)>,
    /// What was asked with a key and not answered.
    open: Option<Doing>,
}

/// What was done last.
#[derive(Debug, Clone)]
enum Doing {
    Create { mark: String, starts: bool },
    Act { id: String, act: Act },
}

impl Sessions {
    pub(super) fn new(hands: Hands, short_grace: bool, paced: bool) -> Self {
        Self {
            hands,
            short_grace,
            paced,
            kept: Vec::new(),
            gone: Vec::new(),
            messages: Vec::new(),
            creating: None,
            open: None,
        }
    }

    /// Works until the gateway does not answer any more.
    pub(super) async fn work(&mut self) -> Result<(), Lost> {
        let worked = self.work_on().await;
        self.kept.iter_mut().for_each(Kept::killed);
        worked
    }

    async fn work_on(&mut self) -> Result<(), Lost> {
        loop {
            // First of all, so that nothing else has happened to it meanwhile.
            if self.hands.has_open() {
                self.retry().await?;
                continue;
            }
            self.hands.ask_again().await?;
            if let Some(at) = self.messages.iter().position(|message| message.repeat.is_some()) {
                self.repeat(at).await?;
            }
            let here = self.kept.len();
            if here < 2 || (here < MOST && self.hands.dice.below(8) == 0) {
                self.create().await?;
                continue;
            }
            let at = self.hands.pick(here);
            match self.choose(at) {
                None => self.look(at, false).await?,
                Some(Act::Receive) if self.hands.dice.below(4) > 0 => self.send(at).await?,
                Some(act) => self.act(at, &act).await?,
            }
            self.sweep();
        }
    }

    async fn create(&mut self) -> Result<(), Lost> {
        let (mark, starts) = (self.hands.mark(), self.hands.dice.below(2) == 0);
        let body = json!({ "labels": { "mark": mark }, "ratePolicy": "unlimited", "start": starts });
        let change = Change::new("POST", "/api/v1/sessions", "session.create").with(&body);
        self.open = Some(Doing::Create { mark: mark.clone(), starts });
        match self.hands.ask(&change).await {
            Ok(answer) if answer.status == 201 => {
                let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
                self.kept.push(Kept::new(id, mark, "unlimited", starts));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(lost) => {
                self.creating = (lost == Lost::Unanswered).then_some((mark, starts));
                Err(lost)
            }
        }
    }

    /// What to do with a session; nothing but to look if it is not known how it stands.
    fn choose(&mut self, at: usize) -> Option<Act> {
        let kept = &self.kept[at];
        let dice = self.hands.dice.below(100);
        match (kept.life.sure(), kept.stands.sure()) {
            (Some(Life::Pending(_)), _) => return (dice < 30).then_some(Act::Restore),
            // Whoever is not answered asks again, or does not.
            (None, _) => return (dice < 40).then_some(Act::Delete),
            (Some(Life::Here), Some(stands)) => {
                if let Some(act) = moving(*stands, dice) {
                    return Some(act);
                }
            }
            _ => return None,
        }
        let mark = self.hands.mark();
        Some(match self.hands.dice.below(20) {
            0..7 => Act::Labels(mark),
            7..10 => Act::Settings(mark),
            10..12 => Act::Proxy(Some(mark)),
            12 => Act::Proxy(None),
            13 => Act::Policy("unlimited"),
            14 => Act::Policy("high_throughput"),
            15 => Act::MakeLink,
            16 => Act::RevokeLink,
            _ => Act::Delete,
        })
    }

    async fn act(&mut self, at: usize, act: &Act) -> Result<(), Lost> {
        let kept = &mut self.kept[at];
        let mut change = act.change(&kept.id);
        // A deletion that is under way is not begun again.
        change.is_again = *act == Act::Delete && kept.life.sure() != Some(&Life::Here);
        self.open = Some(Doing::Act { id: kept.id.clone(), act: act.clone() });
        let mut asked = self.hands.ask(&change).await;
        // A plugin asks back.
        if let Ok(Answer { status: 428, body, .. }) = &asked {
            let token = body["error"]["details"]["confirmation"]["token"].as_str().unwrap_or_default();
            change.path = format!("{}?confirmation={token}", change.path);
            asked = self.hands.ask(&change).await;
        }
        let kept = &mut self.kept[at];
        match asked {
            Ok(answer) if answer.status < 300 => kept.apply(act, true, &answer.body, self.short_grace),
            // It was too much, or took too long; it may have begun.
            Ok(answer) if answer.status == 503 => kept.apply(act, false, &Value::Null, self.short_grace),
            Ok(answer) if answer.status == 404 => return self.look(at, false).await,
            Ok(_) => {}
            Err(lost) => {
                if lost == Lost::Unanswered {
                    kept.apply(act, false, &Value::Null, self.short_grace);
                }
                return Err(lost);
            }
        }
        Ok(())
    }

    /// Asks once more for what was asked with a key and not answered. Nothing else has happened to that session since.
    async fn retry(&mut self) -> Result<(), Lost> {
        let retried = match self.hands.retry().await {
            Ok(None) => return Ok(()),
            Ok(Some(retried)) => retried,
            Err(lost) => {
                if lost == Lost::Unanswered {
                    self.doubt();
                }
                return Err(lost);
            }
        };
        match (self.open.clone(), retried) {
            (_, Retried::Later) => {
                self.doubt();
                Ok(())
            }
            (Some(Doing::Create { mark, starts }), Retried::Now(answer)) => {
                if self.has(&mark) {
                    self.hands.fault(Fault::Duplicated, format!("the session with the mark {mark} is made once more"));
                }
                let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
                self.kept.push(Kept::new(id, mark, "unlimited", starts));
                Ok(())
            }
            (Some(Doing::Create { mark, .. }), Retried::Before) => {
                self.find_created().await?;
                if !self.has(&mark) {
                    self.hands
                        .fault(Fault::Lost, format!("the session with the mark {mark} was made and is not there"));
                }
                Ok(())
            }
            (Some(Doing::Act { id, act }), Retried::Now(answer)) => {
                if let Some(kept) = self.kept.iter_mut().find(|kept| kept.id == id) {
                    kept.apply(&act, true, &answer.body, self.short_grace);
                }
                Ok(())
            }
            (Some(Doing::Act { id, .. }), Retried::Before | Retried::Refused) => {
                match self.kept.iter().position(|kept| kept.id == id) {
                    Some(at) => self.look(at, false).await,
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// What was asked for last has been done, or not.
    fn doubt(&mut self) {
        match self.open.clone() {
            Some(Doing::Create { mark, starts }) => self.creating = Some((mark, starts)),
            Some(Doing::Act { id, act }) => {
                if let Some(kept) = self.kept.iter_mut().find(|kept| kept.id == id) {
                    kept.apply(&act, false, &Value::Null, self.short_grace);
                }
            }
            None => {}
        }
    }

    fn has(&self, mark: &str) -> bool {
        self.kept.iter().any(|kept| kept.is_marked(mark))
    }

    async fn send(&mut self, at: usize) -> Result<(), Lost> {
        let (session, text) = (self.kept[at].id.clone(), self.hands.mark());
        let queued = self.hands.dice.below(2) == 0;
        let path = format!("/api/v1/sessions/{session}/messages{}", if queued { "?async=true" } else { "" });
        let body = json!({ "type": "text", "to": "6281@s.whatsapp.net", "text": text });
        let mut change = Change::new("POST", path, "message.send").with(&body).about(&session);
        change.key = (self.hands.dice.below(2) == 0).then(|| text.clone());
        let mut message = Message { session, text, least: 0, most: 1, outbox: None, repeat: None };
        match self.hands.ask(&change).await {
            Ok(answer) => {
                message.learn(&answer);
                self.messages.push(message);
                Ok(())
            }
            Err(lost) => {
                if lost == Lost::Unanswered {
                    message.repeat = change.key.is_some().then_some(change);
                    self.messages.push(message);
                }
                Err(lost)
            }
        }
    }

    /// Asks for a message once more that may have been sent.
    async fn repeat(&mut self, at: usize) -> Result<(), Lost> {
        let Some(change) = self.messages[at].repeat.clone() else { return Ok(()) };
        let answer = self.hands.ask(&change).await?;
        if answer.status != 503 && answer.status != 429 {
            self.messages[at].repeat = None;
            self.messages[at].learn(&answer);
        }
        Ok(())
    }

    /// Looks at a session, whatever it is thought to be.
    async fn look(&mut self, at: usize, wholly: bool) -> Result<(), Lost> {
        let path = format!("/api/v1/sessions/{}", self.kept[at].id);
        let answer = self.hands.get(&path).await?;
        let mut found = vec![self.kept[at].observe(answer.status, &answer.body, now())];
        if wholly && answer.status == 200 {
            let settings = self.hands.get(&format!("{path}/settings")).await?;
            let proxy = self.hands.get(&format!("{path}/proxy")).await?;
            // It may have gone meanwhile.
            if settings.status == 200 && proxy.status == 200 {
                found.push(self.kept[at].observe_settings(&settings.body));
                found.push(self.kept[at].observe_proxy(&proxy.body));
            }
        }
        for wrong in found.into_iter().filter_map(Result::err) {
            self.hands.fault(Fault::Lost, wrong);
        }
        Ok(())
    }

    /// Puts sessions aside that are gone.
    fn sweep(&mut self) {
        let is_gone = |kept: &Kept| kept.life.sure() == Some(&Life::Gone);
        let gone = self.kept.iter().filter(|kept| is_gone(kept)).map(|kept| kept.id.clone());
        self.gone.extend(gone);
        self.kept.retain(|kept| !is_gone(kept));
        let kept = &self.kept;
        self.messages.retain(|message| kept.iter().any(|kept| kept.id == message.session));
    }

    /// Compares everything with what was acknowledged. Errs if the gateway is gone before that is done.
    pub(super) async fn verify(&mut self) -> Result<(), Lost> {
        self.find_created().await?;
        for at in 0..self.kept.len() {
            self.look(at, true).await?;
        }
        self.sweep();
        for at in self.gone.len().saturating_sub(REMEMBERED)..self.gone.len() {
            let gone = self.gone[at].clone();
            let answer = self.hands.get(&format!("/api/v1/sessions/{gone}")).await?;
            if answer.status != 404 {
                self.hands.fault(Fault::Lost, format!("{gone} was gone and is answered {}", answer.status));
            }
        }
        Ok(())
    }

    /// Looks whether a session is there whose making was not answered.
    async fn find_created(&mut self) -> Result<(), Lost> {
        if let Some((mark, starts)) = self.creating.clone().filter(|(mark, _)| !self.has(mark)) {
            let listed = self.hands.get("/api/v1/sessions").await?;
            let found = listed.body["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut found = found.iter().filter(|session| session["labels"]["mark"] == mark.as_str());
            if let Some(id) = found.next().and_then(|session| session["id"].as_str()) {
                self.kept.push(Kept::new(id.to_owned(), mark.clone(), "unlimited", starts));
            }
            if found.next().is_some() {
                self.hands.fault(Fault::Duplicated, format!("there are two sessions with the mark {mark}"));
            }
        }
        self.creating = None;
        Ok(())
    }

    /// Waits until nothing of this worker's passes by itself any more, and every message has come to an end.
    pub(super) async fn settle(&mut self) -> Result<(), Lost> {
        while self.hands.has_open() {
            self.retry().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while let Some(at) = self.messages.iter().position(|message| message.repeat.is_some()) {
            self.repeat(at).await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let since = Instant::now();
        for at in 0..self.kept.len() {
            loop {
                let answer = self.hands.get(&format!("/api/v1/sessions/{}", self.kept[at].id)).await?;
                if let Err(wrong) = self.kept[at].observe(answer.status, &answer.body, now()) {
                    self.hands.fault(Fault::Lost, wrong);
                }
                let status = answer.body["status"].as_str().unwrap_or_default();
                if !self.kept[at].is_transient(status, now()) {
                    break;
                }
                if since.elapsed() > PATIENCE {
                    self.hands.fault(Fault::Stuck, format!("{} stays {status}: {:?}", self.kept[at].id, self.kept[at]));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        self.sweep();
        let here: Vec<String> = self.working();
        for at in 0..self.messages.len() {
            let message = &self.messages[at];
            let Some(outbox) = message.outbox.clone() else { continue };
            if self.paced || !here.contains(&message.session) {
                continue;
            }
            let path = format!("/api/v1/sessions/{}/messages/{outbox}", message.session);
            loop {
                let answer = self.hands.get(&path).await?;
                let status = answer.body["status"].as_str().unwrap_or_default();
                let message = &mut self.messages[at];
                match status {
                    "sent" => (message.least, message.outbox) = (1, None),
                    "failed" => (message.most, message.outbox) = (0, None),
                    "queued" | "sending" if since.elapsed() < PATIENCE => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                    "queued" | "sending" => {
                        self.hands.fault(Fault::Stuck, format!("the message {outbox} stays {status}"));
                    }
                    _ => self.hands.fault(Fault::Lost, format!("the message {outbox} is answered {}", answer.status)),
                }
                break;
            }
        }
        Ok(())
    }

    /// The sessions that are connected for certain, whose messages therefore have to go out.
    fn working(&self) -> Vec<String> {
        let is_working =
            |kept: &&Kept| kept.life.sure() == Some(&Life::Here) && kept.stands.sure() == Some(&Stands::Working);
        self.kept.iter().filter(is_working).map(|kept| kept.id.clone()).collect()
    }
}

impl Message {
    fn learn(&mut self, answer: &Answer) {
        match (answer.status, answer.body["status"].as_str()) {
            (200, Some("sent")) => self.least = 1,
            (200, Some("failed")) => self.most = 0,
            (202, _) => self.outbox = answer.body["outboxId"].as_str().map(str::to_owned),
            // It was too much for the moment; under a key that is asked again it may have gone out before.
            _ => {}
        }
    }
}

/// What moves a session that stands like this.
fn moving(stands: Stands, dice: u64) -> Option<Act> {
    Some(match (stands, dice) {
        (Stands::Stopped { linked: false } | Stands::Failed | Stands::LoggedOut, 0..40) => Act::Qr,
        (Stands::Stopped { linked: false } | Stands::Failed | Stands::LoggedOut, 40..50) => Act::PairingCode,
        (Stands::Stopped { linked: false } | Stands::Failed | Stands::LoggedOut, 50..56) => Act::Stop,
        (Stands::Stopped { linked: true }, 0..40) => Act::Start,
        (Stands::Stopped { linked: true }, 40..50) => Act::Restart,
        (Stands::Stopped { linked: true }, 50..55) => Act::Logout,
        (Stands::Pairing, 0..60) => Act::Scan,
        (Stands::Pairing, 60..65) => Act::Stop,
        // Most of these are sends.
        (Stands::Working, 0..45) => Act::Receive,
        (Stands::Working, 45..50) => Act::Stop,
        (Stands::Working, 50..55) => Act::Restart,
        (Stands::Working, 55..59) => Act::Logout,
        (Stands::Working, 59..62) => Act::PhoneUnlinks,
        (Stands::Working, 62..65) => Act::Disconnect,
        (Stands::Working, 65..67) => Act::Limit,
        _ => return None,
    })
}
