//! The plain model of sessions: what is wanted of each, what is so, and how facts, time and crashes move it.
//!
//! It is written from what the design says, and shares no code with the lifecycle that it is compared with. It is the simplest
//! program that could be right: no store, no tasks, one thing after the other.

use crate::phone::Phone;
use crate::rules::{Bound, Token};
use crate::state::{State, Wish};
use crate::steps::{Fact, How, Millis, SECOND};

/// What customers are told of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) text: String,
    /// Whether it is still told after its session is erased.
    outlives: bool,
}

/// What anybody who may look can see of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Face {
    pub(crate) wish: Wish,
    pub(crate) state: State,
    pub(crate) runs: u64,
    pub(crate) linked: bool,
    pub(crate) held: bool,
    pub(crate) policy: String,
    pub(crate) limit: Option<String>,
    pub(crate) generation: u64,
    pub(crate) changed: Millis,
    pub(crate) online_at: Option<Millis>,
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) face: Face,
    pub(crate) phone: Phone,
    pub(crate) news: Vec<News>,
    /// When something was sent.
    pub(crate) sent: Vec<Millis>,
    /// What became of logouts, and when, since the last look.
    pub(crate) logged_out: Vec<(&'static str, Millis)>,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) now: Millis,
    pub(crate) sessions: Vec<Session>,
    pub(crate) bound: Vec<Bound>,
    pub(crate) tokens: Vec<Token>,
    /// Idempotency keys: which, of which session, and what became of the message.
    pub(crate) keys: Vec<(u8, usize, &'static str)>,
    /// When the quota of deletes counted one.
    pub(crate) counted: Vec<Millis>,
    /// When a delete was done.
    pub(crate) deleted: Vec<Millis>,
    /// Since the last look.
    pub(crate) audit: Vec<String>,
    pub(crate) decisions: Vec<String>,
    pub(crate) house_news: Vec<News>,
}

impl News {
    /// News that goes with its session.
    pub(crate) fn passing(text: String) -> Self {
        Self { text, outlives: false }
    }
}

impl Session {
    pub(crate) fn born(held: bool, now: Millis) -> Self {
        let face = Face {
            wish: Wish::Rest,
            state: State::Stopped,
            runs: 0,
            linked: false,
            held,
            policy: "standard_policy".to_owned(),
            limit: None,
            generation: 1,
            changed: now,
            online_at: None,
        };
        Self { face, phone: Phone::default(), news: Vec::new(), sent: Vec::new(), logged_out: Vec::new() }
    }

    /// Tells something that says nothing personal, and so is told after the session is gone as well.
    pub(crate) fn tell_for_good(&mut self, what: &str) {
        self.news.push(News { text: self.stamped(what), outlives: true });
    }

    /// Tells something that goes with the session.
    pub(crate) fn tell(&mut self, what: &str) {
        self.news.push(News { text: self.stamped(what), outlives: false });
    }

    fn stamped(&self, what: &str) -> String {
        format!("{what} (generation {}, at {})", self.face.generation, self.face.changed)
    }

    /// A change, which everybody can tell by the generation; that the status has another name is told.
    pub(crate) fn shift(&mut self, now: Millis, change: impl FnOnce(&mut Self)) {
        let before = self.face.state.word();
        self.face.generation += 1;
        self.face.changed = now;
        change(self);
        self.tell_status(before);
    }

    pub(crate) fn tell_status(&mut self, before: &str) {
        let after = self.face.state.word();
        let why = match self.face.state {
            State::Failed(cause, _) => cause,
            State::LoggedOut { by, .. } => by,
            _ => "",
        };
        if before != after {
            self.tell_for_good(&format!("session.status {before} {after} {why}"));
        }
    }

    pub(crate) fn halt(&mut self) {
        if let Some(run) = self.face.state.run() {
            self.phone.halt(run);
        }
    }

    pub(crate) fn next_run(&mut self) -> u64 {
        self.face.runs += 1;
        self.face.runs
    }

    pub(crate) fn launch(&mut self, now: Millis) {
        let tries = if let State::Failed(_, Some((_, tries))) = self.face.state { tries } else { 0 };
        let run = self.next_run();
        self.face.state = State::Starting { run, by: now + 600 * SECOND, tries };
        self.phone.launch(run, now);
    }

    /// Fails; what can connect, should, and has failed for a reason that passes comes back by itself, later and later.
    fn fail(&mut self, cause: &'static str, now: Millis) {
        let passes = ["start-timeout", "unreachable", "proxy-unreachable"].contains(&cause);
        let tries = 1 + if let State::Starting { tries, .. } = self.face.state { tries } else { 0 };
        let comes_back = passes && self.face.linked && self.face.wish == Wish::Run;
        let wait = [15, 30, 60, 120, 240, 480].get(tries as usize - 1).copied().unwrap_or(900);
        self.face.state = State::Failed(cause, comes_back.then_some((now + wait * SECOND, tries)));
    }

    pub(crate) fn pair(&mut self, how: How, now: Millis) {
        self.forget();
        let run = self.next_run();
        self.face.state = State::Pairing { run, how, code: None, by: now + 30 * SECOND };
        self.phone.pair(run, how, now);
    }

    /// Whether it can connect without being paired: a link that is being given up does not count.
    pub(crate) fn is_linked(&self) -> bool {
        self.face.linked && !matches!(self.face.state, State::LoggedOut { .. })
    }

    /// Whether there may be a link to undo: a known one, or one that nobody has heard of yet, of a run that there was.
    pub(crate) fn may_be_linked(&self) -> bool {
        match self.face.state {
            State::LoggedOut { unlink, .. } => unlink == "under-way",
            _ => self.face.linked || self.face.runs > 0,
        }
    }

    /// Whether its link is being undone.
    pub(crate) fn is_unlinking(&self) -> bool {
        matches!(self.face.state, State::Unlinking { .. } | State::LoggedOut { unlink: "under-way", .. })
    }

    /// The run that undoes a link: one that is there, or another one.
    pub(crate) fn undo_link(&mut self, now: Millis) -> u64 {
        let run = match self.face.state {
            State::LoggedOut { .. } => self.face.runs,
            _ => self.face.state.run().unwrap_or_else(|| self.next_run()),
        };
        self.phone.unlink(run, now);
        run
    }

    /// Forgets the link, if there is one.
    pub(crate) fn forget(&mut self) {
        if std::mem::take(&mut self.face.linked) {
            self.phone.linked = false;
        }
    }

    /// Gives it back that was to be deleted, as it was wanted before.
    pub(crate) fn take_back(&mut self, now: Millis, event: &str, is_personal: bool) {
        let Wish::Gone { ran, .. } = self.face.wish else { return };
        self.shift(now, |it| {
            if let State::Unlinking { run, .. } = it.face.state {
                it.phone.halt(run);
                it.face.state = State::Stopped;
            }
            it.face.wish = Wish::Rest;
            match is_personal {
                true => it.tell(event),
                false => it.tell_for_good(event),
            }
            if ran && it.face.state == State::Stopped && it.face.linked {
                it.face.wish = Wish::Run;
                it.launch(now);
            }
        });
    }

    fn hear(&mut self, run: u64, fact: Fact, now: Millis) {
        let over = matches!(fact, Fact::Unlinked(_) | Fact::LoggedOut | Fact::NotLinked);
        if let State::LoggedOut { by: "api", unlink } = self.face.state {
            // The device is kept until WhatsApp has been told.
            if over && run == self.face.runs && unlink == "under-way" {
                let unlink = match fact {
                    Fact::Unlinked(true) | Fact::LoggedOut => "confirmed",
                    Fact::NotLinked if !self.face.linked => "not-linked",
                    _ => "not-confirmed",
                };
                self.shift(now, |it| {
                    it.face.linked = false;
                    if fact == Fact::LoggedOut {
                        it.phone.linked = false;
                    }
                    it.face.state = State::LoggedOut { by: "api", unlink };
                    if unlink != "not-linked" {
                        it.tell_for_good(&format!("session.unlinked {unlink}"));
                        it.logged_out.push((unlink, now));
                    }
                });
            }
            return;
        }
        if self.face.state.run() != Some(run) {
            return;
        }
        let relaunches =
            matches!(self.face.state, State::Starting { .. } | State::Online { .. } | State::Reconnecting { .. });
        match (&self.face.state, fact) {
            (State::Unlinking { .. }, Fact::Lost) => self.shift(now, |it| {
                let run = it.next_run();
                it.face.state = State::Unlinking { run, by: now + 10 * SECOND };
                it.phone.unlink(run, now);
            }),
            (State::Unlinking { .. }, _) if over => self.shift(now, |it| {
                it.face.linked = false;
                it.go();
            }),
            (State::Unlinking { .. }, _) => {}
            (State::Pairing { code, .. }, Fact::Code(how, until)) => {
                let ordinal = code.map_or(1, |(ordinal, _)| ordinal + 1);
                self.shift(now, |it| {
                    let kind = if how == How::Code { "session.pairing-code" } else { "session.qr" };
                    it.tell(&format!("{kind} {ordinal}"));
                    it.face.state = State::Pairing { run, how, code: Some((ordinal, until)), by: until + 10 * SECOND };
                });
            }
            (State::Pairing { .. }, Fact::Passkey) => self.shift(now, |it| {
                it.tell("session.passkey");
                it.face.state = State::Pairing { run, how: How::Passkey, code: None, by: now + 600 * SECOND };
            }),
            (State::Pairing { .. }, Fact::Exhausted) => {
                self.shift(now, |it| it.fail("pairing-expired", now));
            }
            (State::Pairing { .. }, Fact::Linked) => self.shift(now, |it| {
                it.tell("session.linked");
                it.face.linked = true;
                it.face.state = State::Starting { run, by: now + 600 * SECOND, tries: 0 };
            }),
            (State::Pairing { .. }, Fact::Lost) => self.shift(now, |it| it.pair(How::Qr, now)),
            (State::Starting { .. } | State::Reconnecting { .. }, Fact::Connected) => self.shift(now, |it| {
                it.face.state = State::Online { run };
                it.face.online_at = Some(now);
            }),
            (State::Online { .. }, Fact::Disconnected) => self.shift(now, |it| {
                it.face.state = State::Reconnecting { run, since: now, tries: 0, by: now + 300 * SECOND };
            }),
            (State::Reconnecting { since, tries, by, .. }, Fact::Disconnected) => {
                let again = State::Reconnecting { run, since: *since, tries: tries + 1, by: *by };
                self.shift(now, |it| it.face.state = again);
            }
            (_, Fact::Lost) if relaunches => self.shift(now, |it| it.launch(now)),
            (_, Fact::LoggedOut | Fact::Unlinked(_)) => self.shift(now, |it| {
                let unlink = if it.face.linked { "confirmed" } else { "not-linked" };
                if it.face.linked {
                    it.forget();
                    it.tell_for_good("session.unlinked confirmed");
                }
                it.halt();
                it.face.state = State::LoggedOut { by: "phone", unlink };
            }),
            (_, Fact::Ended(cause)) => self.shift(now, |it| it.fail(cause, now)),
            (_, Fact::Limited(code)) if self.face.limit.as_deref() != Some(code) => self.shift(now, |it| {
                it.tell(&format!("session.limited {code}"));
                it.face.limit = Some(code.to_owned());
            }),
            _ => {}
        }
    }

    /// The last step of a deletion but erasing: the news of it is queued.
    pub(crate) fn go(&mut self) {
        self.face.state = State::Going;
        self.tell_for_good("session.deleted");
    }

    fn out_of_time(&mut self, now: Millis) {
        if self.face.state.lasts().is_none_or(|by| now < by) {
            return;
        }
        self.shift(now, |it| match it.face.state {
            State::Starting { .. } => {
                it.halt();
                it.fail("start-timeout", now);
            }
            State::Failed(..) => it.launch(now),
            State::Pairing { .. } => {
                it.halt();
                it.fail("pairing-expired", now);
            }
            State::Reconnecting { .. } => {
                it.halt();
                it.launch(now);
            }
            State::Unlinking { .. } => {
                it.halt();
                it.go();
            }
            _ => {}
        });
    }

    /// What the next process finds and makes good.
    fn recover(&mut self, now: Millis) {
        self.phone.die();
        match self.face.state.run() {
            Some(run) => self.hear(run, Fact::Lost, now),
            None if matches!(self.face.state, State::LoggedOut { unlink: "under-way", .. }) => {
                self.phone.unlink(self.face.runs, now);
            }
            None => {}
        }
    }
}

impl Model {
    pub(crate) fn is_gone(&self, session: usize) -> bool {
        self.sessions[session].face.state == State::Erased
    }

    pub(crate) fn alive(&self) -> usize {
        self.sessions.iter().filter(|session| session.face.state != State::Erased).count()
    }

    /// Erases what waits for nothing else.
    pub(crate) fn erase(&mut self) {
        for (index, session) in self.sessions.iter_mut().enumerate() {
            if session.face.state != State::Going {
                continue;
            }
            let Wish::Gone { since, .. } = session.face.wish else { panic!("a deletion that nobody wants") };
            session.face.state = State::Erased;
            session.phone.linked = false;
            session.news.retain(|news| news.outlives);
            let receipt = format!("the gateway session.delete {index} erased since {since} at {}", self.now);
            self.audit.push(receipt);
            self.tokens.iter_mut().filter(|token| token.session == index).for_each(|token| token.known = false);
        }
    }

    /// When anything happens by itself.
    pub(crate) fn wakes(&self) -> Option<Millis> {
        let of = |session: &Session| {
            let due = match (&session.face.wish, &session.face.state) {
                (_, State::Unlinking { .. } | State::Going | State::Erased) => None,
                (Wish::Gone { due, .. }, _) => Some(*due),
                _ => None,
            };
            [session.phone.wakes(), session.face.state.lasts(), due].into_iter().flatten().min()
        };
        self.sessions.iter().filter_map(of).min()
    }

    /// Everything that is due now, once: deletes first, then what the engine tells, then what has lasted too long.
    fn tick(&mut self) {
        for session in 0..self.sessions.len() {
            self.carry_out_due(session, false);
        }
        let all = vec![usize::MAX; self.sessions.len()];
        self.listen(&all);
        self.erase();
    }

    /// Hears at most so many things for each session. Answers how many there were.
    fn listen(&mut self, most: &[usize]) -> Vec<usize> {
        let now = self.now;
        let mut heard = Vec::new();
        for (session, most) in self.sessions.iter_mut().zip(most) {
            let lasted = session.face.state.lasts().is_some_and(|by| by <= now);
            let facts = session.phone.listen(now);
            heard.push(facts.len() + usize::from(lasted));
            for (run, fact) in facts.iter().take(*most) {
                session.hear(*run, *fact, now);
            }
            if lasted && facts.len() < *most {
                session.out_of_time(now);
            }
        }
        heard
    }

    /// Everything in which the process can have died while it did what is due: deletes come first, and are decided beside each other,
    /// and so is what is heard of different sessions.
    pub(crate) fn half_done(&self) -> Vec<Self> {
        let mut found = vec![self.clone()];
        for session in 0..self.sessions.len() {
            let mut further = Vec::new();
            for model in &found {
                for only_vetoed in [true, false] {
                    let mut then = model.clone();
                    then.carry_out_due(session, only_vetoed);
                    then.erase();
                    further.push(then);
                }
            }
            found.extend(further);
        }
        let mut decided = self.clone();
        (0..self.sessions.len()).for_each(|session| decided.carry_out_due(session, false));
        decided.erase();
        let most = decided.clone().listen(&vec![0; self.sessions.len()]);
        let mut cuts = vec![Vec::new()];
        for most in most {
            cuts = cuts.iter().flat_map(|cut| (0..=most).map(move |next| [&cut[..], &[next]].concat())).collect();
        }
        for cut in cuts {
            let mut then = decided.clone();
            then.listen(&cut);
            then.erase();
            found.push(then);
        }
        found
    }

    pub(crate) fn settle(&mut self) {
        loop {
            self.tick();
            if self.wakes().is_none_or(|at| at > self.now) {
                return;
            }
        }
    }

    pub(crate) fn pass(&mut self, time: Millis) {
        let end = self.now + time;
        self.settle();
        while let Some(at) = self.wakes().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.settle();
        }
        self.now = end;
    }

    pub(crate) fn crash(&mut self, away: Millis) {
        self.now += away;
        let now = self.now;
        self.sessions.iter_mut().for_each(|session| session.recover(now));
        self.erase();
    }
}
