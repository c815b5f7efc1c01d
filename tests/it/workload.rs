//! Work that is done while the process is killed, and a model of what must be there afterwards.
//!
//! Each worker has sessions of its own and does one thing at a time, so that at a kill only its last request is in doubt:
//! everything before it was acknowledged and has to be there; of the last one either the state before it or the one after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use crate::client::{Client, Lost, Reply};
use crate::gateway::Gateway;
use crate::world::{Org, text};

/// How many workers there are.
const WORKERS: u64 = 4;

/// The workers and what they know.
pub(crate) struct Workload {
    org: Org,
    random: Random,
    workers: Vec<Arc<Mutex<Worker>>>,
}

struct Worker {
    random: Random,
    /// The mark that each session carries, which is all that is asked of it.
    marks: BTreeMap<String, u64>,
    deleted: Vec<String>,
    in_doubt: Option<Act>,
    steps: u64,
}

#[derive(Debug, Clone)]
enum Act {
    Create { mark: u64 },
    Mark { session: String, mark: u64 },
    Delete { session: String },
}

impl Workload {
    pub(crate) fn new(org: Org, seed: u64) -> Self {
        let worker = |number| Worker {
            random: Random(seed ^ (number + 1)),
            marks: BTreeMap::new(),
            deleted: Vec::new(),
            in_doubt: None,
            steps: number << 32,
        };
        let workers = (0..WORKERS).map(|number| Arc::new(Mutex::new(worker(number)))).collect();
        Self { org, random: Random(seed), workers }
    }

    /// Works until a number of acknowledgements that nobody chose, and kills the gateway then.
    pub(crate) async fn run_until_killed(&mut self, gateway: &mut Gateway) {
        let client = self.org.at(gateway).client;
        let (acknowledge, mut acknowledged) = mpsc::unbounded_channel();
        let mut running = Vec::new();
        for worker in &self.workers {
            let (worker, client, acknowledge) = (Arc::clone(worker), client.clone(), acknowledge.clone());
            running.push(tokio::spawn(async move { worker.lock().await.work(&client, &acknowledge).await }));
        }
        for _ in 0..20 + self.random.below(120) {
            acknowledged.recv().await.unwrap();
        }
        gateway.kill().await;
        for worker in running {
            worker.await.unwrap();
        }
    }

    /// Compares what is there with what was acknowledged.
    pub(crate) async fn verify(&self, org: &Org) {
        for worker in &self.workers {
            worker.lock().await.verify(&org.client).await;
        }
    }
}

impl Worker {
    async fn work(&mut self, client: &Client, acknowledge: &mpsc::UnboundedSender<()>) {
        loop {
            let act = self.choose();
            self.in_doubt = Some(act.clone());
            let Ok(reply) = perform(client, &act).await else { return };
            self.in_doubt = None;
            self.learn(act, &reply);
            if acknowledge.send(()).is_err() {
                return;
            }
        }
    }

    fn choose(&mut self) -> Act {
        self.steps += 1;
        let mark = self.steps;
        let chosen = usize::try_from(self.random.below(self.marks.len().max(1) as u64)).unwrap();
        let session = self.marks.keys().nth(chosen).cloned();
        match (self.random.below(10), session) {
            (0..4, _) | (_, None) => Act::Create { mark },
            (4..8, Some(session)) => Act::Mark { session, mark },
            (_, Some(session)) => Act::Delete { session },
        }
    }

    fn learn(&mut self, act: Act, reply: &Reply) {
        match act {
            Act::Create { mark } => {
                self.marks.insert(text(&reply.expect(201), "id"), mark);
            }
            Act::Mark { session, mark } => {
                reply.expect(200);
                self.marks.insert(session, mark);
            }
            Act::Delete { session } => {
                reply.expect(204);
                self.marks.remove(&session);
                self.deleted.push(session);
            }
        }
    }

    async fn verify(&mut self, client: &Client) {
        let doubt = self.in_doubt.take();
        let mut found = BTreeMap::new();
        for (session, acknowledged) in &self.marks {
            let reply = client.get(&path(session)).await;
            match &doubt {
                // It was asked to go, so it may be gone, or be going, and nothing is asked of it any more.
                Some(Act::Delete { session: asked }) if asked == session => {
                    assert!([200, 404].contains(&reply.status), "{session}: {reply:?}");
                }
                Some(Act::Mark { session: asked, mark }) if asked == session => {
                    let there = mark_of(&reply.expect(200));
                    assert!([*acknowledged, *mark].contains(&there), "{session} has the mark {there}");
                    found.insert(session.clone(), there);
                }
                _ => {
                    let there = mark_of(&reply.expect(200));
                    assert_eq!(there, *acknowledged, "{session} lost what was acknowledged");
                    found.insert(session.clone(), there);
                }
            }
        }
        for session in &self.deleted {
            client.get(&path(session)).await.refused(404, "not_found");
        }
        self.marks = found;
    }
}

fn path(session: &str) -> String {
    format!("/api/v1/sessions/{session}")
}

fn mark_of(session: &Value) -> u64 {
    session["labels"]["mark"].as_str().unwrap().parse().unwrap()
}

async fn perform(client: &Client, act: &Act) -> Result<Reply, Lost> {
    let marked = |mark: &u64| json!({ "mark": mark.to_string() });
    let (method, path, body) = match act {
        Act::Create { mark } => ("POST", "/api/v1/sessions".to_owned(), json!({ "labels": marked(mark) }).to_string()),
        Act::Mark { session, mark } => ("PUT", format!("{}/labels", path(session)), marked(mark).to_string()),
        Act::Delete { session } => ("DELETE", path(session), String::new()),
    };
    client.try_send(method, &path, body.into()).await
}

/// Numbers that a seed repeats (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % bound
    }
}
