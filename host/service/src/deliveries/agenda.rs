//! Which lines have something to deliver, and whose turn it is.
//!
//! A line that is at work is in nobody's way: it is told of news, and says when it is to be looked at again.
//! Lines begin in the order in which they are due, but an organisation has never more than half of what is free. So there is
//! always room for one more, however many lines of others hang on receivers that do not answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::{Line, OrgId, Timestamp};
use tokio::sync::Notify;

/// How many lines are at work at once.
const LINES_AT_ONCE: usize = 4_096;
/// How many of them are one organisation's, at most.
const LINES_OF_ORG: usize = 256;
/// How many an organisation may always have.
const LINES_ALWAYS: usize = 2;

/// When which line is to be looked at.
#[derive(Default)]
pub(super) struct Agenda {
    inner: Mutex<Inner>,
    /// Rung when something may be due earlier than was thought, or when there is more room.
    pub(super) stirred: Notify,
}

/// A line whose turn it is.
pub(super) struct Turn {
    pub(super) org: OrgId,
    pub(super) line: Line,
    /// Rung when there is something new for the line.
    pub(super) stirred: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    /// Organisations with lines that wait, by when the first of them is due.
    orgs: BTreeSet<(Timestamp, OrgId)>,
    lines: HashMap<OrgId, Lines>,
    at_work: usize,
}

/// The lines of one organisation.
#[derive(Default)]
struct Lines {
    due: BTreeSet<(Timestamp, Line)>,
    waiting: HashMap<Line, Timestamp>,
    at_work: HashMap<Line, AtWork>,
}

struct AtWork {
    stirred: Arc<Notify>,
    /// When something became due meanwhile.
    meanwhile: Option<Timestamp>,
}

impl Agenda {
    /// There is something for a line then.
    pub(super) fn note(&self, org: OrgId, line: Line, at: Timestamp) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).put(org, line, at);
        self.stirred.notify_one();
    }

    /// The next line whose turn it is.
    pub(super) fn begin(&self, now: Timestamp) -> Option<Turn> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let org = inner.orgs.iter().take_while(|(at, _)| *at <= now).find(|(_, org)| inner.has_room(*org))?.1;
        inner.unlist(org);
        let lines = inner.lines.get_mut(&org)?;
        let (_, line) = lines.due.pop_first()?;
        lines.waiting.remove(&line);
        let stirred = Arc::new(Notify::new());
        lines.at_work.insert(line, AtWork { stirred: Arc::clone(&stirred), meanwhile: None });
        inner.at_work += 1;
        inner.list(org);
        Some(Turn { org, line, stirred })
    }

    /// A line is no longer at work, and to be looked at again then.
    pub(super) fn end(&self, org: OrgId, line: Line, next: Option<Timestamp>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = inner.lines.get_mut(&org).and_then(|lines| lines.at_work.remove(&line));
        if let Some(ended) = ended {
            inner.at_work -= 1;
            if let Some(at) = next.into_iter().chain(ended.meanwhile).min() {
                inner.put(org, line, at);
            }
        }
        if inner.lines.get(&org).is_some_and(|lines| lines.due.is_empty() && lines.at_work.is_empty()) {
            inner.lines.remove(&org);
        }
        drop(inner);
        self.stirred.notify_one();
    }

    /// When the first line that has room is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.orgs.iter().find(|(_, org)| inner.has_room(*org)).map(|(at, _)| *at)
    }

    /// Whether others wait for their turn.
    pub(super) fn is_crowded(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).at_work >= LINES_AT_ONCE / 2
    }
}

impl Inner {
    fn has_room(&self, org: OrgId) -> bool {
        let held = self.lines.get(&org).map_or(0, |lines| lines.at_work.len());
        let free = LINES_AT_ONCE.saturating_sub(self.at_work);
        held < (free / 2).clamp(LINES_ALWAYS, LINES_OF_ORG)
    }

    fn put(&mut self, org: OrgId, line: Line, at: Timestamp) {
        let lines = self.lines.entry(org).or_default();
        if let Some(at_work) = lines.at_work.get_mut(&line) {
            at_work.meanwhile = at_work.meanwhile.into_iter().chain([at]).min();
            at_work.stirred.notify_one();
            return;
        }
        let before = lines.waiting.get(&line).copied();
        if before.is_some_and(|before| before <= at) {
            return;
        }
        self.unlist(org);
        let lines = self.lines.entry(org).or_default();
        if let Some(before) = before {
            lines.due.remove(&(before, line));
        }
        lines.due.insert((at, line));
        lines.waiting.insert(line, at);
        self.list(org);
    }

    fn unlist(&mut self, org: OrgId) {
        if let Some((first, _)) = self.lines.get(&org).and_then(|lines| lines.due.first()) {
            self.orgs.remove(&(*first, org));
        }
    }

    fn list(&mut self, org: OrgId) {
        if let Some((first, _)) = self.lines.get(&org).and_then(|lines| lines.due.first()) {
            self.orgs.insert((*first, org));
        }
    }
}

#[cfg(test)]
mod test {
    use portcullis_core::WebhookId;

    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn org(number: usize) -> OrgId {
        OrgId::from_bytes((number as u128 + 1).to_be_bytes())
    }

    fn line(number: usize) -> Line {
        Line::Webhook(WebhookId::from_bytes((number as u128 + 1).to_be_bytes()))
    }

    /// All that can begin now, by organisation.
    fn begin_all(agenda: &Agenda, now: Timestamp) -> HashMap<OrgId, usize> {
        let mut begun = HashMap::new();
        while let Some(turn) = agenda.begin(now) {
            *begun.entry(turn.org).or_default() += 1;
        }
        begun
    }

    #[test]
    fn lines_begin_in_the_order_in_which_they_are_due() {
        let agenda = Agenda::default();
        agenda.note(org(1), line(1), at(5));
        agenda.note(org(2), line(1), at(3));
        agenda.note(org(1), line(2), at(4));
        agenda.note(org(1), line(1), at(9));
        let order: Vec<_> = std::iter::from_fn(|| agenda.begin(at(8))).map(|turn| (turn.org, turn.line)).collect();
        assert_eq!(order, [(org(2), line(1)), (org(1), line(2)), (org(1), line(1))], "the earlier of two times counts");
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn what_becomes_due_during_a_turn_is_not_forgotten() {
        let agenda = Agenda::default();
        agenda.note(org(1), line(1), at(1));
        let turn = agenda.begin(at(1)).expect("it is due");
        agenda.note(org(1), line(1), at(7));
        assert!(agenda.begin(at(9)).is_none(), "it is at work");
        agenda.end(turn.org, turn.line, Some(at(8)));
        assert_eq!(agenda.next(), Some(at(7)));
        let turn = agenda.begin(at(7)).expect("it is due");
        agenda.end(turn.org, turn.line, None);
        assert!(agenda.next().is_none() && agenda.begin(at(99)).is_none());
        assert!(agenda.inner.lock().unwrap().lines.is_empty(), "nothing is kept of those who have nothing");
    }

    /// Whoever has a hundred thousand receivers that hang would otherwise have all the places.
    #[test]
    fn no_organisation_takes_all_the_places() {
        let agenda = Agenda::default();
        for number in 0..10_000 {
            agenda.note(org(1), line(number), at(0));
        }
        assert_eq!(begin_all(&agenda, at(1)), HashMap::from([(org(1), LINES_OF_ORG)]));
        // Many of them take what is there in ever smaller parts, and a newcomer has its places still.
        for greedy in 2..500 {
            (0..1_000).for_each(|number| agenda.note(org(greedy), line(number), at(0)));
            begin_all(&agenda, at(1));
        }
        agenda.note(org(1_000), line(1), at(2));
        agenda.note(org(1_000), line(2), at(2));
        agenda.note(org(1_000), line(3), at(2));
        assert_eq!(begin_all(&agenda, at(2)).get(&org(1_000)), Some(&LINES_ALWAYS));
    }
}
