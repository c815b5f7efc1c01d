//! Rate limits are exact: whatever is asked in whatever order, what is let through and when to come back are what a plain
//! list of hits says.

use std::time::Duration;

use portcullis_core::operation::SendText;
use portcullis_core::rate::built_in_policy;
use portcullis_core::{Clock, Operation, OperationKind, RateLimits, SessionId};
use portcullis_service::{Done, SendCall, ServiceError};
use proptest::prelude::*;
use tokio::task::JoinSet;

use crate::world::{FRIEND, START, World};

const DAY: u64 = 24 * 60 * 60 * 1000;
const SLUGS: [&str; 4] = ["strict", "standard_policy", "high_throughput", "unlimited"];
const FREE: [&str; 2] = ["strict", "standard_policy"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    ToPerson,
    ToGroup,
    Check,
}

#[derive(Debug, Clone)]
enum Step {
    /// One try.
    Try(Ask),
    /// One try, and if it is refused another one a millisecond too early, and one in time.
    Insist(Ask),
    /// So many tries, each as soon as there is room.
    Burst(Ask, u8),
    Pass(u64),
    Policy(usize),
    Plan(bool),
    Crash,
}

fn an_ask() -> impl Strategy<Value = Ask> {
    prop_oneof![3 => Just(Ask::ToPerson), 2 => Just(Ask::ToGroup), 2 => Just(Ask::Check)]
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => an_ask().prop_map(Step::Try),
        4 => an_ask().prop_map(Step::Insist),
        2 => (an_ask(), 1_u8..30).prop_map(|(ask, times)| Step::Burst(ask, times)),
        4 => (0_u64..4_000).prop_map(Step::Pass),
        3 => (1_000_u64..70_000).prop_map(Step::Pass),
        1 => (DAY / 24..DAY + DAY / 4).prop_map(Step::Pass),
        3 => (0..SLUGS.len()).prop_map(Step::Policy),
        1 => any::<bool>().prop_map(Step::Plan),
        1 => Just(Step::Crash),
    ]
}

/// What there is to know: when was what let through, and what may be.
struct Model {
    sends: Vec<u64>,
    group_calls: Vec<u64>,
    checks: Vec<u64>,
    chosen: &'static str,
    has_plan: bool,
}

impl Model {
    fn limits(&self) -> RateLimits {
        let in_force = if self.has_plan || FREE.contains(&self.chosen) { self.chosen } else { "standard_policy" };
        built_in_policy(in_force).unwrap().limits
    }

    /// Whether something would be let through at a time, if nothing else was until then.
    fn has_room(&self, ask: Ask, at: u64) -> bool {
        let limits = self.limits();
        let within = |hits: &[u64], bound: u32, counts: &dyn Fn(u64) -> bool| {
            bound == 0 || hits.iter().filter(|hit| counts(**hit)).count() < bound as usize
        };
        let last_minute = |hit: u64| at < hit + 60_000;
        let same_day = |hit: u64| hit / DAY == at / DAY;
        if ask == Ask::Check {
            return within(&self.checks, limits.check_req_per_minute, &last_minute)
                && within(&self.checks, limits.check_daily_cap, &same_day);
        }
        let gap = u64::from(limits.account_protection_seconds) * 1_000;
        self.sends.iter().all(|hit| hit + gap <= at)
            && within(&self.sends, limits.send_message_per_minute, &last_minute)
            && within(&self.sends, limits.send_message_daily_cap, &same_day)
            && (ask != Ask::ToGroup
                || within(&self.group_calls, limits.group_req_per_minute, &last_minute)
                    && within(&self.group_calls, limits.group_daily_cap, &same_day))
    }

    /// How long after `now` there is room; zero if there is.
    fn wait(&self, ask: Ask, now: u64) -> u64 {
        let gap = u64::from(self.limits().account_protection_seconds) * 1_000;
        let hits = self.sends.iter().chain(&self.group_calls).chain(&self.checks);
        let mut changes: Vec<u64> = hits.flat_map(|hit| [hit + gap, hit + 60_000]).filter(|at| *at > now).collect();
        changes.extend([now, (now / DAY + 1) * DAY]);
        changes.sort_unstable();
        changes.into_iter().find(|at| self.has_room(ask, *at)).unwrap() - now
    }

    fn let_through(&mut self, ask: Ask, now: u64) {
        match ask {
            Ask::ToPerson => self.sends.push(now),
            Ask::ToGroup => {
                self.sends.push(now);
                self.group_calls.push(now);
            }
            Ask::Check => self.checks.push(now),
        }
    }
}

struct Trial {
    world: World,
    session: SessionId,
    model: Model,
}

impl Trial {
    async fn ask(&self, ask: Ask) -> Result<Done, ServiceError> {
        let session = self.session;
        let operation = match ask {
            Ask::ToPerson => Operation::MessageSend(SendText::plain(session, FRIEND, "hello")),
            Ask::ToGroup => Operation::MessageSend(SendText::plain(session, "120363041234567891@g.us", "hello")),
            Ask::Check => Operation::NumberCheck { session, numbers: vec!["49123456789".into()] },
        };
        self.world.execute(operation).await
    }

    /// Tries once, and compares. Answers how long there is no room.
    async fn check(&mut self, ask: Ask) -> u64 {
        let now = self.world.clock.now().as_millis();
        let expected = self.model.wait(ask, now);
        let found = match self.ask(ask).await {
            Ok(_) => 0,
            Err(ServiceError::Limited { retry_after, .. }) => u64::try_from(retry_after.as_millis()).unwrap(),
            Err(error) => panic!("{ask:?}: {error:?}"),
        };
        assert_eq!(found, expected, "{ask:?} under {} at {now}", self.model.chosen);
        if found == 0 {
            self.model.let_through(ask, now);
        }
        found
    }

    fn pass(&self, millis: u64) {
        self.world.clock.advance(Duration::from_millis(millis));
    }

    async fn insist(&mut self, ask: Ask) {
        let wait = self.check(ask).await;
        if wait > 0 {
            self.pass(wait - 1);
            assert_eq!(self.check(ask).await, 1, "a millisecond too early is too early");
            self.pass(1);
            assert_eq!(self.check(ask).await, 0, "there is room when it was promised");
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Try(ask) => drop(self.check(*ask).await),
            Step::Insist(ask) => self.insist(*ask).await,
            Step::Burst(ask, times) => {
                for _ in 0..*times {
                    let wait = self.check(*ask).await;
                    self.pass(wait);
                }
            }
            Step::Pass(millis) => self.pass(*millis),
            Step::Policy(index) => {
                let slug = SLUGS[*index];
                let open = self.model.has_plan || FREE.contains(&slug);
                match self.world.choose_policy(self.session, slug).await {
                    Ok(_) => assert!(open, "{slug} needs a plan"),
                    Err(ServiceError::Subscription { .. }) => assert!(!open, "{slug} is open"),
                    Err(error) => panic!("{error:?}"),
                }
                if open {
                    self.model.chosen = slug;
                }
            }
            Step::Plan(active) => {
                self.world.set_plan(*active).await;
                self.model.has_plan = *active;
            }
            Step::Crash => {
                self.world.crash().await;
                self.world.pass(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn follow(steps: &[Step]) {
    let world = World::new().await;
    let session = world.online().await;
    let model = Model { sends: vec![], group_calls: vec![], checks: vec![], chosen: "standard_policy", has_plan: true };
    let mut trial = Trial { world, session, model };
    for step in steps {
        trial.step(step).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limits_are_what_a_list_of_hits_says(steps in prop::collection::vec(a_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follow(&steps));
    }
}

/// The caps of a day are far away for a trace of a few steps; these get there, and over midnight.
#[tokio::test]
async fn a_days_caps_hold_until_midnight_utc() {
    let day = |ask, times| [Step::Burst(ask, times), Step::Insist(ask), Step::Crash, Step::Insist(ask)];
    let strict = [Step::Policy(0)];
    follow(&[&strict[..], &day(Ask::Check, 120), &day(Ask::ToGroup, 60)].concat()).await;
    follow(&[&strict[..], &[Step::Pass(2 * 60 * 60 * 1000)], &day(Ask::ToGroup, 60)].concat()).await;
}

#[tokio::test]
async fn concurrent_sends_pass_no_policy_and_are_counted_once_each() {
    for slug in SLUGS {
        let mut world = World::new().await;
        let session = world.online().await;
        world.choose_policy(session, slug).await.unwrap();
        let mut sending = JoinSet::new();
        for task in 0..24 {
            let world = world.clone();
            sending.spawn(async move {
                match task % 3 {
                    0 => world.send_once(session, &format!("key {task}")).await.map(drop),
                    1 => {
                        let call = SendCall { queue: false, ..SendCall::default() };
                        world.dispatch(SendText::plain(session, FRIEND, "hello"), call).await.map(drop)
                    }
                    _ => world.send(session).await.map(drop),
                }
            });
        }
        let mut sent = 0;
        while let Some(done) = sending.join_next().await {
            match done.unwrap() {
                Ok(()) => sent += 1,
                Err(ServiceError::Limited { .. }) => {}
                Err(error) => panic!("{slug}: {error:?}"),
            }
        }
        // All others have a gap between two sends.
        assert_eq!(sent, if slug == "unlimited" { 24 } else { 1 }, "{slug}");
        assert_eq!(world.service.sends(world.org, session).unwrap(), (sent, sent), "{slug}");
        world.crash().await;
        assert_eq!(world.service.sends(world.org, session).unwrap(), (sent, sent), "{slug}, after a crash");
    }
}

/// A choice of another policy forgets nothing of what was sent under the one before.
#[tokio::test]
async fn a_stricter_policy_knows_what_was_sent_before() {
    let world = World::new().await;
    let session = world.online().await;
    world.choose_policy(session, "unlimited").await.unwrap();
    for _ in 0..7 {
        world.send(session).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(20));
    world.choose_policy(session, "strict").await.unwrap();
    let refused = world.send(session).await;
    let Err(ServiceError::Limited { retry_after, decision: None, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(retry_after, Duration::from_secs(40));
    let last = world.audit().await.swap_remove(0);
    assert_eq!((last.operation, last.outcome.name()), (OperationKind::MessageSend, "refused"));
    assert!(last.at > START);
}
