//! What is remembered of deliveries: lines, their queues and lists, and how far webhooks have come.

use std::sync::Arc;

use portcullis_core::{
    Delivered, DeliveryKey, DeliveryState, EventBody, EventKind, Line, OrgId, OutboxPlace, PluginId,
};

use super::sample::*;
use crate::{
    Commit, CommitError, DeliveryChange, DeliveryFilter, DeliveryPlace, OutboxEntry, PLUGIN_REQUESTS_MAX, Progress,
    Store, Write,
};
use portcullis_core::delivery::Farewell;

fn delivering(changes: Vec<DeliveryChange>) -> Commit {
    Commit { deliveries: changes, ..Commit::new(org_id(1), NOW) }
}

fn keeping(of: DeliveryKey, about: Option<u8>, state: DeliveryState) -> DeliveryChange {
    DeliveryChange::Keep(of, Arc::new(delivery(u128::from(of.place.0), about, state)))
}

/// The places that a listing of the first webhook's line has.
#[track_caller]
fn check(store: &Store, filter: DeliveryFilter, expected: &[u64]) {
    let listed = read(store).deliveries(org_id(1), delivery_key(1, 0).line, filter, None, 99).expect("read");
    let places: Vec<_> = listed.iter().map(|(of, _)| of.place.0).collect();
    assert_eq!(places, expected, "{filter:?}");
}

#[test]
fn a_delivery_is_listed_by_how_far_it_is() {
    let store = store();
    keep(&store, creating(1, 5));
    let states = [(1, DeliveryState::Delivered), (2, waiting(at(9))), (3, waiting(at(7))), (4, DeliveryState::Dead)];
    keep(&store, delivering(states.map(|(place, state)| keeping(delivery_key(1, place), Some(5), state)).into()));
    keep(&store, delivering(vec![keeping(delivery_key(2, 9), None, DeliveryState::Dead)]));
    assert_sound(&store);
    check(&store, DeliveryFilter::All, &[4, 3, 2, 1]);
    check(&store, DeliveryFilter::Waiting, &[3, 2]);
    check(&store, DeliveryFilter::Dead, &[4]);
    let (snapshot, line) = (read(&store), delivery_key(1, 0).line);
    assert_eq!(snapshot.next_delivery(org_id(1), line).expect("read"), Some(at(7)));
    assert_eq!(snapshot.deliveries_due(org_id(1), line, at(8), 9).expect("read"), [delivery_key(1, 3)]);
    let mut lines = Vec::new();
    snapshot.every_waiting_line(|org, line, due| lines.push((org, line, due))).expect("read");
    assert_eq!(lines, [(org_id(1), line, at(7))]);
    assert_eq!(snapshot.remembered_lines(org_id(1)).expect("read"), [line, delivery_key(2, 0).line]);
    let before = Some((OutboxPlace(3), 0));
    let page = snapshot.deliveries(org_id(1), line, DeliveryFilter::All, before, 1).expect("read");
    assert_eq!(page, [(delivery_key(1, 2), delivery(2, Some(5), waiting(at(9))))]);

    let paged = |filter, before, limit| {
        let page = snapshot.delivery_page(org_id(1), line, filter, before, limit).expect("read");
        let places: Vec<_> = page.deliveries.iter().map(|(of, _)| of.place.0).collect();
        (places, page.next.map(|(place, _)| place.0))
    };
    assert_eq!(paged(DeliveryFilter::All, None, 3), (vec![4, 3, 2], Some(2)));
    assert_eq!(paged(DeliveryFilter::All, before, 3), (vec![2, 1], None));
    assert_eq!(paged(DeliveryFilter::Waiting, None, 1), (vec![3], Some(3)));
    assert_eq!(paged(DeliveryFilter::Waiting, before, 9), (vec![2], None));
    assert_eq!(paged(DeliveryFilter::Dead, None, 9), (vec![4], None));
    let dead = |after, through| {
        let found = snapshot.dead_letters(org_id(1), line, OutboxPlace(after), OutboxPlace(through), 9).expect("read");
        found.iter().map(|of| of.place.0).collect::<Vec<_>>()
    };
    assert_eq!((dead(0, 9), dead(3, 4), dead(4, 9), dead(0, 3)), (vec![4], vec![4], vec![], vec![]));

    // It moves from list to list, and goes from all of them.
    keep(&store, delivering(vec![keeping(delivery_key(1, 4), Some(5), waiting(at(1)))]));
    keep(&store, delivering(vec![keeping(delivery_key(1, 3), Some(5), DeliveryState::Dead)]));
    keep(&store, delivering(vec![DeliveryChange::Remove(delivery_key(1, 2))]));
    check(&store, DeliveryFilter::Waiting, &[4]);
    check(&store, DeliveryFilter::Dead, &[3]);
    check(&store, DeliveryFilter::All, &[4, 3, 1]);
    assert_sound(&store);
    keep(&store, writing(1, vec![Write::ForgetDeliveries { line, through: OutboxPlace(3), at_most: 9 }]));
    check(&store, DeliveryFilter::All, &[4]);
    assert_sound(&store);
}

#[test]
fn a_webhook_hears_of_what_comes_after_it_was_made_or_made_active_again() {
    let store = store();
    keep(&store, creating(1, 5));
    let hook = webhook(1, Some(5), 1);
    let told = || {
        let mut told = Vec::new();
        read(&store).every_told_webhook(|org, id, session| told.push((org, id, session))).expect("read");
        told
    };
    let progress = || read(&store).progress(org_id(1), hook.id).expect("read");
    let says = |writes, events| keep(&store, Commit { events, ..writing(1, writes) });
    says(vec![Write::PutWebhook(hook.clone())], vec![event(1, Some(5), 7)]);
    assert_eq!(told(), [(org_id(1), hook.id, hook.session)]);
    assert_eq!(
        progress().map(|progress| progress.through),
        Some(OutboxPlace(1)),
        "what the same commit tells is for it"
    );

    let come = Progress { through: OutboxPlace(2), failing_since: Some(at(3)) };
    keep(&store, delivering(vec![DeliveryChange::Progress { webhook: hook.id, progress: come }]));
    assert_eq!(progress(), Some(come));
    let mut changed = hook.clone();
    changed.spec.url.push_str("/elsewhere");
    says(vec![Write::PutWebhook(changed.clone())], vec![event(1, Some(5), 8)]);
    assert_eq!(progress(), Some(come), "a change leaves it where it is");
    changed.spec.active = false;
    says(vec![Write::PutWebhook(changed.clone())], vec![event(1, Some(5), 9)]);
    assert_eq!(told(), []);
    changed.spec.active = true;
    says(vec![Write::PutWebhook(changed)], Vec::new());
    assert_eq!(progress(), Some(Progress { through: OutboxPlace(4), failing_since: None }));

    says(vec![Write::RemoveWebhook(hook.id)], Vec::new());
    keep(&store, delivering(vec![DeliveryChange::Progress { webhook: hook.id, progress: come }]));
    assert_eq!(progress(), None, "what is said of one that is gone counts nowhere");
    assert_sound(&store);
}

#[test]
fn an_event_is_found_without_being_opened() {
    let store = store();
    keep(&store, creating(1, 5));
    let org_wide = portcullis_core::DomainEvent { body: EventBody::Restored, ..event(1, None, 8) };
    let events = vec![org_wide.clone(), event(1, Some(5), 9)];
    keep(&store, Commit { events, ..Commit::new(org_id(1), NOW) });
    let (snapshot, five) = (read(&store), Some(session_id(5)));
    let entry = |place, session, kind| OutboxEntry { place: OutboxPlace(place), session, kind };
    let all = |session, after| snapshot.outbox_after(org_id(1), session, OutboxPlace(after), 9).expect("read");
    assert_eq!(all(None, 1), [entry(2, None, EventKind::Restored), entry(3, five, EventKind::MessageIn)]);
    assert_eq!(all(five, 1), [entry(3, five, EventKind::MessageIn)]);
    assert_eq!(all(five, 3), []);
    assert_eq!(snapshot.outbox_end(org_id(1)).expect("read"), OutboxPlace(3));
    let found = snapshot.event_at(org_id(1), five, OutboxPlace(3)).expect("read").expect("there");
    assert_eq!((found.seq, found.event), (2, event(1, Some(5), 9)));
    assert_eq!(snapshot.place_of(org_id(1), org_wide.id, 9).expect("read"), Some(OutboxPlace(2)));
    assert_eq!(snapshot.place_of(org_id(1), org_wide.id, 1).expect("read"), None, "it is not among the latest");
    assert_eq!(snapshot.place_of(org_id(2), org_wide.id, 9).expect("read"), None);
}

#[test]
fn the_time_of_events_leads_to_a_place() {
    let store = store();
    keep(&store, creating(1, 5));
    for unique in 1..=20 {
        let event = portcullis_core::DomainEvent { at: at(unique * 10), ..event(1, Some(5), unique.into()) };
        keep(&store, Commit { events: vec![event], ..Commit::new(org_id(1), NOW) });
    }
    keep(&store, writing(1, vec![Write::ForgetEvents { through: OutboxPlace(4), at_most: 9 }]));
    let snapshot = read(&store);
    let before = |time| snapshot.outbox_before(org_id(1), at(time)).expect("read").0;
    // The event of time 10 stands at place 2.
    assert_eq!((before(55), before(60), before(61), before(1_000)), (6, 6, 7, 21));
    assert!(before(0) < 5, "everything that is left comes after");
    assert_eq!(snapshot.outbox_begin(org_id(1)).expect("read"), Some((OutboxPlace(5), at(40))));
}

/// A farewell was once thought of as the session's: its key would have been gone before its receiver had heard of it.
#[test]
fn a_farewell_outlives_its_session_and_other_deliveries_do_not() {
    let store = store();
    keep(&store, creating(1, 5));
    let farewell = Farewell { webhook: webhook(1, Some(5), 1), names: session(1, 5).names };
    let mut last = delivery(9, Some(5), waiting(NOW));
    last.record.what = Delivered::Farewell(Some(Box::new(farewell)));
    let line = delivery_key(1, 0).line;
    let deleted = portcullis_core::DomainEvent { body: EventBody::Deleted, ..event(1, Some(5), 9) };
    let queued = DeliveryChange::Queue { line, at: DeliveryPlace::Event(0), part: 0, delivery: Arc::new(last.clone()) };
    let failed = keeping(delivery_key(1, 1), Some(5), DeliveryState::Dead);
    keep(&store, Commit { events: vec![deleted.clone()], ..delivering(vec![queued, failed.clone()]) });
    keep(&store, writing(1, vec![Write::EraseSession(session_id(5))]));
    finish(&store, NOW);

    let snapshot = read(&store);
    assert_eq!(snapshot.delivery(org_id(1), delivery_key(1, 2)).expect("read"), Some(last));
    let found = snapshot.event_at(org_id(1), Some(session_id(5)), OutboxPlace(2)).expect("read").expect("it outlives");
    assert_eq!((found.seq, found.event), (2, deleted));
    assert_eq!(snapshot.delivery(org_id(1), delivery_key(1, 1)).expect("read"), None);
    assert!(snapshot.is_remembered(org_id(1), delivery_key(1, 1)).expect("read"), "it is there, and cannot be read");
    keep(&store, delivering(vec![failed]));
    let remembered = read(&store).is_remembered(org_id(1), delivery_key(1, 1)).expect("read");
    assert!(!remembered, "whoever would keep it takes it out");
    assert_sound(&store);
}

#[test]
fn the_requests_of_a_plugin_stand_at_places_of_their_own_and_are_bounded() {
    let store = store();
    keep(&store, creating(1, 5));
    let line = Line::Plugin(PluginId::from_bytes([3; 16]));
    let request = |unique| DeliveryChange::Queue {
        line,
        at: DeliveryPlace::Next,
        part: 0,
        delivery: Arc::new(delivery(unique, Some(5), waiting(NOW))),
    };
    keep(&store, delivering((0..2).map(request).collect()));
    let due = read(&store).deliveries_due(org_id(1), line, NOW, 9).expect("read");
    assert_eq!(due.iter().map(|of| of.place.0).collect::<Vec<_>>(), [2, 3]);
    let too_many = delivering((0..PLUGIN_REQUESTS_MAX as u128).map(request).collect());
    assert!(matches!(store.commit_blocking(too_many).expect_err("too many"), CommitError::RequestQuota { .. }));
    keep(&store, Commit { events: vec![event(1, Some(5), 99)], ..Commit::new(org_id(1), NOW) });
    assert_eq!(read(&store).outbox_end(org_id(1)).expect("read"), OutboxPlace(4), "events go on behind them");
    assert_sound(&store);
}

#[test]
fn what_a_plugin_would_send_goes_with_it_in_every_organisation_of_the_platform() {
    for (owner, gone) in [(1, [true, false]), (0, [true, true])] {
        let store = store();
        let plugin = PluginId::from_bytes([3; 16]);
        let line = Line::Plugin(plugin);
        let orgs = [1, 2];
        for org in orgs {
            keep(&store, creating(org, 5));
            let request = |unique, state| DeliveryChange::Queue {
                line,
                at: DeliveryPlace::Next,
                part: 0,
                delivery: Arc::new(delivery(unique, None, state)),
            };
            let queued = vec![request(1, waiting(NOW)), request(2, DeliveryState::Dead), request(3, waiting(NOW))];
            keep(&store, Commit { deliveries: queued, ..Commit::new(org_id(org), NOW) });
        }
        keep(&store, Commit { writes: vec![Write::RemovePlugin(plugin)], ..Commit::new(owner_id(owner), NOW) });
        for (org, gone) in orgs.into_iter().zip(gone) {
            let due = read(&store).deliveries_due(org_id(org), line, NOW, 9).expect("read").len();
            assert_eq!(due, if gone { 0 } else { 2 }, "{owner} {org}");
        }
        // An attempt was under way meanwhile: what came of it has no row any more.
        let of = DeliveryKey { line, place: OutboxPlace(2), part: 0 };
        let late = DeliveryChange::Keep(of, Arc::new(delivery(1, None, waiting(NOW))));
        keep(&store, delivering(vec![late]));
        assert!(!read(&store).is_remembered(org_id(1), of).expect("read"));
        assert_sound(&store);
    }
}

fn owner_id(owner: u8) -> OrgId {
    if owner == 0 { OrgId::PLATFORM } else { org_id(owner) }
}
