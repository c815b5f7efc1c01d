//! Telling again: what was given up, what was missed, tests, other secrets, and how a webhook is shown to fare.

use std::time::Duration;

use portcullis_core::operation::{Redelivery, RedeliveryOf};
use portcullis_core::webhook::{EventFormat, WebhookChange, WebhookSpec};
use portcullis_core::{
    Capabilities, Capability, Clock, DeliveryId, DeliveryState, DisabledBecause, Operation, OperationKind, Principal,
    Secret, SessionId, Timestamp, Webhook, WebhookId,
};
use portcullis_service::{
    DeliveryFilter, DeliveryRows, Outcome, Redelivered, ServiceError, WebhookHealth, WebhookState,
};

use crate::delivering::{spec, unchanged};
use crate::receiver::Receiver;
use crate::world::{START, World};

const MINUTE: Duration = Duration::from_secs(60);

impl World {
    async fn tell_again(&self, webhook: WebhookId, of: RedeliveryOf) -> Result<Redelivered, ServiceError> {
        match self.execute(Operation::WebhookReplay { webhook, within: None, of }).await?.outcome {
            Outcome::Replayed(again) => Ok(again),
            other => panic!("nothing was replayed: {other:?}"),
        }
    }

    async fn replayed_since(&self, webhook: WebhookId, since: Timestamp, which: Redelivery) -> usize {
        let of = RedeliveryOf::Range { since, until: None, which, after: None };
        let again = self.tell_again(webhook, of).await.unwrap();
        assert_eq!(again.next, None);
        again.count
    }

    async fn told_so_far(&self, webhook: WebhookId, filter: DeliveryFilter) -> DeliveryRows {
        let permit = self.permit(OperationKind::WebhookRead, self.owner.session_scope).await;
        self.service.deliveries(&permit, webhook, filter, None, 100).unwrap()
    }

    async fn health(&self, webhook: WebhookId) -> WebhookHealth {
        let permit = self.permit(OperationKind::WebhookRead, None).await;
        self.service.webhook_health(&permit, webhook).unwrap()
    }

    /// Waits until the webhook fares like this.
    async fn fares(&self, webhook: WebhookId, state: WebhookState, waiting: usize, dead: usize) -> WebhookHealth {
        let mut health = self.health(webhook).await;
        for _ in 0..100_000 {
            if (health.state, health.waiting, health.dead) == (state, waiting, dead) {
                return health;
            }
            tokio::task::yield_now().await;
            health = self.health(webhook).await;
        }
        panic!("it fares otherwise: {health:?}");
    }

    async fn set_active(&self, webhook: WebhookId, active: bool) {
        let change = WebhookChange { active: Some(active), ..unchanged() };
        self.execute(Operation::WebhookUpdate { webhook, within: None, change }).await.unwrap();
    }

    async fn rotated(&self, webhook: WebhookId, secret: Option<&str>, overlap: u32) -> Result<Webhook, ServiceError> {
        let secret = secret.map(Secret::new);
        let operation = Operation::WebhookRotate { webhook, within: None, secret, overlap_seconds: overlap };
        match self.execute(operation).await?.outcome {
            Outcome::Webhooks(webhooks) => Ok(webhooks.into_iter().next().unwrap()),
            other => panic!("not about webhooks: {other:?}"),
        }
    }

    async fn listen_with(&self, spec: WebhookSpec) -> Webhook {
        let operation = Operation::WebhookCreate { session: None, webhook: spec };
        match self.execute(operation).await.unwrap().outcome {
            Outcome::Webhooks(webhooks) => webhooks.into_iter().next().unwrap(),
            other => panic!("not about webhooks: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_given_up_is_told_when_somebody_asks_for_it() {
    let world = World::delivering().await;
    let session = world.create().await;
    let mut answers = [500, 500, 500, 500, 500, 500].into_iter();
    let mut receiver = Receiver::answering(move |_| (answers.next().unwrap_or(200), "")).await;
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    world.deliver();
    world.label(session, &[("value", "a")]).await;
    let first = receiver.next().await;
    for _ in 0..5 {
        world.pass_until_told(&mut receiver, MINUTE).await.unwrap();
    }
    world.fares(webhook.id, WebhookState::Failing, 0, 1).await;
    let dead = world.told_so_far(webhook.id, DeliveryFilter::Dead).await.rows.remove(0);
    assert_eq!((dead.name, dead.delivery.record.attempts.len()), (Some("session.labels"), 6));
    assert_eq!((dead.message.to_string(), dead.delivery.id), (first.id(), dead.message));

    let again = world.tell_again(webhook.id, RedeliveryOf::One(dead.id)).await.unwrap();
    assert_eq!(again, Redelivered { count: 1, next: None });
    assert_eq!(receiver.next().await.id(), first.id(), "doubles are known by their ids");
    world.fares(webhook.id, WebhookState::Ok, 0, 0).await;
    let rows = world.told_so_far(webhook.id, DeliveryFilter::All).await.rows;
    assert_eq!((rows.len(), rows[0].id, rows[0].delivery.state), (1, dead.id, DeliveryState::Delivered));
    assert_eq!(rows[0].delivery.record.attempts.len(), 7, "earlier attempts are kept");

    // What was taken is told again all the same.
    world.tell_again(webhook.id, RedeliveryOf::One(dead.id)).await.unwrap();
    assert_eq!(receiver.next().await.id(), first.id());
    let unknown = world.tell_again(webhook.id, RedeliveryOf::One(DeliveryId::from_bytes([0; 16]))).await;
    assert!(matches!(unknown, Err(ServiceError::NotFound("delivery"))), "{unknown:?}");
    let other = world.other_org().await;
    let theirs = other.tell_again(webhook.id, RedeliveryOf::One(dead.id)).await;
    assert!(matches!(theirs, Err(ServiceError::NotFound("webhook"))), "{theirs:?}");
    let kinds: Vec<_> = world.audit().await.into_iter().map(|entry| (entry.operation, entry.subject)).collect();
    assert!(kinds.contains(&(OperationKind::WebhookReplay, Some(webhook.id.to_string()))), "{kinds:?}");
    world.store.verify().map(|report| assert_eq!(report.findings, Vec::<String>::new())).unwrap();
}

#[tokio::test]
async fn what_was_missed_while_nobody_listened_is_told_once_it_is_asked_for() {
    let world = World::delivering().await;
    let (session, mut receiver) = (world.create().await, Receiver::new().await);
    let webhook = world.listen(None, &receiver, &["session.labels", "session.deleted"]).await;
    world.deliver();
    world.label(session, &[("value", "a")]).await;
    receiver.next().await;
    world.set_active(webhook.id, false).await;
    assert_eq!(world.health(webhook.id).await.state, WebhookState::Inactive);
    world.clock.advance(MINUTE);
    let missed = world.clock.now();
    world.label(session, &[("value", "b")]).await;
    world.label(session, &[("value", "c")]).await;
    let gone = world.create().await;
    world.execute(Operation::SessionDelete { session: gone }).await.unwrap();
    world.settle().await;
    world.clock.advance(MINUTE);
    world.set_active(webhook.id, true).await;
    let later = world.clock.now();
    world.label(session, &[("value", "d")]).await;
    assert_eq!(receiver.next().await.event(), ("session.labels".into(), 5));

    assert_eq!(world.replayed_since(webhook.id, missed, Redelivery::Dead).await, 0);
    assert_eq!(world.replayed_since(webhook.id, missed, Redelivery::Missing).await, 3);
    let mut told: Vec<_> = receiver.take(3).await.iter().map(|told| told.event().0).collect();
    told.sort();
    assert_eq!(told, ["session.deleted", "session.labels", "session.labels"]);
    world.fares(webhook.id, WebhookState::Ok, 0, 0).await;
    assert_eq!(world.replayed_since(webhook.id, START, Redelivery::Missing).await, 0, "now nothing is missing");
    assert_eq!(world.replayed_since(webhook.id, START, Redelivery::All).await, 5);
    receiver.take(5).await;
    let of = RedeliveryOf::Range { since: START, until: Some(missed), which: Redelivery::All, after: None };
    assert_eq!(world.tell_again(webhook.id, of).await.unwrap().count, 1, "a range ends where it ends");
    assert_eq!(receiver.next().await.event().1, 2);
    assert!(later > missed && receiver.is_quiet());
    world.store.verify().map(|report| assert_eq!(report.findings, Vec::<String>::new())).unwrap();
}

#[tokio::test]
async fn a_long_range_is_taken_up_in_parts() {
    let world = World::delivering().await;
    let (session, receiver) = (world.create().await, Receiver::new().await);
    let webhook = world.listen(None, &receiver, &["session.labels"]).await;
    world.set_active(webhook.id, false).await;
    for label in 0..1_203 {
        world.label(session, &[("value", &format!("label-{label}"))]).await;
    }
    let range = |after| RedeliveryOf::Range { since: START, until: None, which: Redelivery::Missing, after };
    let first = world.tell_again(webhook.id, range(None)).await.unwrap();
    assert!(first.count == 1_000 && first.next.is_some(), "{first:?}");
    let second = world.tell_again(webhook.id, range(first.next)).await.unwrap();
    assert_eq!(second, Redelivered { count: 203, next: None });
    assert_eq!(world.health(webhook.id).await.waiting, 1_000, "it is counted so far and no farther");
}

#[tokio::test]
async fn a_test_is_told_to_one_webhook_whatever_it_wants_to_hear_of() {
    let world = World::delivering().await;
    let (mut receiver, mut other) = (Receiver::new().await, Receiver::new().await);
    let session = world.create().await;
    let webhook = world.listen(Some(session), &receiver, &["message"]).await;
    world.listen(None, &other, &["*"]).await;
    world.deliver();
    let test = Operation::WebhookTest { webhook: webhook.id, within: None };
    let Outcome::Tested(event) = world.execute(test.clone()).await.unwrap().outcome else { panic!("no test") };
    let told = receiver.next().await;
    assert_eq!((told.event().0.as_str(), told.id()), ("webhook.test", event.to_string()));
    assert_eq!(told.body["payload"]["webhook"], webhook.id.to_string());
    world.fares(webhook.id, WebhookState::Ok, 0, 0).await;
    let rows = world.told_so_far(webhook.id, DeliveryFilter::All).await.rows;
    let found = world.service.test_delivery(world.org, webhook.id, event).unwrap();
    assert_eq!((rows.len(), Some(rows[0].id), rows[0].name), (1, found, Some("webhook.test")));
    world.label(session, &[("value", "a")]).await;
    assert_eq!(other.next().await.event().0, "session.labels", "nobody else heard of it");
    world.set_active(webhook.id, false).await;
    assert!(matches!(world.execute(test).await, Err(ServiceError::WebhookOff)));
}

#[tokio::test]
async fn a_secret_that_was_replaced_signs_for_a_while() {
    let world = World::delivering().await;
    let mut receiver = Receiver::new().await;
    let standard = WebhookSpec {
        format: EventFormat::Standard,
        retry: portcullis_core::RetryPolicy::default(),
        ..spec(&receiver, &["session.created"])
    };
    let webhook = world.listen_with(standard).await;
    world.deliver();
    let signatures = |told: &crate::receiver::Told| told.headers["webhook-signature"].split(' ').count();
    world.create().await;
    assert_eq!(signatures(&receiver.next().await), 1);
    let rotated = world.rotated(webhook.id, None, 3_600).await.unwrap();
    let (old, new) = (webhook.spec.secret.unwrap(), rotated.spec.secret.clone().unwrap());
    assert!(old != new && new.reveal().starts_with("whsec_"));
    world.create().await;
    let told = receiver.next().await;
    assert_eq!(signatures(&told), 2);
    world.clock.advance(Duration::from_secs(3_600));
    world.create().await;
    assert_eq!(signatures(&receiver.next().await), 1);

    // The second test vector of RFC 8032: a private key is followed by another one.
    let pair = "whsk_TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";
    assert_eq!(world.rotated(webhook.id, Some(pair), 0).await.unwrap().retired, None);
    let next = world.rotated(webhook.id, None, 60).await.unwrap();
    assert!(next.spec.secret.unwrap().reveal().starts_with("whsk_"));
    assert!(matches!(
        world.rotated(webhook.id, Some("hunter2"), 0).await,
        Err(ServiceError::Invalid { field: "secret", .. })
    ));
    assert!(matches!(
        world.rotated(webhook.id, None, 604_801).await,
        Err(ServiceError::Invalid { field: "overlapSeconds", .. })
    ));
    let unsigned = world.listen(None, &receiver, &["*"]).await;
    assert!(matches!(world.rotated(unsigned.id, None, 0).await, Err(ServiceError::Invalid { field: "secret", .. })));
    let change = WebhookChange { secret: Some(Some(Secret::new("hush"))), ..unchanged() };
    world.execute(Operation::WebhookUpdate { webhook: unsigned.id, within: None, change }).await.unwrap();
    let text = world.rotated(unsigned.id, None, 60).await.unwrap();
    assert_eq!((text.spec.secret.unwrap().reveal().len(), text.retired), (64, None), "its receivers know one only");
}

#[tokio::test]
async fn a_webhook_that_is_set_again_is_told_again_and_at_its_new_address() {
    let world = World::delivering().await;
    let session = world.create().await;
    let (mut gone, mut receiver) = (Receiver::answering(|_| (410, "")).await, Receiver::new().await);
    let evolution = |receiver: &Receiver| WebhookSpec {
        format: EventFormat::Evolution,
        ..spec(receiver, &["LOGOUT_INSTANCE", "STATUS_INSTANCE", "CONNECTION_UPDATE"])
    };
    let set = async |spec: WebhookSpec| {
        let format = EventFormat::Evolution;
        let replace = Operation::WebhookReplace { session, format, webhooks: vec![spec] };
        match world.execute(replace).await.unwrap().outcome {
            Outcome::Webhooks(webhooks) => webhooks.into_iter().next().unwrap(),
            other => panic!("not about webhooks: {other:?}"),
        }
    };
    let first = set(evolution(&gone)).await;
    world.deliver();
    let start = Operation::SessionStart { session, when_unpaired: portcullis_core::operation::WhenUnpaired::Pair };
    world.execute(start).await.unwrap();
    gone.next().await;
    let kept = || world.store.snapshot().unwrap().webhook(world.org, first.id).unwrap().unwrap();
    while kept().disabled.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(kept().disabled.map(|disabled| disabled.why), Some(DisabledBecause::Gone));
    assert_eq!(world.health(first.id).await.state, WebhookState::Disabled);

    let again = set(evolution(&gone)).await;
    assert_eq!((again.id, again.disabled), (first.id, None), "who sets the same again has mended it");
    let moved = set(evolution(&receiver)).await;
    assert_eq!((moved.id, moved.spec.url.clone()), (first.id, receiver.url()), "there is only one");
    let waits = world.replayed_since(first.id, START, Redelivery::All).await;
    assert!(waits > 0);
    receiver.take(waits).await;
}

#[tokio::test]
async fn who_may_see_one_session_sees_its_webhooks_and_no_others() {
    let world = World::delivering().await;
    let receiver = Receiver::new().await;
    let (own, other) = (world.create().await, world.create().await);
    let mine = world.listen(Some(own), &receiver, &["session.labels"]).await;
    let theirs = world.listen(Some(other), &receiver, &["*"]).await;
    let of_all = world.listen(None, &receiver, &["*"]).await;
    let capabilities: Capabilities = [Capability::Manage].into_iter().collect();
    let scoped = world.seen_by(Principal { session_scope: Some(own), capabilities, ..world.owner.clone() });
    let permit = scoped.permit(OperationKind::WebhookRead, Some(own)).await;
    let seen: Vec<_> = scoped.service.webhooks(&permit).unwrap().iter().map(|webhook| webhook.id).collect();
    assert_eq!(seen, [mine.id]);
    assert_eq!(scoped.service.webhook(&permit, mine.id).unwrap(), mine);
    scoped.told_so_far(mine.id, DeliveryFilter::All).await;
    let within = Some(own);
    for hidden in [theirs.id, of_all.id] {
        assert!(matches!(scoped.service.webhook(&permit, hidden), Err(ServiceError::NotFound("webhook"))));
        let listed = scoped.service.deliveries(&permit, hidden, DeliveryFilter::All, None, 9);
        assert!(matches!(listed, Err(ServiceError::NotFound("webhook"))));
        for operation in [
            Operation::WebhookUpdate { webhook: hidden, within, change: unchanged() },
            Operation::WebhookDelete { webhook: hidden, within },
            Operation::WebhookTest { webhook: hidden, within },
            Operation::WebhookRotate { webhook: hidden, within, secret: None, overlap_seconds: 0 },
        ] {
            let answer = scoped.execute(operation).await;
            assert!(matches!(answer, Err(ServiceError::NotFound("webhook"))), "{answer:?}");
        }
    }
    let to = |session: Option<SessionId>| Operation::WebhookUpdate {
        webhook: mine.id,
        within,
        change: WebhookChange { session, ..unchanged() },
    };
    let moved = scoped.execute(to(Some(other))).await;
    assert!(matches!(moved, Err(ServiceError::NotFound("session"))), "{moved:?}");
    scoped.execute(to(None)).await.unwrap();
    assert_eq!(scoped.service.webhook(&permit, mine.id).unwrap().session, Some(own), "it never hears of all");
    scoped.execute(Operation::WebhookDelete { webhook: mine.id, within }).await.unwrap();
}

#[tokio::test]
async fn what_leads_inside_is_refused_when_it_is_configured() {
    let world = World::delivering().await;
    let receiver = Receiver::new().await;
    let inside = |spec: WebhookSpec| WebhookSpec { url: "http://10.0.0.1/hook".to_owned(), ..spec };
    let refused = |answer: Result<_, ServiceError>| match answer {
        Err(ServiceError::Invalid { field, message }) => {
            assert!(message.contains("the address is not public"), "{message}");
            field
        }
        other => panic!("it is not refused: {:?}", other.map(|_: portcullis_service::Done| ())),
    };
    let webhook = inside(spec(&receiver, &["*"]));
    let create = Operation::WebhookCreate { session: None, webhook: webhook.clone() };
    assert_eq!(refused(world.execute(create).await), "url");
    let webhooks = vec![spec(&receiver, &["*"]), webhook.clone()];
    let made = portcullis_core::operation::CreateSession { webhooks, ..Default::default() };
    assert_eq!(refused(world.execute(Operation::SessionCreate(made)).await), "url");
    let session = world.create().await;
    let format = EventFormat::Wawp;
    let list = vec![spec(&receiver, &["*"]), webhook.clone()].into_iter().map(|spec| WebhookSpec { format, ..spec });
    let replace = Operation::WebhookReplace { session, format, webhooks: list.collect() };
    assert_eq!(refused(world.execute(replace).await), "url");
    let proxy = portcullis_core::Proxy {
        protocol: portcullis_core::session::ProxyProtocol::Http,
        host: "169.254.169.254".to_owned(),
        port: 80,
        username: None,
        password: None,
    };
    assert_eq!(refused(world.execute(Operation::SessionProxy { session, proxy: Some(proxy) }).await), "proxy");

    let known = world.listen(None, &receiver, &["*"]).await;
    let url = Some(webhook.url.clone());
    let change = WebhookChange { url, ..unchanged() };
    assert_eq!(
        refused(world.execute(Operation::WebhookUpdate { webhook: known.id, within: None, change }).await),
        "url"
    );
    // Clients of Evolution turn a webhook off with whatever text.
    let off = WebhookSpec { format: EventFormat::Evolution, active: false, url: String::new(), ..webhook };
    let replace = Operation::WebhookReplace { session, format: EventFormat::Evolution, webhooks: vec![off] };
    world.execute(replace).await.unwrap();
}
