//! What opens a single session: its token, and the temporary link to its codes.

use std::time::Duration;

use portcullis_core::operation::{CreateSession, LinkChange};
use portcullis_core::session::TEMP_LINK_LIFETIME;
use portcullis_core::{Clock, Denial, Operation, OperationKind, PrincipalKind, Secret, SessionId, Target};
use portcullis_service::{ServiceError, SimulatorAct};
use tokio::task::JoinSet;

use crate::guests::{allowing, denying};
use crate::world::World;

const MILLISECOND: Duration = Duration::from_millis(1);

impl World {
    async fn create_with_token(&self, token: &str) -> Result<SessionId, ServiceError> {
        let create = CreateSession { token: Some(Secret::new(token.to_owned())), ..CreateSession::default() };
        Ok(self.execute(Operation::SessionCreate(create)).await?.session.unwrap().id)
    }

    /// The session that this token of a session opens.
    fn opens(&self, token: &str) -> Option<SessionId> {
        self.service.authenticate_session_token(token).ok().and_then(|principal| principal.session_scope)
    }

    async fn delete(&self, session: SessionId) {
        self.execute(Operation::SessionDelete { session }).await.unwrap();
        self.pass(Duration::from_secs(1)).await;
        assert_eq!(self.status(session).await, "gone");
    }

    /// A new temporary link.
    async fn link(&self, session: SessionId) -> String {
        let change = LinkChange::Rotate;
        let linked = self.execute(Operation::SessionLink { session, change }).await.unwrap().session.unwrap();
        linked.link.as_ref().unwrap().token.reveal().to_owned()
    }

    /// The session to which this link leads.
    fn leads_to(&self, link: &str) -> Option<SessionId> {
        self.service.follow_link(link).map(|followed| followed.session)
    }
}

#[tokio::test]
async fn a_token_opens_its_session_and_nothing_else() {
    let mut world = World::new().await;
    let session = world.create_with_token("a-token").await.unwrap();
    let beside = world.create().await;
    world.crash().await;
    assert_eq!((world.opens("a-token"), world.opens("A-token"), world.opens("")), (Some(session), None, None));
    let principal = world.service.authenticate_session_token("a-token").unwrap();
    assert_eq!((principal.org, &principal.kind), (world.org, &PrincipalKind::SessionToken));
    let read = |session| Target::session(world.org, session);
    let own = world.service.permit(&principal, OperationKind::SessionRead, read(session), None).await;
    assert!(own.is_ok());
    for (kind, target) in [
        (OperationKind::SessionRead, read(beside)),
        (OperationKind::SessionCreate, Target::org(world.org)),
        (OperationKind::KeyCreate, Target::org(world.org)),
    ] {
        let denied = world.service.permit(&principal, kind, target, None).await;
        assert!(matches!(denied, Err(ServiceError::Denied(_))), "{kind:?}: {denied:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_one_sessions_in_the_whole_gateway() {
    let world = World::new().await;
    let other = world.other_org().await;
    let mut creating = JoinSet::new();
    for number in 0..12 {
        let world = if number % 2 == 0 { world.clone() } else { other.clone() };
        creating.spawn(async move { world.create_with_token("a-token").await });
    }
    let mut made = Vec::new();
    for created in creating.join_all().await {
        match created {
            Ok(session) => made.push(session),
            Err(ServiceError::TokenTaken) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(made.len(), 1);
    assert_eq!(world.opens("a-token"), Some(made[0]));
}

#[tokio::test]
async fn a_token_is_gone_with_its_session_and_free_for_another() {
    let world = World::new().await;
    let first = world.create_with_token("a-token").await.unwrap();
    assert!(matches!(world.other_org().await.create_with_token("a-token").await, Err(ServiceError::TokenTaken)));
    world.delete(first).await;
    assert!(matches!(world.service.authenticate_session_token("a-token"), Err(Denial::Unauthenticated)));
    let second = world.create_with_token("a-token").await.unwrap();
    assert_eq!(world.opens("a-token"), Some(second));
}

#[tokio::test]
async fn a_new_link_is_the_only_one_until_it_is_revoked() {
    let mut world = World::new().await;
    let session = world.create().await;
    let first = world.link(session).await;
    assert_eq!(world.leads_to(&first), Some(session));
    let second = world.link(session).await;
    assert_eq!((world.leads_to(&first), world.leads_to(&second)), (None, Some(session)));
    world.crash().await;
    assert_eq!((world.leads_to(&first), world.leads_to(&second)), (None, Some(session)));
    for _ in 0..2 {
        world.execute(Operation::SessionLink { session, change: LinkChange::Revoke }).await.unwrap();
        assert_eq!(world.leads_to(&second), None);
    }
    let outcomes: Vec<_> = world.audit().await.iter().take(2).map(|entry| entry.outcome.name()).collect();
    assert_eq!(outcomes, ["unchanged", "done"]);
    let last = world.link(session).await;
    world.delete(session).await;
    assert_eq!(world.leads_to(&last), None);
}

#[tokio::test]
async fn a_link_leads_somewhere_for_exactly_half_an_hour() {
    let world = World::new().await;
    let session = world.create().await;
    let link = world.link(session).await;
    assert_eq!(TEMP_LINK_LIFETIME, Duration::from_secs(30 * 60));
    let followed = world.service.follow_link(&link).unwrap();
    assert_eq!(followed.expires_at.since(world.clock.now()), TEMP_LINK_LIFETIME);
    world.clock.advance(TEMP_LINK_LIFETIME - MILLISECOND);
    assert_eq!(world.leads_to(&link), Some(session));
    world.clock.advance(MILLISECOND);
    assert_eq!(world.leads_to(&link), None);
}

#[tokio::test]
async fn a_link_and_a_token_are_not_each_other() {
    let world = World::new().await;
    let session = world.create_with_token("a-token").await.unwrap();
    let link = world.link(session).await;
    assert_eq!((world.leads_to("a-token"), world.opens(&link)), (None, None));
    assert_eq!((world.leads_to(&link), world.opens("a-token")), (Some(session), Some(session)));
}

#[tokio::test]
async fn whoever_links_the_phone_ends_the_link() {
    let world = World::new().await;
    let session = world.create().await;
    let link = world.link(session).await;
    let followed = world.service.follow_link(&link).unwrap();
    world.service.pair_by_link(&followed).await.unwrap();
    world.settle().await;
    let seen = followed.views.borrow().clone().unwrap();
    assert_eq!(seen.status.name(), "pairing");
    assert_eq!(world.leads_to(&link), Some(session), "there may have to be another code");
    world.simulate(session, SimulatorAct::Scan { phone: None }).await;
    assert_eq!(world.leads_to(&link), None);
    assert!(followed.views.borrow().clone().unwrap().device.is_some());
}

#[tokio::test]
async fn policy_is_asked_about_who_holds_a_link() {
    let world = World::new().await;
    let session = world.create().await;
    let link = world.link(session).await;
    let followed = world.service.follow_link(&link).unwrap();
    let binding = world.bind(allowing(), vec![OperationKind::SessionQr], "{}").await;
    world.service.pair_by_link(&followed).await.unwrap();
    let decision = world.decisions().await.swap_remove(0);
    assert_eq!((decision.operation, decision.actor.name()), (OperationKind::SessionQr, "link"));
    assert_eq!(world.audit().await[0].actor, PrincipalKind::Link);
    world.unbind(binding).await;
    world.bind(denying(), vec![OperationKind::SessionQr], "{}").await;
    let denied = world.service.pair_by_link(&followed).await;
    assert!(matches!(denied, Err(ServiceError::Vetoed { .. })), "{denied:?}");
}
