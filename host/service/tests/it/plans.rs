//! Plans: a rate policy that is not free is chosen with an active plan only, and in force with one only.

use portcullis_core::operation::CreateSession;
use portcullis_core::{Operation, OperationKind, SessionId};
use portcullis_service::{Call, ServiceError};

use crate::guests::choosing;
use crate::world::World;

impl World {
    /// The policy that is in force, and the one that was chosen.
    async fn policies(&self, session: SessionId) -> (&'static str, String) {
        let session = self.session(session).await.unwrap();
        (self.service.rate_policy_of(&session).slug.as_str(), session.rate_policy.clone())
    }

    async fn check_policies(&self, session: SessionId, in_force: &str, chosen: &str) {
        let (found, found_chosen) = self.policies(session).await;
        assert_eq!((found, found_chosen.as_str()), (in_force, chosen));
    }
}

#[tokio::test]
async fn what_is_not_free_needs_an_active_plan() {
    let world = World::new().await;
    let session = world.create().await;
    world.set_plan(false).await;
    assert!(!world.service.has_active_plan(world.org));
    for policy in world.service.rate_policies() {
        let slug = || policy.slug.clone();
        let choose = world.choose_policy(session, &policy.slug).await;
        let create = CreateSession { rate_policy: Some(slug()), ..CreateSession::default() };
        let create = world.execute(Operation::SessionCreate(create)).await;
        let dry_run = Call { dry_run: true, ..Call::default() };
        let permit = world.permit(OperationKind::SessionRatePolicy, Some(session)).await;
        let tried = Operation::SessionRatePolicy { session, slug: slug() };
        let tried = world.service.execute(&permit, tried, dry_run).await;
        for answer in [choose, create, tried] {
            match answer {
                Ok(_) => assert!(policy.free, "{}", policy.slug),
                Err(ServiceError::Subscription { .. }) => assert!(!policy.free, "{}", policy.slug),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    world.set_plan(true).await;
    world.choose_policy(session, "unlimited").await.unwrap();
    world.check_policies(session, "unlimited", "unlimited").await;
    let unknown = world.choose_policy(session, "Unlimited").await;
    assert!(matches!(unknown, Err(ServiceError::Invalid { field: "policy", .. })), "{unknown:?}");
}

#[tokio::test]
async fn a_plan_that_lapses_leaves_the_usual_policy_in_force_and_the_choice_as_it_was() {
    let mut world = World::new().await;
    let session = world.online().await;
    world.choose_policy(session, "unlimited").await.unwrap();
    for _ in 0..3 {
        world.send(session).await.unwrap();
    }
    world.set_plan(false).await;
    world.check_policies(session, "standard_policy", "unlimited").await;
    assert!(matches!(world.send(session).await, Err(ServiceError::Limited { .. })));
    world.crash().await;
    world.check_policies(session, "standard_policy", "unlimited").await;
    world.set_plan(true).await;
    world.check_policies(session, "unlimited", "unlimited").await;
    world.pass(std::time::Duration::from_secs(1)).await;
    world.send(session).await.unwrap();
}

#[tokio::test]
async fn a_lapsed_plan_loosens_nothing() {
    let world = World::new().await;
    let session = world.create().await;
    world.choose_policy(session, "strict").await.unwrap();
    world.set_plan(false).await;
    world.check_policies(session, "strict", "strict").await;
}

#[tokio::test]
async fn a_plugin_chooses_no_policy_that_the_organisation_may_not_use() {
    for (slug, has_plan, chosen) in [
        ("unlimited", false, "standard_policy"),
        ("unlimited", true, "unlimited"),
        ("strict", false, "strict"),
        ("no_such_policy", true, "standard_policy"),
    ] {
        let world = World::new().await;
        let session = world.create().await;
        world.bind(choosing(slug), vec![OperationKind::SessionLabels], "{}").await;
        world.set_plan(has_plan).await;
        world.label(session, &[("what", "ever")]).await;
        world.check_policies(session, chosen, chosen).await;
        let told = world.events().iter().filter(|name| **name == "session.rate-policy").count();
        assert_eq!(told, usize::from(chosen != "standard_policy"), "{slug}, with a plan: {has_plan}");
        assert_eq!(world.session(session).await.unwrap().labels.len(), 1, "the operation itself is done");
    }
}
