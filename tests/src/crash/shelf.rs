//! A worker with things that an organisation, or the operator, has many of: each has a name that was given once, is there or not, and is switched on or off.

use std::time::Duration;

use portcullis_testing::Guest;
use serde_json::{Value, json};

use super::either::Either;
use super::hands::{Change, Hands, Retried};
use super::journal::Fault;
use crate::calls::{Answer, Lost};

/// How many of one kind a worker has at most.
const MOST: usize = 4;

/// A kind of thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Keys,
    Webhooks,
    /// Of this plugin.
    Secrets(String),
    Plugins,
    /// Of this plugin; their names are their numbers in the chain.
    Bindings(String),
    /// The operator's.
    Orgs,
}

#[derive(Debug)]
struct Item {
    name: String,
    id: Option<String>,
    there: Either<bool>,
    on: Either<bool>,
}

/// The worker.
pub(super) struct Shelf {
    pub(super) hands: Hands,
    shelves: Vec<(Kind, Vec<Item>)>,
    numbers: u32,
    /// What was done last, to what: if it was not answered, it is asked for again with its key.
    doing: Option<Doing>,
}

#[derive(Debug, Clone)]
struct Doing {
    shelf: usize,
    name: String,
    act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Create,
    Switch(bool),
    Remove,
}

impl Kind {
    fn list(&self, org: &str) -> String {
        match self {
            Self::Keys => format!("/api/v1/orgs/{org}/keys"),
            Self::Webhooks => "/api/v1/webhooks".to_owned(),
            Self::Secrets(plugin) => format!("/api/v1/plugins/{plugin}/secrets"),
            Self::Plugins => "/api/v1/plugins".to_owned(),
            Self::Bindings(_) => "/api/v1/bindings".to_owned(),
            Self::Orgs => "/api/v1/orgs".to_owned(),
        }
    }

    fn create(&self, org: &str, name: &str) -> Change {
        let post = |operation| Change::new("POST", self.list(org), operation);
        match self {
            Self::Keys => post("key.create").with(&json!({ "name": name, "capabilities": ["read"] })),
            Self::Webhooks => {
                let url = format!("http://127.0.0.1:9/{name}");
                post("webhook.create").with(&json!({ "url": url, "events": ["session.deleted"], "active": false }))
            }
            Self::Secrets(_) => Change::new("PUT", format!("{}/{name}", self.list(org)), "secret.put")
                .with(&json!({ "value": name })),
            Self::Plugins => Change { body: Guest::allowing().named(name).build(), ..post("plugin.upload") },
            Self::Bindings(plugin) => post("binding.create").with(&json!({
                "plugin": plugin, "hooks": ["session.restore"], "mode": "off", "order": name.parse::<u32>().unwrap_or_default(),
            })),
            Self::Orgs => post("").with(&json!({ "name": name })),
        }
    }

    /// None for what cannot be switched.
    fn switch(&self, org: &str, id: &str, on: bool) -> Option<Change> {
        let patch = |operation| Change::new("PATCH", format!("{}/{id}", self.list(org)), operation);
        match self {
            Self::Keys | Self::Plugins | Self::Secrets(_) => None,
            Self::Webhooks => Some(patch("webhook.update").with(&json!({ "active": on }))),
            Self::Bindings(_) => {
                Some(patch("binding.update").with(&json!({ "mode": if on { "enforce" } else { "off" } })))
            }
            Self::Orgs => Some(patch("").with(&json!({ "suspended": on }))),
        }
    }

    fn remove(&self, org: &str, id: &str) -> Change {
        let operation = match self {
            Self::Keys => "key.revoke",
            Self::Webhooks => "webhook.delete",
            Self::Secrets(_) => "secret.delete",
            Self::Plugins => "plugin.delete",
            Self::Bindings(_) => "binding.delete",
            Self::Orgs => "",
        };
        Change::new("DELETE", format!("{}/{id}", self.list(org)), operation)
    }

    /// Name, id and whether it is on, of a row of the list; none if it is as if it were not there.
    fn read(&self, row: &Value) -> Option<(String, String, bool)> {
        let text = |field: &str| row[field].as_str().map(str::to_owned);
        match self {
            Self::Keys if row["revokedAt"].is_null() => Some((text("name")?, text("id")?, false)),
            Self::Keys => None,
            Self::Webhooks => {
                let name = text("url")?.rsplit('/').next()?.to_owned();
                Some((name, text("id")?, row["active"].as_bool()?))
            }
            Self::Secrets(_) => Some((text("name")?, text("name")?, false)),
            Self::Plugins => Some((row["describe"]["name"].as_str()?.to_owned(), text("id")?, false)),
            Self::Bindings(plugin) if row["plugin"] == plugin.as_str() => {
                Some((row["order"].as_i64()?.to_string(), text("id")?, row["mode"] == "enforce"))
            }
            Self::Bindings(_) => None,
            Self::Orgs => Some((text("name")?, text("id")?, row["suspended"].as_bool()?)),
        }
    }
}

impl Shelf {
    pub(super) fn new(hands: Hands, kinds: Vec<Kind>) -> Self {
        Self { hands, shelves: kinds.into_iter().map(|kind| (kind, Vec::new())).collect(), numbers: 0, doing: None }
    }

    /// Works until the gateway does not answer any more.
    pub(super) async fn work(&mut self) -> Result<(), Lost> {
        loop {
            // First of all, so that nothing else has happened to it meanwhile.
            if self.hands.has_open() {
                self.retry().await?;
                continue;
            }
            self.hands.ask_again().await?;
            let shelf = self.hands.pick(self.shelves.len());
            let there = self.shelves[shelf].1.len();
            if there == 0 || (there < MOST && self.hands.dice.below(3) == 0) {
                self.create(shelf).await?;
                continue;
            }
            let at = self.hands.pick(there);
            if self.hands.dice.below(2) == 0 {
                self.switch(shelf, at).await?;
            } else {
                self.remove(shelf, at).await?;
            }
        }
    }

    async fn create(&mut self, shelf: usize) -> Result<(), Lost> {
        self.numbers += 1;
        let kind = self.shelves[shelf].0.clone();
        let name = if let Kind::Bindings(_) = kind { self.numbers.to_string() } else { self.hands.mark() };
        let change = kind.create(&self.hands.org, &name);
        self.doing = Some(Doing { shelf, name: name.clone(), act: Act::Create });
        let item = |id, there| Item { name: name.clone(), id, there, on: Either::of(false) };
        let answered = self.hands.ask(&change).await;
        let item = match &answered {
            Ok(Answer { status: 200..300, body, .. }) => {
                let id = if let Kind::Secrets(_) = kind { Some(name.as_str()) } else { body["id"].as_str() };
                item(id.map(str::to_owned), Either::of(true))
            }
            Ok(_) | Err(Lost::Unsent) => return answered.map(drop),
            Err(Lost::Unanswered) => {
                let mut there = Either::of(false);
                there.or(true);
                item(None, there)
            }
        };
        self.shelves[shelf].1.push(item);
        answered.map(drop)
    }

    async fn switch(&mut self, shelf: usize, at: usize) -> Result<(), Lost> {
        let on = self.hands.dice.below(2) == 0;
        let (kind, items) = &mut self.shelves[shelf];
        let item = &mut items[at];
        let Some(change) = item.id.as_deref().and_then(|id| kind.switch(&self.hands.org, id, on)) else {
            return Ok(());
        };
        self.doing = Some(Doing { shelf, name: item.name.clone(), act: Act::Switch(on) });
        match self.hands.ask(&change).await {
            Ok(Answer { status: 200..300, .. }) => item.on.set(on),
            Ok(Answer { status: 503, .. }) => item.on.or(on),
            Ok(_) => {}
            Err(lost) => {
                if lost == Lost::Unanswered {
                    item.on.or(on);
                }
                return Err(lost);
            }
        }
        Ok(())
    }

    async fn remove(&mut self, shelf: usize, at: usize) -> Result<(), Lost> {
        let (kind, items) = &mut self.shelves[shelf];
        let Some(id) = items[at].id.clone() else { return Ok(()) };
        self.doing = Some(Doing { shelf, name: items[at].name.clone(), act: Act::Remove });
        match self.hands.ask(&kind.remove(&self.hands.org, &id)).await {
            // That it stays away is seen by its name, which nothing else may have.
            Ok(Answer { status: 200..300, .. }) => drop(items.remove(at)),
            Ok(Answer { status: 503, .. }) => items[at].there.or(false),
            Ok(answer) if answer.status == 404 => {
                let item = items.remove(at);
                self.hands.fault(Fault::Lost, format!("{item:?} was there and is answered 404"));
            }
            Ok(_) => {}
            Err(lost) => {
                if lost == Lost::Unanswered {
                    items[at].there.or(false);
                }
                return Err(lost);
            }
        }
        Ok(())
    }

    /// Asks once more for what was asked with a key and not answered. What is there was compared since, and nobody has changed it.
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
        match retried {
            Retried::Later => self.doubt(),
            Retried::Before => self.verify().await?,
            Retried::Now(_) | Retried::Refused => {}
        }
        let Some(Doing { shelf, name, act }) = self.doing.clone() else { return Ok(()) };
        let (kind, items) = &mut self.shelves[shelf];
        if act == Act::Create && matches!(retried, Retried::Now(_)) {
            items.retain(|item| item.name != name || item.there.sure() == Some(&true));
        }
        let at = items.iter().position(|item| item.name == name);
        let wrong = match (act, &retried, at) {
            (_, Retried::Later, _) | (Act::Create | Act::Switch(_), Retried::Refused, _) => None,
            (Act::Create, Retried::Now(answer), None) => {
                let id = if let Kind::Secrets(_) = kind { Some(name.as_str()) } else { answer.body["id"].as_str() };
                let (id, name) = (id.map(str::to_owned), name.clone());
                items.push(Item { name, id, there: Either::of(true), on: Either::of(false) });
                None
            }
            (Act::Create, Retried::Now(_), Some(_)) => Some(Fault::Duplicated),
            (Act::Create, Retried::Before, at) => at.is_none().then_some(Fault::Lost),
            (Act::Switch(on), Retried::Now(_), Some(at)) => {
                items[at].on.set(on);
                None
            }
            (Act::Switch(on), Retried::Before, Some(at)) => {
                (!items[at].on.narrow(|known| *known == on)).then_some(Fault::Lost)
            }
            (Act::Switch(_), _, None) => Some(Fault::Lost),
            (Act::Remove, Retried::Now(_), Some(at)) => {
                items.remove(at);
                None
            }
            (Act::Remove, Retried::Now(_), None) => Some(Fault::Duplicated),
            (Act::Remove, Retried::Before, at) => at.is_some().then_some(Fault::Lost),
            // It was removed, and its key would have led to the answer.
            (Act::Remove, Retried::Refused, at) => at.is_none().then_some(Fault::Duplicated),
        };
        if let Some(fault) = wrong {
            let kind = kind.clone();
            self.hands
                .fault(fault, format!("{act:?} of {name} in {kind:?}, asked for again with its key: {retried:?}"));
        }
        Ok(())
    }

    /// What was asked for last has been done, or not.
    fn doubt(&mut self) {
        let Some(Doing { shelf, name, act }) = self.doing.clone() else { return };
        let items = &mut self.shelves[shelf].1;
        let found = items.iter_mut().find(|item| item.name == name);
        match (act, found) {
            (Act::Create, None) => {
                let mut there = Either::of(false);
                there.or(true);
                items.push(Item { name, id: None, there, on: Either::of(false) });
            }
            (Act::Switch(on), Some(item)) => item.on.or(on),
            (Act::Remove, Some(item)) => item.there.or(false),
            (Act::Create, Some(_)) | (Act::Switch(_) | Act::Remove, None) => {}
        }
    }

    /// Waits until nothing is open any more.
    pub(super) async fn settle(&mut self) -> Result<(), Lost> {
        while self.hands.has_open() {
            self.retry().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Compares everything with what was acknowledged. Errs if the gateway is gone before that is done.
    pub(super) async fn verify(&mut self) -> Result<(), Lost> {
        for shelf in 0..self.shelves.len() {
            let kind = self.shelves[shelf].0.clone();
            let mut rows = self.list(&kind).await?;
            let (items, mut wrong) = (&mut self.shelves[shelf].1, Vec::new());
            for item in &mut *items {
                let found: Vec<_> = rows.extract_if(.., |(name, ..)| *name == item.name).collect();
                if found.len() > 1 {
                    wrong.push((Fault::Duplicated, format!("there are {} of {item:?}", found.len())));
                }
                let is_there = !found.is_empty();
                if !item.there.narrow(|there| *there == is_there) {
                    wrong.push((Fault::Lost, format!("{kind:?} {item:?} is there: {is_there}")));
                    item.there.set(is_there);
                }
                if let Some((_, id, on)) = found.into_iter().next() {
                    item.id = Some(id);
                    if !item.on.narrow(|known| *known == on) {
                        wrong.push((Fault::Lost, format!("{kind:?} {item:?} is on: {on}")));
                        item.on.set(on);
                    }
                }
            }
            items.retain(|item| item.there.sure() == Some(&true));
            // What is left has a name that this worker gave, and was removed, or never made.
            wrong.extend(rows.into_iter().map(|row| (Fault::Lost, format!("{kind:?} {row:?} should not be there"))));
            for (fault, what) in wrong {
                self.hands.fault(fault, what);
            }
        }
        Ok(())
    }

    /// Everything of a kind that this worker has named.
    async fn list(&mut self, kind: &Kind) -> Result<Vec<(String, String, bool)>, Lost> {
        let (path, mut rows, mut cursor) = (kind.list(&self.hands.org), Vec::new(), String::new());
        let prefix = self.hands.prefix();
        loop {
            let answer = self.hands.get(&format!("{path}?limit=200{cursor}")).await?;
            if answer.status != 200 {
                self.hands.fault(Fault::Finding, format!("{path} is answered {}: {}", answer.status, answer.body));
                return Ok(Vec::new());
            }
            let data = answer.body["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            let own =
                |(name, ..): &(String, String, bool)| matches!(kind, Kind::Bindings(_)) || name.starts_with(&prefix);
            rows.extend(data.iter().filter_map(|row| kind.read(row)).filter(own));
            match answer.body["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(rows),
            }
        }
    }
}
