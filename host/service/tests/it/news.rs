//! Who follows events: that they hear of every commit, see what is theirs and nothing else, and learn when they are no longer let in.

use portcullis_core::{
    Denial, EventKind, KeyId, OperationKind, OutboxPlace, Permit, PrincipalKind, SessionId, Target, authorize,
};
use portcullis_service::{Call, OrgChange, ServiceError, Stretch};

use crate::world::World;

impl World {
    fn follows(&self, session: Option<SessionId>) -> Permit {
        authorize(&self.owner, OperationKind::EventRead, Target { org: self.org, session }).unwrap()
    }

    /// The places and names that one look finds; `room` is how many of them are taken.
    fn look(
        &self,
        session: Option<SessionId>,
        after: u64,
        wants: fn(EventKind) -> bool,
        room: usize,
    ) -> (Vec<(u64, &'static str)>, Stretch) {
        let mut seen = Vec::new();
        let permit = self.follows(session);
        let take = |placed: portcullis_service::PlacedEvent| {
            seen.push((placed.place.0, placed.event.body.name()));
            seen.len() < room
        };
        let stretch = self.service.look_at_events(&permit, OutboxPlace(after), |_, kind| wants(kind), take).unwrap();
        (seen, stretch)
    }

    async fn suspend(&self, suspended: bool) {
        self.change_org(OrgChange { suspended: Some(suspended), ..OrgChange::default() }).await;
    }

    fn key(&self) -> KeyId {
        let PrincipalKind::ApiKey { id } = self.owner.kind else { panic!("the owner has a key") };
        id
    }
}

fn through(place: u64, more: bool) -> Stretch {
    Stretch { through: OutboxPlace(place), more, missing: None }
}

#[tokio::test]
async fn every_commit_with_events_is_news() {
    let world = World::new().await;
    let mut follower = world.service.follow_events(&world.follows(None)).unwrap();
    let session = world.online().await;
    follower.news().await;
    let (_, Stretch { through: end, .. }) = world.look(None, 0, |_| false, 1);
    assert_eq!(end, world.service.events_end(&world.follows(None)).unwrap());
    // A report, an operation, and something that the organisation tells.
    world
        .simulate(session, portcullis_service::SimulatorAct::Receive { from: "1@lid".into(), text: "hi".into() })
        .await;
    follower.news().await;
    world.label(session, &[("a", "b")]).await;
    follower.news().await;
    world.tell("fact", "something.happened", session).await;
    follower.news().await;
    let (seen, _) = world.look(None, end.0, |_| true, 9);
    let names: Vec<_> = seen.iter().map(|(_, name)| *name).collect();
    assert_eq!(names, ["message.in", "session.labels", "fact"]);
}

#[tokio::test]
async fn a_look_is_short_and_goes_on_where_it_ended() {
    let world = World::new().await;
    let (one, other) = (world.create().await, world.create().await);
    world.label(one, &[("a", "1")]).await;
    world.label(other, &[("a", "2")]).await;
    let all = [(1, "session.created"), (2, "session.created"), (3, "session.labels"), (4, "session.labels")];
    let check = |session, after, wants: fn(EventKind) -> bool, room, seen: &[(u64, &'static str)], stretch| {
        assert_eq!(world.look(session, after, wants, room), (seen.to_vec(), stretch), "{session:?} after {after}");
    };
    let labels = |kind| kind == EventKind::LabelsChanged;
    check(None, 0, |_| true, 9, &all, through(4, false));
    check(None, 0, |_| true, 2, &all[..2], through(2, true));
    check(None, 2, |_| true, 9, &all[2..], through(4, false));
    check(None, 0, labels, 1, &all[2..3], through(3, true));
    check(Some(other), 0, |_| true, 9, &[all[1], all[3]], through(4, false));
    check(Some(one), 3, |_| true, 9, &[], through(4, false));
    check(None, 4, |_| true, 9, &[], through(4, false));
    let stranger = world.other_org().await;
    assert_eq!(stranger.look(None, 0, |_| true, 9), (vec![], through(0, false)));
}

/// A stream is let in once and stays for long, so it hears that the doors changed and asks for itself.
#[tokio::test]
async fn who_may_follow_is_asked_again() {
    let world = World::new().await;
    let other = world.other_org().await;
    let mut doors = world.service.doors();
    let permit = world.follows(None);
    let check = |expected: Option<&str>| {
        let refused = world.service.may_follow(&permit).err().map(|error| error.code());
        assert_eq!(refused, expected);
        assert!(other.service.may_follow(&other.follows(None)).is_ok(), "the others are not concerned");
    };
    doors.mark_unchanged();
    check(None);
    world.suspend(true).await;
    assert!(doors.has_changed().unwrap());
    check(Some("suspended"));
    assert!(matches!(world.service.follow_events(&permit), Err(ServiceError::Suspended)));
    world.suspend(false).await;
    check(None);
    doors.mark_unchanged();
    let revoke = world.permit(OperationKind::KeyRevoke, None).await;
    world.service.revoke_key(&revoke, world.key(), &Call::default()).await.unwrap();
    assert!(doors.has_changed().unwrap());
    check(Some("unauthorized"));
    doors.mark_unchanged();
    let erased = world.platform();
    let erase = authorize(&erased.owner, OperationKind::OrgDelete, Target::org(world.org)).unwrap();
    world.service.erase_org(&erase, &Call::default()).await.unwrap();
    assert!(doors.has_changed().unwrap());
    check(Some("unauthorized"));
    assert!(matches!(
        other.service.follow_everybody(&other.follows(None)),
        Err(ServiceError::Denied(Denial::Forbidden(_)))
    ));
}
