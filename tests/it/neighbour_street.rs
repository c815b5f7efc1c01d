//! The hostile neighbour: one organisation's plugin burns nearly all that it may on every call, at full load, and another organisation goes on working.
//!
//! The plugin answers in the end, because one that fails is suspended and costs nobody anything any more.
//! The test `neighbour` and the benchmark of the same name measure what that costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_testing::{ANSWER, Guest};
use serde_json::json;
use tokio::task::JoinSet;

use crate::gateway::Gateway;
use crate::world::Org;

/// How many requests of the attacker's are under way at once; more than one organisation gets places for.
const ATTACKERS: usize = 16;
/// How many requests of the other organisation's are under way at once.
const HONEST: usize = 2;

/// A gate that uses about four fifths of its fuel and then allows.
fn burning() -> Vec<u8> {
    let body = format!(
        "(local $left i32)
        (local.set $left (i32.const 3000000))
        (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        i32.const {ANSWER}"
    );
    Guest::gate(&body).named("burning").build()
}

/// Two organisations, of which the first attacks.
pub(crate) struct Street {
    gateway: Gateway,
    attacker: Org,
    honest: Org,
    /// What each attacking request is about, and each honest client.
    attacked: Vec<String>,
    served: Vec<String>,
}

/// How long requests took.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// The time within which so many of a hundred were answered.
    pub(crate) fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    /// A line for people.
    pub(crate) fn line(&mut self, what: &str) -> String {
        let (p50, p99, count) = (self.percentile(50), self.percentile(99), self.0.len());
        format!("{what:<20} {count:>7} requests   p50 {p50:>9.2?}   p99 {p99:>9.2?}")
    }
}

impl Street {
    pub(crate) async fn start() -> Self {
        let gateway = Gateway::start_with("[plugins]\ngate_wall_ms = 2000\nchain_wall_ms = 4000\n").await;
        let (attacker, honest) = (gateway.org("Attacker").await, gateway.org("Honest").await);
        let burning = attacker.upload(burning()).await;
        let allowing = honest.upload(Guest::allowing().build()).await;
        let hooks = |plugin: &str| json!({ "plugin": plugin, "hooks": ["session.labels"] });
        attacker.client.post("/api/v1/bindings", &hooks(&burning)).await.expect(201);
        honest.client.post("/api/v1/bindings", &hooks(&allowing)).await.expect(201);
        let attacked = labels_of_sessions(&attacker, ATTACKERS).await;
        let served = labels_of_sessions(&honest, HONEST).await;
        Self { gateway, attacker, honest, attacked, served }
    }

    /// So many honest requests by each of the honest clients, every one of which must be served.
    pub(crate) async fn honest(&self, requests: u32) -> Times {
        let mut clients = JoinSet::new();
        for path in self.served.clone() {
            let org = self.honest.clone();
            clients.spawn(async move {
                let mut times = Times::default();
                for n in 0..requests {
                    let began = Instant::now();
                    let reply = org.client.put(&path, &json!({ "n": n.to_string() })).await;
                    times.0.push(began.elapsed());
                    reply.expect(200);
                }
                times
            });
        }
        let mut all = Times::default();
        clients.join_all().await.into_iter().for_each(|times| all.add(times));
        all
    }

    /// The same while the attack goes on; and how many of the attacker's requests were answered meanwhile.
    pub(crate) async fn under_attack(&self, requests: u32) -> (Times, u64) {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut attackers = JoinSet::new();
        for path in self.attacked.clone() {
            let (org, over, answered) = (self.attacker.clone(), Arc::clone(&over), Arc::clone(&answered));
            attackers.spawn(async move {
                let mut n = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    n += 1;
                    let reply = org.client.put(&path, &json!({ "n": n.to_string() })).await;
                    // Done, denied because its organisation has no place left, or told to come back.
                    assert!([200, 403, 503].contains(&reply.status), "{reply:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The attack has begun once somebody has felt it.
        while answered.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let times = self.honest(requests).await;
        over.store(true, Ordering::Relaxed);
        attackers.join_all().await;
        assert!(!self.gateway.stderr().contains("panicked"), "{}", self.gateway.stderr());
        (times, answered.load(Ordering::Relaxed))
    }
}

/// Makes sessions, and tells where the labels of each are.
async fn labels_of_sessions(org: &Org, count: usize) -> Vec<String> {
    let mut paths = Vec::with_capacity(count);
    for _ in 0..count {
        paths.push(format!("/api/v1/sessions/{}/labels", org.session().await));
    }
    paths
}
