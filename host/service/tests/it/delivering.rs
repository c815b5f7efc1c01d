//! Deliveries: everything that receivers want to hear of reaches them, in order, whatever they answer meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::delivery::AttemptOutcome;
use portcullis_core::operation::CreateSession;
use portcullis_core::webhook::{EventFormat, RetryGrowth, RetryPolicy, WebhookChange, WebhookSpec};
use portcullis_core::{
    Clock, Delivery, DeliveryKey, DeliveryState, DisabledBecause, Line, Operation, OutboxPlace, SessionId, Webhook,
};
use portcullis_service::Outcome;
use portcullis_store::DeliveryFilter;

use crate::receiver::{Receiver, Told};
use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn spec(receiver: &Receiver, events: &[&str]) -> WebhookSpec {
    WebhookSpec {
        format: EventFormat::Router,
        url: receiver.url(),
        events: events.iter().map(|name| (*name).to_owned()).collect(),
        headers: BTreeMap::new(),
        secret: None,
        retry: RetryPolicy { growth: RetryGrowth::Constant, delay_seconds: 4, attempts: 6 },
        active: true,
        path_per_event: false,
        inline_media: false,
    }
}

impl World {
    pub(crate) async fn listen(&self, session: Option<SessionId>, receiver: &Receiver, events: &[&str]) -> Webhook {
        let operation = Operation::WebhookCreate { session, webhook: spec(receiver, events) };
        match self.execute(operation).await.unwrap().outcome {
            Outcome::Webhooks(webhooks) => webhooks.into_iter().next().unwrap(),
            other => panic!("not about webhooks: {other:?}"),
        }
    }

    pub(crate) fn deliver(&self) {
        tokio::spawn(Arc::clone(&self.service).run_deliveries());
    }

    /// What is remembered of a webhook's deliveries, oldest first, once it is so many.
    pub(crate) async fn remembered(
        &self,
        webhook: &Webhook,
        filter: DeliveryFilter,
        count: usize,
    ) -> Vec<(DeliveryKey, Delivery)> {
        let line = Line::Webhook(webhook.id);
        for _ in 0..1_000_000 {
            let snapshot = self.store.snapshot().unwrap();
            let mut found = snapshot.deliveries(self.org, line, filter, None, 10_000).unwrap();
            if found.len() == count {
                found.reverse();
                return found;
            }
            tokio::task::yield_now().await;
        }
        panic!("it never comes to {count} {filter:?}");
    }

    /// Lets time pass until the receiver is told something more.
    pub(crate) async fn pass_until_told(&self, receiver: &mut Receiver, at_most: Duration) -> Option<Told> {
        let end = self.clock.now().after(at_most);
        while receiver.is_quiet() && self.clock.now() < end {
            self.clock.advance(Duration::from_millis(500));
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
        }
        if receiver.is_quiet() { None } else { Some(receiver.next().await) }
    }
}

/// The ordinals of one session's events, in the order in which they were told.
fn ordinals(told: &[Told], session: SessionId) -> Vec<u64> {
    let about = session.to_string();
    told.iter().filter(|told| told.body["session"] == about.as_str()).map(|told| told.event().1).collect()
}

#[tokio::test]
async fn everything_is_told_in_the_order_of_its_session_and_remembered() {
    let world = World::delivering().await;
    let mut receiver = Receiver::new().await;
    let webhook = world.listen(None, &receiver, &["*"]).await;
    world.deliver();
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(world.create().await);
    }
    for round in 0..20 {
        for session in &sessions {
            world.label(*session, &[("value", &format!("round-{round}"))]).await;
        }
    }
    let told = receiver.take(5 + 5 * 20).await;
    for session in &sessions {
        assert_eq!(ordinals(&told, *session), (1..=21).collect::<Vec<_>>());
    }
    let remembered = world.remembered(&webhook, DeliveryFilter::All, 105).await;
    assert!(remembered.iter().all(|(_, delivery)| delivery.state == DeliveryState::Delivered));
    let attempt = &remembered[0].1.record.attempts[0];
    assert_eq!(attempt.outcome, AttemptOutcome::Answered { status: 200, body: "heard!".into() });
    let mut ids: Vec<_> = told.iter().map(Told::id).collect();
    let remembered_ids: Vec<_> = remembered.iter().map(|(_, delivery)| delivery.id.to_string()).collect();
    ids.sort_unstable();
    assert_eq!(ids, remembered_ids, "the receiver knows an event by the id under which it is remembered");
    world.store.verify().map(|report| assert_eq!(report.findings, Vec::<String>::new())).unwrap();
}

/// One event that a receiver never takes once held up everything behind it for hours.
#[tokio::test]
async fn an_event_that_is_not_taken_holds_up_its_session_for_seconds_and_then_goes_on_by_itself() {
    let world = World::delivering().await;
    let (stuck, other) = (world.create().await, world.create().await);
    let about = stuck.to_string();
    let mut failures = 0;
    let mut receiver = Receiver::answering(move |told| {
        let is_first = told.body["session"] == about.as_str() && told.event().1 == 2;
        if is_first && failures < 4 {
            failures += 1;
            return (500, "");
        }
        (200, "")
    })
    .await;
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    world.label(stuck, &[("value", "a")]).await;
    world.label(stuck, &[("value", "b")]).await;
    world.label(other, &[("value", "c")]).await;
    world.deliver();
    let mut first = receiver.take(2).await;
    first.sort_by_key(Told::id);
    assert_eq!((ordinals(&first, stuck), ordinals(&first, other)), (vec![2], vec![2]), "its own session waits for it");

    let again = world.pass_until_told(&mut receiver, MINUTE).await.unwrap();
    assert_eq!(
        (ordinals(std::slice::from_ref(&again), stuck), again.id()),
        (vec![2], first[0].id()),
        "it is the same event"
    );
    assert!(world.clock.now().since(crate::world::START) < Duration::from_secs(10));
    // The second wait would be longer than others may be held up.
    let more = [world.pass_until_told(&mut receiver, MINUTE).await.unwrap(), receiver.next().await];
    let mut more = ordinals(&more, stuck);
    more.sort_unstable();
    assert_eq!(more, [2, 3], "those behind it go on when it is tried for the third time and put aside");
    while world.remembered(&webhook, DeliveryFilter::Waiting, 1).await[0].1.record.attempts.len() < 3 {
        tokio::task::yield_now().await;
    }
    let last = [
        world.pass_until_told(&mut receiver, MINUTE).await.unwrap(),
        world.pass_until_told(&mut receiver, MINUTE).await.unwrap(),
    ];
    assert_eq!(ordinals(&last, stuck), [2, 2]);
    let all = world.remembered(&webhook, DeliveryFilter::Waiting, 0).await;
    assert!(all.is_empty());
    assert_eq!(world.remembered(&webhook, DeliveryFilter::All, 3).await[0].1.record.attempts.len(), 5);
    assert!(world.pass_until_told(&mut receiver, MINUTE * 10).await.is_none(), "what was taken is not told again");
}

#[tokio::test]
async fn what_is_never_taken_is_given_up_and_kept() {
    let world = World::delivering().await;
    let session = world.create().await;
    let mut receiver = Receiver::answering(|_| (404, "")).await;
    let webhook = world.listen(Some(session), &receiver, &["session.labels"]).await;
    world.deliver();
    world.label(session, &[("value", "a")]).await;
    for _ in 0..6 {
        world.pass_until_told(&mut receiver, MINUTE).await.unwrap();
    }
    let dead = world.remembered(&webhook, DeliveryFilter::Dead, 1).await;
    assert_eq!(dead[0].1.record.attempts.len(), 6);
    assert!(world.pass_until_told(&mut receiver, MINUTE * 10).await.is_none());
}

#[tokio::test]
async fn a_restart_loses_nothing() {
    let mut world = World::delivering().await;
    let session = world.create().await;
    let mut receiver = Receiver::answering(|_| (503, "")).await;
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    let driver = tokio::spawn(Arc::clone(&world.service).run_deliveries());
    for label in ["a", "b", "c"] {
        world.label(session, &[("value", label)]).await;
    }
    let failed = receiver.next().await;
    driver.abort();
    world.crash().await;
    let mut receiver = Receiver::new().await;
    let change = WebhookChange { url: Some(receiver.url()), ..unchanged() };
    world.execute(Operation::WebhookUpdate { webhook: webhook.id, within: None, change }).await.unwrap();
    world.deliver();
    let mut told = Vec::new();
    while told.len() < 3 {
        told.extend(world.pass_until_told(&mut receiver, MINUTE).await);
    }
    assert_eq!(ordinals(&told, session), [2, 3, 4], "a session waits for its event across a restart, too");
    assert!(told.iter().any(|told| told.id() == failed.id()), "what was tried before has kept its id");
}

#[tokio::test]
async fn the_news_of_an_end_stands_before_everything_and_needs_nothing_that_goes() {
    let world = World::delivering().await;
    let session = world.create().await;
    let about = session.to_string();
    let mut of_session =
        Receiver::answering(|told| if told.event().0 == "session.deleted" { (200, "") } else { (500, "") }).await;
    let mut refused = 0;
    let mut of_all = Receiver::answering(move |_| {
        refused += 1;
        if refused <= 2 { (500, "") } else { (200, "") }
    })
    .await;
    let own = world.listen(Some(session), &of_session, &["*"]).await;
    let all = world.listen(None, &of_all, &["session.deleted"]).await;
    for label in 0..50 {
        world.label(session, &[("value", &format!("label-{label}"))]).await;
    }
    world.deliver();
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    while of_session.next().await.event().0 != "session.deleted" {}
    let first = of_all.next().await;
    assert_eq!(first.body["session"], about.as_str());
    // It is erased when everybody was tried, and told to the others then.
    for _ in 0..100_000 {
        if world.store.snapshot().unwrap().session(world.org, session).unwrap().is_none() {
            break;
        }
        world.service.tick().await;
        tokio::task::yield_now().await;
    }
    assert!(world.store.snapshot().unwrap().webhook(world.org, own.id).unwrap().is_none(), "it went with its session");
    let again = [
        world.pass_until_told(&mut of_all, MINUTE).await.unwrap(),
        world.pass_until_told(&mut of_all, MINUTE).await.unwrap(),
    ];
    assert!(again.iter().all(|told| told.id() == first.id()));
    world.remembered(&all, DeliveryFilter::Waiting, 0).await;
    let told = world.remembered(&all, DeliveryFilter::All, 1).await;
    assert_eq!((told[0].1.state, told[0].1.record.attempts.len()), (DeliveryState::Delivered, 3));
    world.store.verify().map(|report| assert_eq!(report.findings, Vec::<String>::new())).unwrap();
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_told_nothing_more_until_it_is_asked_for_again() {
    let world = World::delivering().await;
    let session = world.create().await;
    let mut gone = Receiver::answering(|_| (410, "")).await;
    let mut other = Receiver::new().await;
    let webhook = world.listen(None, &gone, &["session.labels"]).await;
    world.listen(None, &other, &["webhook.disabled"]).await;
    world.deliver();
    world.label(session, &[("value", "a")]).await;
    gone.next().await;
    let news = other.next().await;
    assert_eq!((news.event().0, news.body["payload"]["reason"].as_str()), ("webhook.disabled".into(), Some("gone")));
    let kept = || world.store.snapshot().unwrap().webhook(world.org, webhook.id).unwrap().unwrap();
    assert_eq!(kept().disabled.map(|disabled| disabled.why), Some(DisabledBecause::Gone));
    world.label(session, &[("value", "b")]).await;
    assert_eq!(world.remembered(&webhook, DeliveryFilter::Dead, 1).await.len(), 1);

    let mut receiver = Receiver::new().await;
    let change = WebhookChange { url: Some(receiver.url()), ..unchanged() };
    world.execute(Operation::WebhookUpdate { webhook: webhook.id, within: None, change }).await.unwrap();
    assert_eq!(kept().disabled, None);
    world.label(session, &[("value", "c")]).await;
    assert_eq!(ordinals(&[receiver.next().await], session), [4], "what happened meanwhile is not told by itself");
    assert!(gone.is_quiet() && receiver.is_quiet());
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_for_five_days_is_told_nothing_more() {
    let world = World::delivering().await;
    let session = world.create().await;
    let mut receiver = Receiver::answering(|_| (500, "")).await;
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    world.deliver();
    let told =
        |world: &World| world.store.snapshot().unwrap().webhook(world.org, webhook.id).unwrap().unwrap().is_told();
    world.label(session, &[("value", "a")]).await;
    world.pass_until_told(&mut receiver, MINUTE).await.unwrap();
    world.clock.advance(Duration::from_secs(5 * 24 * 60 * 60 - 60));
    world.label(session, &[("value", "b")]).await;
    world.pass_until_told(&mut receiver, MINUTE / 2).await.unwrap();
    assert!(told(&world), "it has a minute left");
    world.clock.advance(MINUTE);
    while told(&world) {
        world.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    let disabled = world.store.snapshot().unwrap().webhook(world.org, webhook.id).unwrap().unwrap().disabled;
    assert_eq!(disabled.map(|disabled| disabled.why), Some(DisabledBecause::Failing));
}

#[tokio::test]
async fn a_receiver_that_wants_to_be_left_alone_is() {
    let world = World::delivering().await;
    let session = world.create().await;
    let mut answered = 0;
    let mut receiver = Receiver::answering(move |_| {
        answered += 1;
        if answered == 1 { (429, "retry-after: 90\r\n") } else { (200, "") }
    })
    .await;
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    world.deliver();
    world.label(session, &[("value", "a")]).await;
    receiver.next().await;
    world.remembered(&webhook, DeliveryFilter::Waiting, 1).await;
    let began = world.clock.now();
    world.label(session, &[("value", "b")]).await;
    world.pass_until_told(&mut receiver, MINUTE * 10).await.unwrap();
    let waited = world.clock.now().since(began);
    assert!(waited >= Duration::from_secs(89), "{waited:?}");
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_in_nobody_elses_way() {
    let world = World::delivering().await;
    let other = world.other_org().await;
    // It takes connections, and never answers.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut receiver = Receiver::new().await;
    let mut silent = Receiver::new().await;
    silent.address = hanging.local_addr().unwrap();
    let session = world.create().await;
    for _ in 0..20 {
        world.listen(None, &silent, &["*"]).await;
    }
    other.listen(None, &receiver, &["session.created"]).await;
    world.listen(Some(session), &receiver, &["session.labels"]).await;
    world.deliver();
    for label in 0..50 {
        world.label(session, &[("value", &format!("label-{label}"))]).await;
    }
    for _ in 0..20 {
        other.create().await;
    }
    let told = receiver.take(70).await;
    assert_eq!(ordinals(&told, session), (2..=51).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_webhook_that_is_not_active_is_told_nothing_and_nothing_of_it_later() {
    let world = World::delivering().await;
    let session = world.create().await;
    let mut receiver = Receiver::new().await;
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    world.deliver();
    let set = |active| WebhookChange { active: Some(active), ..unchanged() };
    let set = async |active| {
        world
            .execute(Operation::WebhookUpdate { webhook: webhook.id, within: None, change: set(active) })
            .await
            .unwrap();
    };
    world.label(session, &[("value", "a")]).await;
    assert_eq!(ordinals(&[receiver.next().await], session), [2]);
    set(false).await;
    world.label(session, &[("value", "b")]).await;
    set(true).await;
    world.label(session, &[("value", "c")]).await;
    assert_eq!(ordinals(&[receiver.next().await], session), [4]);
}

#[tokio::test]
async fn a_session_can_be_told_of_from_its_making_on() {
    let world = World::delivering().await;
    let mut receiver = Receiver::new().await;
    world.deliver();
    let webhooks = vec![spec(&receiver, &["*"])];
    let create = CreateSession { webhooks, ..CreateSession::default() };
    world.execute(Operation::SessionCreate(create)).await.unwrap();
    assert_eq!(receiver.next().await.event(), ("session.created".into(), 1));
    let end = world.store.snapshot().unwrap().outbox_end(world.org).unwrap();
    assert_eq!(end, OutboxPlace(1));
}

pub(crate) fn unchanged() -> WebhookChange {
    WebhookChange { session: None, url: None, events: None, headers: None, secret: None, retry: None, active: None }
}
