//! Webhooks: as many as the quota has room for, changed by one at a time, and gone with their session.

use std::time::Duration;

use portcullis_core::operation::CreateSession;
use portcullis_core::webhook::{EventFormat, RetryPolicy, WebhookChange, WebhookSpec};
use portcullis_core::{Operation, OperationKind, Secret, SessionId, Webhook, WebhookId};
use portcullis_service::{Outcome, QuotaChange, ServiceError};
use tokio::task::JoinSet;

use crate::world::World;

fn spec(url: &str) -> WebhookSpec {
    WebhookSpec {
        format: EventFormat::Router,
        url: format!("https://{url}.example"),
        events: vec!["*".into()],
        headers: [("x-key".to_owned(), Secret::new("value".to_owned()))].into(),
        secret: None,
        retry: RetryPolicy::default(),
        active: true,
        path_per_event: false,
        inline_media: false,
    }
}

fn specs(urls: &[&str]) -> Vec<WebhookSpec> {
    urls.iter().map(|url| spec(url)).collect()
}

/// A change that only moves a webhook.
fn to(session: Option<SessionId>) -> WebhookChange {
    WebhookChange { session, url: None, events: None, headers: None, secret: None, retry: None, active: None }
}

impl World {
    async fn webhooks_after(&self, operation: Operation) -> Result<Vec<Webhook>, ServiceError> {
        match self.execute(operation).await?.outcome {
            Outcome::Webhooks(webhooks) => Ok(webhooks),
            other => panic!("not about webhooks: {other:?}"),
        }
    }

    async fn hook(&self, session: Option<SessionId>, url: &str) -> Result<Webhook, ServiceError> {
        let made = self.webhooks_after(Operation::WebhookCreate { session, webhook: spec(url) }).await?;
        let [webhook] = made.try_into().unwrap();
        Ok(webhook)
    }

    async fn change_hook(&self, webhook: WebhookId, change: WebhookChange) -> Result<Webhook, ServiceError> {
        let changed = self.webhooks_after(Operation::WebhookUpdate { webhook, within: None, change }).await?;
        let [webhook] = changed.try_into().unwrap();
        Ok(webhook)
    }

    async fn replace(&self, session: SessionId, urls: &[&str]) -> Result<Vec<Webhook>, ServiceError> {
        let (format, webhooks) = (EventFormat::Router, specs(urls));
        self.webhooks_after(Operation::WebhookReplace { session, format, webhooks }).await
    }

    /// The names that the URLs of webhooks were made of, sorted.
    async fn hooks(&self, session: Option<SessionId>) -> Vec<String> {
        let permit = self.permit(OperationKind::WebhookRead, session).await;
        let webhooks = self.service.webhooks(&permit).unwrap();
        let name = |webhook: Webhook| webhook.spec.url.trim_start_matches("https://").replace(".example", "");
        let mut names: Vec<_> = webhooks.into_iter().map(name).collect();
        names.sort();
        names
    }
}

#[track_caller]
fn check_quota<T: std::fmt::Debug>(answer: Result<T, ServiceError>, bound: u32) {
    match answer {
        Err(ServiceError::Quota { of: "webhooks", max }) => assert_eq!(max, bound, "the caller is told the quota"),
        other => panic!("not over the quota: {other:?}"),
    }
}

#[tokio::test]
async fn a_webhook_is_made_changed_and_removed() {
    let mut world = World::new().await;
    let session = world.create().await;
    let made = world.hook(Some(session), "a").await.unwrap();
    assert_eq!((made.generation, made.session, &made.spec), (1, Some(session), &spec("a")));
    world.clock.advance(Duration::from_secs(1));
    let change =
        WebhookChange { active: Some(false), secret: Some(Some(Secret::new("s".to_owned()))), ..to(Some(session)) };
    let changed = world.change_hook(made.id, change).await.unwrap();
    assert_eq!((changed.generation, changed.spec.active, &changed.spec.url), (2, false, &made.spec.url));
    assert!(changed.updated_at > made.updated_at && changed.created_at == made.created_at);
    world.crash().await;
    let permit = world.permit(OperationKind::WebhookRead, None).await;
    assert_eq!(world.service.webhook(&permit, made.id).unwrap(), changed);
    world.execute(Operation::WebhookDelete { webhook: made.id, within: None }).await.unwrap();
    assert!(matches!(world.service.webhook(&permit, made.id), Err(ServiceError::NotFound("webhook"))));
    for gone in [
        Operation::WebhookDelete { webhook: made.id, within: None },
        Operation::WebhookUpdate { webhook: made.id, within: None, change: to(None) },
    ] {
        assert!(matches!(world.execute(gone).await, Err(ServiceError::NotFound("webhook"))));
    }
    let kinds: Vec<_> = world.audit().await.into_iter().map(|entry| entry.operation).collect();
    assert!(kinds.contains(&OperationKind::WebhookCreate) && kinds.contains(&OperationKind::WebhookDelete));
}

#[tokio::test]
async fn another_organisation_finds_no_webhook_and_no_session_to_move_it_to() {
    let world = World::new().await;
    let ours = world.hook(None, "ours").await.unwrap();
    let other = world.other_org().await;
    let theirs = other.create().await;
    assert_eq!(other.hooks(None).await, Vec::<String>::new());
    let taken = other.execute(Operation::WebhookDelete { webhook: ours.id, within: None }).await;
    assert!(matches!(taken, Err(ServiceError::NotFound("webhook"))), "{taken:?}");
    let moved = world.change_hook(ours.id, to(Some(theirs))).await;
    assert!(matches!(moved, Err(ServiceError::NotFound("session"))), "{moved:?}");
    let made = world.hook(Some(theirs), "spy").await;
    assert!(matches!(made, Err(ServiceError::NotFound("session"))), "{made:?}");
}

#[tokio::test]
async fn a_replacement_keeps_what_has_the_same_url() {
    let world = World::new().await;
    let session = world.create().await;
    world.hook(None, "of-all").await.unwrap();
    let foreign = WebhookSpec { format: EventFormat::Wawp, ..spec("foreign") };
    world.execute(Operation::WebhookCreate { session: Some(session), webhook: foreign }).await.unwrap();
    let first = world.replace(session, &["a", "b"]).await.unwrap();
    let second = world.replace(session, &["b", "c"]).await.unwrap();
    assert_eq!(second[0], first[1], "what stays as it is has not changed");
    assert_eq!(world.hooks(Some(session)).await, ["b", "c", "foreign"]);
    let (format, changed) = (EventFormat::Router, WebhookSpec { active: false, ..spec("c") });
    let replace = Operation::WebhookReplace { session, format, webhooks: vec![changed] };
    let third = world.webhooks_after(replace).await.unwrap();
    assert_eq!((third[0].id, third[0].generation, third[0].spec.active), (second[1].id, 2, false));
    assert_eq!(world.replace(session, &[]).await.unwrap(), []);
    assert_eq!(world.hooks(None).await, ["foreign", "of-all"]);
}

#[tokio::test]
async fn the_quota_is_exact_however_webhooks_come_to_be() {
    let world = World::new().await;
    world.set_quotas(QuotaChange { webhooks: Some(4), ..QuotaChange::default() }).await;
    let session = world.create().await;
    world.hook(None, "of-all").await.unwrap();
    check_quota(world.replace(session, &["a", "b", "c", "d"]).await, 4);
    check_quota(world.replace(session, &["a", "b", "c", "d", "e", "f"]).await, 4);
    world.replace(session, &["a", "b", "c"]).await.unwrap();
    check_quota(world.hook(Some(session), "d").await, 4);
    // What goes makes room for what comes.
    world.replace(session, &["c", "d", "e"]).await.unwrap();
    world.replace(session, &["f"]).await.unwrap();
    let create = |urls: &[&str]| CreateSession { webhooks: specs(urls), ..CreateSession::default() };
    check_quota(world.execute(Operation::SessionCreate(create(&["x", "y", "z"]))).await, 4);
    world.execute(Operation::SessionCreate(create(&["x", "y"]))).await.unwrap();
    assert_eq!(world.hooks(None).await, ["f", "of-all", "x", "y"]);
}

#[tokio::test]
async fn a_quota_without_end_has_none_and_one_of_zero_lets_nothing_through() {
    let world = World::new().await;
    world.set_quotas(QuotaChange { webhooks: Some(u32::MAX), ..QuotaChange::default() }).await;
    world.hook(None, "a").await.unwrap();
    world.set_quotas(QuotaChange { webhooks: Some(0), ..QuotaChange::default() }).await;
    check_quota(world.hook(None, "b").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_is_exact_under_concurrency() {
    let world = World::new().await;
    world.set_quotas(QuotaChange { webhooks: Some(5), ..QuotaChange::default() }).await;
    let mut making = JoinSet::new();
    for number in 0..20 {
        let world = world.clone();
        making.spawn(async move { world.hook(None, &format!("hook-{number}")).await });
    }
    let made = making.join_all().await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 5);
    made.into_iter().filter(Result::is_err).for_each(|refused| check_quota(refused, 5));
}

/// The story: two replaced a session's webhooks at the same time, and afterwards it had those of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replacements_at_once_one_is_the_last() {
    let world = World::new().await;
    for _ in 0..20 {
        let session = world.create().await;
        let mut replacing = JoinSet::new();
        for urls in [["a", "b"], ["c", "d"]] {
            let world = world.clone();
            replacing.spawn(async move { world.replace(session, &urls).await });
        }
        for replaced in replacing.join_all().await {
            replaced.unwrap();
        }
        let hooks = world.hooks(Some(session)).await;
        assert!(hooks == ["a", "b"] || hooks == ["c", "d"], "{hooks:?}");
        world.replace(session, &[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_that_was_answered_is_one_generation() {
    let world = World::new().await;
    let webhook = world.hook(None, "a").await.unwrap();
    let mut changing = JoinSet::new();
    for number in 0..16 {
        let world = world.clone();
        let change = WebhookChange { url: Some(format!("https://{number}.example")), ..to(None) };
        changing.spawn(async move { world.change_hook(webhook.id, change).await });
    }
    let mut generations = Vec::new();
    for changed in changing.join_all().await {
        match changed {
            Ok(changed) => generations.push(changed.generation),
            Err(ServiceError::Contention) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    generations.sort_unstable();
    let expected: Vec<_> = (2..).take(generations.len()).collect();
    assert_eq!(generations, expected);
}

#[tokio::test]
async fn a_webhook_goes_with_the_session_that_it_is_at_by_then() {
    let world = World::new().await;
    world.set_quotas(QuotaChange { webhooks: Some(3), ..QuotaChange::default() }).await;
    let (a, b) = (world.create().await, world.create().await);
    let moving = world.hook(Some(a), "moving").await.unwrap();
    world.hook(Some(a), "staying").await.unwrap();
    world.hook(None, "of-all").await.unwrap();
    let moved = world.change_hook(moving.id, to(Some(b))).await.unwrap();
    assert_eq!((moved.session, moved.generation, &moved.spec), (Some(b), 2, &moving.spec));
    assert_eq!(
        (world.hooks(Some(a)).await, world.hooks(Some(b)).await),
        (vec!["staying".into()], vec!["moving".into()])
    );
    world.execute(Operation::SessionDelete { session: a }).await.unwrap();
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.hooks(None).await, ["moving", "of-all"]);
    world.execute(Operation::SessionDelete { session: b }).await.unwrap();
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.hooks(None).await, ["of-all"]);
    // Their places are free again.
    world.hook(None, "next").await.unwrap();
    world.hook(None, "last").await.unwrap();
    check_quota(world.hook(None, "more").await, 3);
}
