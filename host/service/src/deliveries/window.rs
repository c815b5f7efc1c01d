//! The window of a line: what was read of the outbox and is not settled yet, by session.
//!
//! Within a session one is tried after the other. A session that has much waiting gets only so much of the window; the rest of
//! it stays unread until there is room, so that it is not in the way of the others.
//!
//! A window can be filled anew, because its receiver is to hear of other sessions by now. What is being tried at that moment goes on:
//! its session waits for its end, as it would have without, and what comes of it does not stay in a window that it was not read for.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use portcullis_core::{DeliveryAttempt, OutboxPlace, SessionId, Timestamp};

/// How much is read ahead.
const WINDOW: usize = 512;
/// How much of it is one session's, where a line is for several.
const OF_SESSION: usize = 16;

/// Whom something is about; what is about the organisation itself is in order, too.
pub(super) type About = Option<SessionId>;

/// One thing to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) place: OutboxPlace,
    pub(super) part: u8,
    pub(super) about: About,
    /// For how long it has held up those behind it, not counting the attempts themselves.
    pub(super) held: Duration,
    /// Attempts that have failed, and how.
    pub(super) failed: Vec<DeliveryAttempt>,
    /// Which filling of the window it was read for.
    epoch: u64,
}

/// A part of an event that is to be delivered, and how it has failed so far, if it was tried before a restart.
pub(super) type Part = (u8, Vec<DeliveryAttempt>);

/// What is not settled yet.
pub(super) struct Window {
    queues: HashMap<About, Queue>,
    /// Sessions whose next item may be tried.
    ready: VecDeque<About>,
    /// Sessions whose next item is tried again then.
    held: BTreeSet<(Timestamp, About)>,
    open: BTreeSet<(OutboxPlace, u8)>,
    /// What is being tried: of each session one thing at most, whichever filling it was read for.
    trying: HashMap<About, (OutboxPlace, u8)>,
    /// How often the window was filled anew.
    epoch: u64,
    /// Everything up to here was read, but for what is left unread of single sessions.
    read_through: OutboxPlace,
    /// How much of the window one session gets.
    of_session: usize,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Whether the first of them is being tried, or held.
    busy: bool,
    /// Up to where the session was read, if there is more of it before the place to which everything was read.
    unread_after: Option<OutboxPlace>,
}

impl Window {
    /// An empty window after a place.
    pub(super) fn new(after: OutboxPlace, of_one_session: bool) -> Self {
        Self {
            queues: HashMap::new(),
            ready: VecDeque::new(),
            held: BTreeSet::new(),
            open: BTreeSet::new(),
            trying: HashMap::new(),
            epoch: 0,
            read_through: after,
            of_session: if of_one_session { WINDOW } else { OF_SESSION },
        }
    }

    /// Fills the window anew after a place, and answers what was in it and is not being tried.
    pub(super) fn begin_anew(&mut self, after: OutboxPlace, of_one_session: bool) -> Vec<(OutboxPlace, u8)> {
        let trying = std::mem::take(&mut self.trying);
        let mut fresh = Self { epoch: self.epoch + 1, ..Self::new(after, of_one_session) };
        for (about, tried) in &trying {
            fresh.open.insert(*tried);
            fresh.queues.insert(*about, Queue { busy: true, ..Queue::default() });
        }
        fresh.trying = trying;
        let before = std::mem::replace(self, fresh);
        before.open.into_iter().filter(|open| !self.open.contains(open)).collect()
    }

    /// Whether an item was read for what the window is filled with now. What was not cannot be held.
    pub(super) fn is_of_now(&self, item: &Item) -> bool {
        item.epoch == self.epoch
    }

    /// How many more entries may be read.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.open.len())
    }

    pub(super) fn read_through(&self) -> OutboxPlace {
        self.read_through
    }

    /// The place up to which everything is settled.
    pub(super) fn through(&self) -> OutboxPlace {
        let open = self.open.first().map(|(place, _)| OutboxPlace(place.0 - 1));
        let unread = self.queues.values().filter_map(|queue| queue.unread_after);
        open.into_iter().chain(unread).chain([self.read_through]).min().unwrap_or_default()
    }

    /// Nothing is there that could be tried, now or later.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// An event was read in the order of the outbox; these are the parts of it that the receiver wants.
    pub(super) fn read(&mut self, place: OutboxPlace, about: About, parts: Vec<Part>) {
        let before = std::mem::replace(&mut self.read_through, place);
        if parts.is_empty() {
            return;
        }
        let queue = self.queues.entry(about).or_default();
        if queue.unread_after.is_some() {
            return;
        }
        if queue.items.len() >= self.of_session {
            queue.unread_after = Some(before);
            return;
        }
        self.put(place, about, parts);
    }

    /// Sessions of which more is to be read, and from where on.
    pub(super) fn unread(&self) -> Vec<(About, OutboxPlace)> {
        let is_short = |queue: &Queue| queue.items.len() <= self.of_session / 2;
        let unread = self.queues.iter().filter(|(_, queue)| is_short(queue));
        unread.filter_map(|(about, queue)| Some((*about, queue.unread_after?))).collect()
    }

    /// How much of one session is read at once.
    pub(super) fn at_once(&self) -> usize {
        self.of_session
    }

    /// More of a session was read. It is through if nothing of it was left before the place to which everything was read.
    pub(super) fn read_more(
        &mut self,
        about: About,
        entries: impl IntoIterator<Item = (OutboxPlace, Vec<Part>)>,
        is_all: bool,
    ) {
        let mut last = None;
        for (place, parts) in entries {
            if place > self.read_through {
                last = None;
                break;
            }
            last = Some(place);
            self.put(place, about, parts);
        }
        if let Some(queue) = self.queues.get_mut(&about) {
            queue.unread_after = last.filter(|_| !is_all);
        }
        self.tidy(about);
    }

    fn put(&mut self, place: OutboxPlace, about: About, parts: Vec<Part>) {
        let queue = self.queues.entry(about).or_default();
        for (part, failed) in parts {
            // It may be being tried since before the window was filled anew.
            if !self.open.insert((place, part)) {
                continue;
            }
            if queue.items.is_empty() && !queue.busy {
                self.ready.push_back(about);
            }
            queue.items.push_back(Item { place, part, about, held: Duration::ZERO, failed, epoch: self.epoch });
        }
        self.tidy(about);
    }

    /// Whether there is something to be tried next.
    pub(super) fn has_next(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What is to be tried next.
    pub(super) fn next(&mut self) -> Option<Item> {
        let about = self.ready.pop_front()?;
        let queue = self.queues.get_mut(&about)?;
        let item = queue.items.pop_front()?;
        queue.busy = true;
        self.trying.insert(about, (item.place, item.part));
        Some(item)
    }

    /// Something is delivered, put aside or given up; its session goes on.
    pub(super) fn settle(&mut self, item: &Item) {
        self.open.remove(&(item.place, item.part));
        self.trying.remove(&item.about);
        self.free(item.about);
    }

    /// Something is tried again then, and its session waits for it.
    pub(super) fn hold(&mut self, item: Item, until: Timestamp) {
        debug_assert!(self.is_of_now(&item), "what was read for another filling is settled");
        let about = item.about;
        self.trying.remove(&about);
        if let Some(queue) = self.queues.get_mut(&about) {
            queue.items.push_front(item);
            self.held.insert((until, about));
        }
    }

    /// Whether something is not settled yet.
    pub(super) fn has(&self, place: OutboxPlace, part: u8) -> bool {
        self.open.contains(&(place, part))
    }

    /// When the first of those that are held is tried again.
    pub(super) fn next_held(&self) -> Option<Timestamp> {
        self.held.first().map(|(until, _)| *until)
    }

    /// Those that were held until now are ready again.
    pub(super) fn release(&mut self, now: Timestamp) {
        while let Some((until, about)) = self.held.first().copied().filter(|(until, _)| *until <= now) {
            self.held.remove(&(until, about));
            self.free(about);
        }
    }

    /// Takes those out that are held, and when they were to be tried again. They are settled with that.
    pub(super) fn take_held(&mut self) -> Vec<(Item, Timestamp)> {
        let mut taken = Vec::new();
        for (until, about) in std::mem::take(&mut self.held) {
            if let Some(item) = self.queues.get_mut(&about).and_then(|queue| queue.items.pop_front()) {
                self.settle(&item);
                taken.push((item, until));
            }
        }
        taken
    }

    fn free(&mut self, about: About) {
        if let Some(queue) = self.queues.get_mut(&about) {
            queue.busy = false;
            if !queue.items.is_empty() {
                self.ready.push_back(about);
            }
        }
        self.tidy(about);
    }

    /// Nothing is kept of a session that has nothing here.
    fn tidy(&mut self, about: About) {
        let is_done = |queue: &Queue| queue.items.is_empty() && !queue.busy && queue.unread_after.is_none();
        if self.queues.get(&about).is_some_and(is_done) {
            self.queues.remove(&about);
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn about(byte: u8) -> About {
        Some(SessionId::from_bytes([byte; 16]))
    }

    /// What most events have: one part, which was not tried yet.
    fn untried() -> Part {
        (0, Vec::new())
    }

    fn window(events: &[(u64, u8)]) -> Window {
        let mut window = Window::new(OutboxPlace(0), false);
        for (place, byte) in events {
            window.read(OutboxPlace(*place), about(*byte), vec![untried()]);
        }
        window
    }

    fn tried(window: &mut Window) -> Vec<u64> {
        std::iter::from_fn(|| window.next()).map(|item| item.place.0).collect()
    }

    #[test]
    fn sessions_are_tried_side_by_side_and_each_in_its_order() {
        let mut window = window(&[(1, 1), (2, 1), (3, 2)]);
        let first = window.next().unwrap();
        assert_eq!((first.place.0, tried(&mut window)), (1, vec![3]), "the second waits for the first");
        assert_eq!(window.through(), OutboxPlace(0));
        window.settle(&first);
        assert_eq!(window.through(), OutboxPlace(1));
        assert_eq!(tried(&mut window), [2]);
    }

    #[test]
    fn what_is_held_holds_up_its_session_only_until_it_is_put_aside() {
        let at = Timestamp::from_millis;
        let mut window = window(&[(1, 1), (2, 1), (3, 2)]);
        let first = window.next().unwrap();
        window.hold(first.clone(), at(50));
        assert_eq!((tried(&mut window), window.next_held()), (vec![3], Some(at(50))));
        window.release(at(49));
        assert!(tried(&mut window).is_empty());
        window.release(at(50));
        assert_eq!(window.next(), Some(first.clone()));
        window.hold(first.clone(), at(90));
        assert_eq!(window.take_held(), [(first, at(90))]);
        assert_eq!(tried(&mut window), [2]);
    }

    /// One session with a long backlog filled the window, and the others waited for all of it.
    #[test]
    fn a_session_with_much_waiting_is_not_in_the_way_of_others() {
        let busy = (1..=100).map(|place| (place, 1)).chain([(101, 2)]);
        let mut window = window(&busy.collect::<Vec<_>>());
        let mut first = window.next().unwrap();
        assert_eq!(tried(&mut window), [101]);
        assert_eq!((window.unread(), window.read_through()), (vec![], OutboxPlace(101)));
        let mut seen = vec![first.place.0];
        // What was left unread is read in parts, and nothing of it is settled before.
        for place in 2..=100 {
            window.settle(&first);
            assert!(window.through() < OutboxPlace(place), "{:?} at {place}", window.through());
            for (about, after) in window.unread() {
                let entries =
                    (after.0 + 1..=100).take(window.at_once()).map(|place| (OutboxPlace(place), vec![untried()]));
                window.read_more(about, entries.collect::<Vec<_>>(), after.0 + 16 >= 100);
            }
            first = window.next().unwrap();
            seen.push(first.place.0);
        }
        window.settle(&first);
        assert_eq!(seen, (1..=100).collect::<Vec<_>>());
        assert_eq!(window.through(), OutboxPlace(100), "the other session's is still being tried");
        assert_eq!(window.room(), WINDOW - 1);
    }

    #[test]
    fn what_comes_while_a_session_is_unread_is_read_after_it() {
        let mut window = window(&(1..=20).map(|place| (place, 1)).collect::<Vec<_>>());
        window.read(OutboxPlace(21), about(1), vec![untried()]);
        let mut items = Vec::new();
        while let Some(item) = window.next() {
            window.settle(&item);
            items.push(item.place.0);
            for (about, after) in window.unread() {
                // The store has an event more by now, which will be read in its turn.
                let entries = (after.0 + 1..=22).map(|place| (OutboxPlace(place), vec![untried()]));
                window.read_more(about, entries.collect::<Vec<_>>(), false);
            }
        }
        assert_eq!(items, (1..=21).collect::<Vec<_>>());
        assert!(window.is_empty());
        window.read(OutboxPlace(22), about(1), vec![untried()]);
        assert_eq!((tried(&mut window), window.through()), (vec![22], OutboxPlace(21)));
    }

    /// The story: a webhook was taken away and given back while an attempt was under way. Its end freed the session, of which the
    /// new window was trying the next event already, and a third was tried beside that.
    #[test]
    fn an_attempt_from_before_the_window_was_filled_anew_is_waited_for() {
        let mut window = window(&[(1, 1), (2, 1), (3, 2), (4, 3)]);
        let (first, other) = (window.next().unwrap(), window.next().unwrap());
        assert_eq!((first.place.0, other.place.0), (1, 3));
        let out: Vec<_> = window.begin_anew(OutboxPlace(0), false).into_iter().map(|(place, _)| place.0).collect();
        assert_eq!(out, [2, 4], "what is being tried was taken out, or what is not was left");
        for (place, byte) in [(1, 1), (2, 1), (3, 2), (4, 3)] {
            window.read(OutboxPlace(place), about(byte), vec![untried()]);
        }
        assert_eq!(tried(&mut window), [4], "something is tried beside what is being tried, or once more");
        assert!(!window.is_of_now(&first));
        assert_eq!(window.through(), OutboxPlace(0));
        window.settle(&first);
        let second = window.next().unwrap();
        assert!(second.place.0 == 2 && window.is_of_now(&second));

        // It is moved to the other session, of which something is under way, and nothing of it is for the others any more.
        window.begin_anew(OutboxPlace(1), true);
        for place in [3, 5] {
            window.read(OutboxPlace(place), about(2), vec![untried()]);
        }
        assert!(!window.has_next());
        window.settle(&second);
        assert!(!window.has_next() && window.has(OutboxPlace(3), 0), "another session's attempt has freed this one");
        window.settle(&other);
        let next = window.next().unwrap();
        assert_eq!((next.place.0, window.has_next()), (5, false));
        window.settle(&next);
        assert_eq!(window.through(), OutboxPlace(3), "what is left is being tried since before");
    }

    #[test]
    fn what_is_held_does_not_keep_a_window_that_is_filled_anew_waiting() {
        let mut window = window(&[(1, 1), (2, 1)]);
        let first = window.next().unwrap();
        window.hold(first, Timestamp::from_millis(50));
        assert_eq!(window.begin_anew(OutboxPlace(0), false).len(), 2);
        assert!(window.is_empty() && window.next_held().is_none());
        window.read(OutboxPlace(2), about(1), vec![untried()]);
        assert_eq!(tried(&mut window), [2]);
    }

    #[test]
    fn an_event_that_nobody_wants_is_passed_over() {
        let mut window = Window::new(OutboxPlace(4), false);
        window.read(OutboxPlace(9), about(1), Vec::new());
        assert!(window.is_empty() && window.through() == OutboxPlace(9));
        window.read(OutboxPlace(10), about(1), vec![untried(), (1, Vec::new())]);
        let first = window.next().unwrap();
        window.settle(&first);
        assert_eq!(window.through(), OutboxPlace(9), "the other part is not settled");
    }
}
