//! A worker who tells facts about subscriptions: a plugin notes them, sets timers, and deletes what was cancelled when its grace is over.

use std::time::{Duration, Instant};

use serde_json::json;

use super::either::Either;
use super::hands::{Change, Hands, Retried};
use super::journal::Fault;
use super::sessions::PATIENCE;
use crate::calls::Lost;

/// How many sessions a worker has at most.
const MOST: usize = 4;

/// A session, and what was told of its subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: String,
    pub(super) cancelled: Either<bool>,
}

/// The worker.
pub(super) struct Subscriptions {
    pub(super) hands: Hands,
    pub(super) plugin: String,
    /// Whether what was cancelled goes at once; it stays for longer than any run otherwise.
    pub(super) goes: bool,
    pub(super) subscribers: Vec<Subscriber>,
    /// Sessions that have gone.
    pub(super) gone: Vec<String>,
    /// The ids of facts that were acknowledged, with their sessions.
    pub(super) told: Vec<(String, String)>,
    creating: Option<String>,
    /// The mark of the last session that was asked for.
    mark: Option<String>,
    /// A fact that was told without an answer, to be told again.
    repeat: Option<(String, Change, bool)>,
}

impl Subscriptions {
    pub(super) fn new(hands: Hands, plugin: String, goes: bool) -> Self {
        Self {
            hands,
            plugin,
            goes,
            subscribers: Vec::new(),
            gone: Vec::new(),
            told: Vec::new(),
            creating: None,
            mark: None,
            repeat: None,
        }
    }

    /// Works until the gateway does not answer any more.
    pub(super) async fn work(&mut self) -> Result<(), Lost> {
        loop {
            // First of all, so that nothing else has happened to it meanwhile.
            if self.hands.has_open() {
                self.retry_creating().await?;
                continue;
            }
            self.hands.ask_again().await?;
            if self.subscribers.len() < MOST && self.hands.dice.below(3) == 0 {
                self.create().await?;
            } else if !self.subscribers.is_empty() {
                let at = self.hands.pick(self.subscribers.len());
                if self.goes && self.subscribers[at].cancelled.may_be(|cancelled| *cancelled) {
                    self.look(at).await?;
                } else {
                    self.tell(at).await?;
                }
            }
        }
    }

    async fn create(&mut self) -> Result<(), Lost> {
        let mark = self.hands.mark();
        self.mark = Some(mark.clone());
        let change = Change::new("POST", "/api/v1/sessions", "session.create");
        match self.hands.ask(&change.with(&json!({ "labels": { "mark": mark } }))).await {
            Ok(answer) => {
                let id = answer.body["id"].as_str().filter(|_| answer.status == 201);
                self.subscribers.extend(id.map(Subscriber::new));
                Ok(())
            }
            Err(lost) => {
                self.creating = (lost == Lost::Unanswered).then_some(mark);
                Err(lost)
            }
        }
    }

    /// Asks once more for a session that was asked for with a key, without an answer. Here nothing else has keys.
    async fn retry_creating(&mut self) -> Result<(), Lost> {
        match self.hands.retry().await {
            Ok(Some(Retried::Now(answer))) => {
                self.subscribers.extend(answer.body["id"].as_str().map(Subscriber::new));
                Ok(())
            }
            Ok(Some(Retried::Later | Retried::Before | Retried::Refused) | None) => Ok(()),
            Err(lost) => {
                if lost == Lost::Unanswered {
                    self.creating.clone_from(&self.mark);
                }
                Err(lost)
            }
        }
    }

    async fn tell(&mut self, at: usize) -> Result<(), Lost> {
        if let Some((session, change, cancelled)) = self.repeat.clone() {
            return self.told(&session, change, cancelled).await;
        }
        let session = self.subscribers[at].id.clone();
        let cancelled = self.goes || self.hands.dice.below(2) == 0;
        let (id, name) = (self.hands.mark(), if cancelled { "subscription.cancelled" } else { "subscription.renewed" });
        let body = json!({ "id": id, "name": name, "session": session, "data": { "session": session } });
        let mut change = Change::new("POST", "/api/v1/events", "event.tell").with(&body).about(&session);
        change.key = Some(id);
        self.told(&session, change, cancelled).await
    }

    async fn told(&mut self, session: &str, change: Change, cancelled: bool) -> Result<(), Lost> {
        let id = change.key.clone().unwrap_or_default();
        // The id of a fact is what makes it the same; the header is not for it.
        let asked = Change { key: None, ..change.clone() };
        let at = self.subscribers.iter().position(|subscriber| subscriber.id == session);
        let answered = self.hands.ask(&asked).await;
        let Some(at) = at else {
            self.repeat = None;
            return answered.map(drop);
        };
        match answered {
            Ok(answer) if answer.status < 300 => {
                self.repeat = None;
                self.subscribers[at].cancelled.set(cancelled);
                self.told.push((session.to_owned(), id));
                Ok(())
            }
            Ok(answer) if answer.status == 404 => {
                self.repeat = None;
                self.look(at).await
            }
            Ok(_) => Ok(()),
            Err(lost) => {
                if lost == Lost::Unanswered {
                    self.subscribers[at].cancelled.or(cancelled);
                    self.repeat = Some((session.to_owned(), change, cancelled));
                }
                Err(lost)
            }
        }
    }

    async fn look(&mut self, at: usize) -> Result<(), Lost> {
        let subscriber = &self.subscribers[at];
        let answer = self.hands.get(&format!("/api/v1/sessions/{}", subscriber.id)).await?;
        if answer.status == 404 {
            let subscriber = self.subscribers.remove(at);
            if !self.goes || !subscriber.cancelled.may_be(|cancelled| *cancelled) {
                self.hands.fault(Fault::Lost, format!("{subscriber:?} is gone"));
            }
            self.gone.push(subscriber.id);
        }
        Ok(())
    }

    /// Compares everything with what was acknowledged. Errs if the gateway is gone before that is done.
    pub(super) async fn verify(&mut self) -> Result<(), Lost> {
        if let Some(mark) = self.creating.clone() {
            let listed = self.hands.get("/api/v1/sessions").await?;
            let found = listed.body["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            let made = found.iter().find(|session| session["labels"]["mark"] == mark.as_str());
            let made = made.and_then(|session| session["id"].as_str());
            let is_new = |id: &&str| self.subscribers.iter().all(|subscriber| subscriber.id != *id);
            let made = made.filter(is_new).map(Subscriber::new);
            self.subscribers.extend(made);
            self.creating = None;
        }
        for at in (0..self.subscribers.len()).rev() {
            self.look(at).await?;
        }
        Ok(())
    }

    /// Waits until the plugin has done what follows from what it was told.
    pub(super) async fn settle(&mut self) -> Result<(), Lost> {
        while self.hands.has_open() {
            self.retry_creating().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while self.repeat.is_some() {
            self.tell(0).await?;
        }
        let since = Instant::now();
        for at in (0..self.subscribers.len()).rev() {
            loop {
                let before = self.subscribers.len();
                self.look(at).await?;
                if self.subscribers.len() < before || self.has_followed(at).await? {
                    break;
                }
                if since.elapsed() > PATIENCE {
                    let what = format!("nothing follows from what was told of {:?}", self.subscribers[at]);
                    self.hands.fault(Fault::Stuck, what);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Whether the plugin knows what it was told of a session that stays: its gate says so, about a delete that is only tried.
    async fn has_followed(&mut self, at: usize) -> Result<bool, Lost> {
        let subscriber = &self.subscribers[at];
        let Some(cancelled) = subscriber.cancelled.sure().copied() else { return Ok(true) };
        let expected = if cancelled { "too_early" } else { "subscription_active" };
        let change = Change::new("DELETE", format!("/api/v1/sessions/{}?dry_run=true", subscriber.id), "");
        let answer = self.hands.ask(&change).await?;
        Ok(!(self.goes && cancelled) && answer.body.to_string().contains(expected))
    }
}

impl Subscriber {
    fn new(id: &str) -> Self {
        Self { id: id.to_owned(), cancelled: Either::of(false) }
    }
}
