//! The organisations of a run, their plugins, and who works in them.

use portcullis_core::OrgId;
use portcullis_testing::{ANSWER, DATA, Guest};
use serde_json::{Value, json};

use super::RunError;
use super::hands::Hands;
use super::inside::Known;
use super::journal::Journal;
use super::kept::Life;
use super::sessions::Sessions;
use super::shelf::{Kind, Shelf};
use super::subscriptions::Subscriptions;
use crate::calls::{Caller, Gateway, Lost};

/// The key under which the counting plugin counts.
pub(super) const COUNT: &str = "k";

/// Somebody who works.
pub(super) enum Worker {
    Sessions(Sessions),
    Shelf(Shelf),
    Subscriptions(Subscriptions),
}

impl Worker {
    pub(super) async fn work(&mut self) -> Result<(), Lost> {
        match self {
            Self::Sessions(worker) => worker.work().await,
            Self::Shelf(worker) => worker.work().await,
            Self::Subscriptions(worker) => worker.work().await,
        }
    }

    pub(super) async fn verify(&mut self) -> Result<(), Lost> {
        match self {
            Self::Sessions(worker) => worker.verify().await,
            Self::Shelf(worker) => worker.verify().await,
            Self::Subscriptions(worker) => worker.verify().await,
        }
    }

    pub(super) async fn settle(&mut self) -> Result<(), Lost> {
        match self {
            Self::Sessions(worker) => worker.settle().await,
            Self::Shelf(worker) => worker.settle().await,
            Self::Subscriptions(worker) => worker.settle().await,
        }
    }

    /// What was put aside for a look at the data is no longer needed.
    pub(super) fn looked(&mut self) {
        match self {
            Self::Sessions(worker) => worker.gone.clear(),
            Self::Shelf(_) => {}
            Self::Subscriptions(worker) => {
                worker.gone.clear();
                worker.told.clear();
            }
        }
    }
}

/// The organisations, by their ids, each with the plugin that counts in it.
pub(super) struct World {
    pub(super) orgs: Vec<(String, Option<String>)>,
    pub(super) workers: Vec<Worker>,
}

/// Makes things before the first kill.
struct Maker<'a> {
    gateway: &'a Gateway,
    operator: &'a str,
    journal: &'a Journal,
    seed: u64,
}

impl Maker<'_> {
    async fn post(&self, key: &str, path: &str, body: Vec<u8>) -> Result<Value, RunError> {
        let answer = Caller::new(self.gateway.clone(), key).ask("POST", path, body.into(), None).await;
        let answer = answer.map_err(|_| RunError::Prepare(format!("POST {path} was not answered")))?;
        if !(200..300).contains(&answer.status) {
            return Err(RunError::Prepare(format!("POST {path}: {} {}", answer.status, answer.body)));
        }
        self.journal.prepared(answer.request);
        Ok(answer.body)
    }

    /// An organisation and its key.
    async fn org(&self, name: &str) -> Result<(String, String), RunError> {
        let org = json!({
            "name": name,
            "plan": { "name": "business", "active": true },
            "quotas": { "sessions": 10_000, "keys": 10_000, "webhooks": 100, "plugins": 100, "bindings": 100,
                "concurrency": 256, "queuedMessages": 10_000 },
        });
        let id = text(&self.post(self.operator, "/api/v1/orgs", org.to_string().into()).await?, "id");
        let key = json!({ "name": "run", "capabilities": ["read", "send", "manage", "events", "plugins", "audit"] });
        let made = self.post(self.operator, &format!("/api/v1/orgs/{id}/keys"), key.to_string().into()).await?;
        Ok((id, text(&made, "key")))
    }

    async fn bind(&self, key: &str, plugin: &str, settings: Value) -> Result<String, RunError> {
        let upload = json!({ "catalog": plugin }).to_string();
        let plugin = text(&self.post(key, "/api/v1/plugins", upload.into()).await?, "id");
        let binding = json!({ "plugin": plugin, "settings": settings });
        self.post(key, "/api/v1/bindings", binding.to_string().into()).await?;
        Ok(plugin)
    }

    fn hands(&self, name: &str, org: &str, key: &str) -> Hands {
        let caller = Caller::new(self.gateway.clone(), key);
        Hands::new(name.to_owned(), org, caller, self.journal.clone(), self.seed)
    }
}

/// Makes the organisations, and the workers of each.
pub(super) async fn make(
    gateway: &Gateway,
    operator: &str,
    receiver: &str,
    journal: &Journal,
    seed: u64,
) -> Result<World, RunError> {
    let maker = Maker { gateway, operator, journal, seed };
    let (mut orgs, mut workers) = (Vec::new(), Vec::new());

    // Deletions are carried out at once, labels are counted by a plugin, and a receiver hears of both.
    let (org, key) = maker.org("at once").await?;
    maker.bind(&key, "delete-quota", json!({ "perMinute": 10_000, "perHour": 10_000 })).await?;
    let counter = text(&maker.post(&key, "/api/v1/plugins", counting().build()).await?, "id");
    let binding = json!({ "plugin": counter, "hooks": ["session.labels"], "grants": ["kv"] });
    maker.post(&key, "/api/v1/bindings", binding.to_string().into()).await?;
    let hook = json!({ "url": receiver, "events": ["session.deleted"] });
    maker.post(&key, "/api/v1/webhooks", hook.to_string().into()).await?;
    let idle = text(&maker.post(&key, "/api/v1/plugins", Guest::allowing().named("idle").build()).await?, "id");
    for number in 0..3 {
        let hands = maker.hands(&format!("once{number}"), &org, &key);
        workers.push(Worker::Sessions(Sessions::new(hands, false, false)));
    }
    let kinds = vec![Kind::Keys, Kind::Webhooks, Kind::Secrets(idle.clone()), Kind::Plugins, Kind::Bindings(idle)];
    workers.push(Worker::Shelf(Shelf::new(maker.hands("house", &org, &key), kinds)));
    orgs.push((org, Some(counter)));

    // Deletions wait for longer than the run, or for a moment.
    for (name, grace, paced) in [("later", "PT72H", false), ("soon", "PT2S", true)] {
        let (org, key) = maker.org(name).await?;
        maker.bind(&key, "grace-delete", json!({ "grace": grace })).await?;
        if paced {
            maker.bind(&key, "rate-ladder", json!({})).await?;
        }
        for number in 0..2 {
            let hands = maker.hands(&format!("{name}{number}"), &org, &key);
            workers.push(Worker::Sessions(Sessions::new(hands, paced, paced)));
        }
        orgs.push((org, None));
    }

    // A plugin asks whoever deletes whether they mean it.
    let (org, key) = maker.org("asked").await?;
    maker.bind(&key, "confirm-delete", json!({ "type": "nothing" })).await?;
    workers.push(Worker::Sessions(Sessions::new(maker.hands("asked", &org, &key), false, false)));
    orgs.push((org, None));

    // Subscriptions are followed by keys and timers of a plugin.
    for (name, grace, goes) in [("ending", "PT1S", true), ("lasting", "P30D", false)] {
        let (org, key) = maker.org(name).await?;
        let plugin = maker.bind(&key, "churn", json!({ "grace": grace, "recheck": "PT1S" })).await?;
        workers.push(Worker::Subscriptions(Subscriptions::new(maker.hands(name, &org, &key), plugin, goes)));
        orgs.push((org, None));
    }

    let operating = maker.hands("operator", "", operator);
    workers.push(Worker::Shelf(Shelf::new(operating, vec![Kind::Orgs])));
    Ok(World { orgs, workers })
}

impl World {
    /// What the workers know, by organisations.
    pub(super) fn known(&self) -> Vec<(OrgId, Known<'_>)> {
        let mut all = Vec::new();
        for (org, counter) in &self.orgs {
            let Ok(id) = org.parse::<OrgId>() else { continue };
            let mut known = Known {
                kept: Vec::new(),
                subscribers: Vec::new(),
                others: Vec::new(),
                gone: Vec::new(),
                messages: Vec::new(),
                told: Vec::new(),
                counter: counter.as_deref(),
            };
            for worker in &self.workers {
                match worker {
                    Worker::Sessions(worker) if worker.hands.org == *org => {
                        known.kept.extend(worker.kept.iter().filter(|kept| kept.life.sure() != Some(&Life::Gone)));
                        known.gone.extend(worker.gone.iter().map(String::as_str));
                        known.messages.extend(&worker.messages);
                    }
                    Worker::Subscriptions(worker) if worker.hands.org == *org => {
                        for subscriber in &worker.subscribers {
                            match subscriber.cancelled.sure() {
                                Some(cancelled) if !worker.goes => {
                                    known.subscribers.push((&subscriber.id, *cancelled, &worker.plugin));
                                }
                                _ => known.others.push(&subscriber.id),
                            }
                        }
                        known.gone.extend(worker.gone.iter().map(String::as_str));
                        known.told.extend(&worker.told);
                    }
                    Worker::Sessions(_) | Worker::Subscriptions(_) | Worker::Shelf(_) => {}
                }
            }
            all.push((id, known));
        }
        all
    }
}

/// A plugin that keeps how often it was asked, as a number of eight bytes, and allows.
fn counting() -> Guest {
    const READ: u32 = 4096;
    const NUMBER: u32 = 4224;
    const WRITTEN: u32 = 4256;
    let body = format!(
        "(call $get (i32.const {DATA}) (i32.const 1) (i32.const {READ}))
        (i64.store (i32.const {NUMBER}) (i64.const 1))
        (if (i32.load8_u offset=8 (i32.const {READ})) (then
            (i64.store (i32.const {NUMBER})
                (i64.add (i64.load (i32.load offset=16 (i32.const {READ}))) (i64.const 1)))))
        (call $set (i32.const {DATA}) (i32.const 1) (i32.const {NUMBER}) (i32.const 8) (i32.const 0) (i64.const 0)
            (i32.const {WRITTEN}))
        (i32.store8 (i32.const {ANSWER})
            (i32.or (i32.load8_u (i32.const {READ})) (i32.load8_u (i32.const {WRITTEN}))))
        (i32.store offset=8 (i32.const {ANSWER}) (i32.const {}))
        (i32.store offset=12 (i32.const {ANSWER}) (i32.const 1))
        i32.const {ANSWER}",
        DATA + 1,
    );
    let imports = "(import \"portcullis:policy/kv@0.1.0\" \"get\" (func $get (param i32 i32 i32)))
        (import \"portcullis:policy/kv@0.1.0\" \"set\" (func $set (param i32 i32 i32 i32 i32 i64 i32)))";
    // The second letter is the code with which it denies if it cannot count.
    Guest::gate(&body).importing(imports).data("kx").named("counting").wanting(&[("kv", "to count")])
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}
