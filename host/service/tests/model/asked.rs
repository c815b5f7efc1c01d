//! The plain model of operations: who may ask, what policy says, and what it comes to.

use crate::plain::{Model, News, Session};
use crate::rules::{Ruling, Verdict};
use crate::state::{State, Wish};
use crate::steps::{Ask, Caller, How, MINUTE, Millis, SECOND};

/// How many sessions the organisation may have.
pub(crate) const MOST_SESSIONS: usize = 4;

/// How an operation came to an end; in the words in which the audit has it, and the caller hears of it.
struct End {
    audit: String,
    answer: String,
    /// The word of the decision for it, if it is not the verdict's own.
    stopped: Option<&'static str>,
}

impl End {
    fn same(word: impl Into<String>) -> Self {
        let answer = word.into();
        Self { audit: answer.clone(), answer, stopped: None }
    }

    fn refused(code: &str) -> Self {
        Self { audit: format!("refused {code}"), answer: code.to_owned(), stopped: Some("refused") }
    }
}

impl Model {
    /// Somebody asks; answers what they hear.
    pub(crate) fn ask(&mut self, caller: Caller, session: Option<usize>, ask: Ask) -> String {
        let denial = match caller {
            Caller::Stranger => Some("not_found"),
            Caller::Holder if session != Some(0) => Some("not_found"),
            Caller::Reader => Some("forbidden"),
            Caller::Owner | Caller::Clerk | Caller::Holder => None,
        };
        if let Some(code) = denial {
            // What strangers try stands in their own organisation's audit.
            if caller != Caller::Stranger {
                self.write_down(caller.word(), ask, session, &format!("denied {code}"));
            }
            return code.to_owned();
        }
        if let Ask::Send { key: Some(key) } = ask
            && let Some((_, of, state)) = self.keys.iter().find(|(known, ..)| *known == key)
        {
            return match () {
                () if caller == Caller::Holder && *of != 0 => "idempotency_key_taken".to_owned(),
                () if self.is_gone(*of) => "not_found".to_owned(),
                () => format!("replayed {state}"),
            };
        }
        let Some(session) = session else { return self.create(caller, ask) };
        if self.is_gone(session) {
            return "not_found".to_owned();
        }
        let leaves = self.sessions[session].face.state.word() == "removing";
        if matches!(ask, Ask::Delete { .. }) && leaves {
            self.write_down(caller.word(), ask, Some(session), "unchanged");
            return "unchanged".to_owned();
        }
        let (token, rejected) = match ask {
            Ask::Delete { token: Some((which, right)) } if !self.tokens.is_empty() => {
                let token = self.token(which);
                match self.rejects(token, caller, session, right) {
                    None => (Some(token), ""),
                    Some(code) => (None, code),
                }
            }
            _ => (None, ""),
        };
        let ruling = self.rule(ask.operation(), Some(session), false, token.is_some());
        let end = match (ruling.verdict, ask) {
            (Verdict::Denied(code), _) => self.veto(session, ask, code),
            (Verdict::Asks(binding), _) => {
                self.ask_back(session, caller, binding);
                let answer = format!("confirmation_required {rejected}");
                End { answer, stopped: None, ..End::refused("confirmation_required") }
            }
            (_, Ask::Send { key }) => return self.send(caller, session, ask, key, ruling),
            (verdict, _) => {
                let end = self.try_out(session, ask, verdict, ruling);
                if let Some(token) = token.filter(|_| end.stopped.is_none()) {
                    self.tokens[token].known = false;
                }
                end
            }
        };
        self.close(caller.word(), Some(session), ask, ruling, &end);
        end.answer
    }

    /// The how-manieth newest token.
    pub(crate) fn token(&self, which: u8) -> usize {
        self.tokens.len() - 1 - usize::from(which) % self.tokens.len()
    }

    fn close(&mut self, who: &str, session: Option<usize>, ask: Ask, ruling: Ruling, end: &End) {
        self.write_down(who, ask, session, &end.audit);
        self.record(session, ask, ruling, end.stopped, false);
        self.erase();
    }

    fn write_down(&mut self, who: &str, ask: Ask, session: Option<usize>, outcome: &str) {
        let about = session.map_or_else(|| "-".to_owned(), |session| session.to_string());
        self.audit.push(format!("{who} {} {about} {outcome} at {}", ask.operation(), self.now));
    }

    fn record(&mut self, session: Option<usize>, ask: Ask, ruling: Ruling, stopped: Option<&str>, is_due: bool) {
        if !ruling.recorded {
            return;
        }
        let word = stopped.unwrap_or(match ruling.verdict {
            Verdict::Denied(_) => "denied",
            Verdict::Asks(_) => "confirmation-required",
            Verdict::DeferredUntil(_) => "deferred",
            Verdict::Allowed => "allowed",
        });
        let about = session.map_or_else(|| "-".to_owned(), |session| session.to_string());
        let phase = if is_due { "due" } else { "requested" };
        self.decisions.push(format!("{} {about} {word} {phase} at {}", ask.operation(), self.now));
    }

    fn veto(&mut self, session: usize, ask: Ask, code: &str) -> End {
        let text = format!("policy.denied {} {code} (generation 0, at {})", ask.operation(), self.now);
        self.sessions[session].news.push(News::passing(text));
        End::same(format!("vetoed {code}"))
    }

    /// Does it if nothing but policy stood in the way: no limit either.
    fn try_out(&mut self, session: usize, ask: Ask, verdict: Verdict, ruling: Ruling) -> End {
        let until = match verdict {
            Verdict::DeferredUntil(until) => Some(until),
            _ => None,
        };
        let mut then = self.clone();
        let now = self.now;
        match then.carry_out(session, ask, until) {
            Err(code) => End::refused(code),
            Ok(false) => {
                let it = &mut self.sessions[session];
                if ruling.tightens && it.face.policy != "strict" {
                    it.shift(now, Session::tighten);
                }
                let answer = match &self.sessions[session].face.wish {
                    Wish::Gone { due, .. } if until.is_some() => format!("deferred {due}"),
                    _ => "unchanged".to_owned(),
                };
                End { answer, ..End::same("unchanged") }
            }
            Ok(true) => {
                if let Some(wait) = self.quota_is_full_for().filter(|_| ruling.quota) {
                    let answer = format!("rate_limited {wait}");
                    return End { answer, stopped: Some("limited"), ..End::refused("rate_limited") };
                }
                *self = then;
                if ruling.quota {
                    self.counted.push(now);
                }
                if ruling.tightens && self.sessions[session].face.policy != "strict" {
                    self.sessions[session].tighten();
                }
                match until {
                    Some(until) => End::same(format!("deferred {until}")),
                    None => {
                        self.count(ask);
                        End::same("done")
                    }
                }
            }
        }
    }

    fn count(&mut self, ask: Ask) {
        if matches!(ask, Ask::Delete { .. }) {
            self.deleted.push(self.now);
        }
    }

    /// What an operation does to its session. Answers whether it changes anything.
    fn carry_out(&mut self, session: usize, ask: Ask, until: Option<Millis>) -> Result<bool, &'static str> {
        let now = self.now;
        let it = &mut self.sessions[session];
        let removing = it.face.state.word() == "removing";
        let leaving = matches!(it.face.wish, Wish::Gone { .. });
        let changes_what_is_known = matches!(ask, Ask::Hold(_) | Ask::RatePolicy(_));
        match ask {
            Ask::Delete { .. } => return Ok(it.delete(until, now)),
            Ask::Restore if !leaving => return Err("not_pending_delete"),
            Ask::Restore => {
                it.take_back(now, "session.restored", false);
                return Ok(true);
            }
            _ if removing => return Err("removing"),
            _ if leaving && !changes_what_is_known => return Err("pending_delete"),
            _ => {}
        }
        let runs = it.face.state.run().is_some();
        match ask {
            Ask::Start { .. } if runs => return Ok(false),
            Ask::Start { .. } | Ask::Qr | Ask::PairingCode { .. } if it.is_unlinking() => return Err("logging_out"),
            Ask::Start { pair } => it.boot(pair, now)?,
            Ask::Restart { connect: false, .. } if !runs => return Err("not_running"),
            Ask::Restart { .. } if it.is_unlinking() => return Err("logging_out"),
            Ask::Restart { pair, .. } => it.boot(pair, now)?,
            Ask::Stop if it.face.state == State::Stopped && it.face.wish == Wish::Rest => return Ok(false),
            // Nothing cuts a logout off.
            Ask::Stop if it.is_unlinking() => return Ok(false),
            Ask::Stop => it.shift(now, |it| {
                it.halt();
                it.face.wish = Wish::Rest;
                it.face.state = State::Stopped;
            }),
            Ask::Logout { connect } => return it.log_out(connect, now),
            Ask::Qr if matches!(it.face.state, State::Pairing { .. }) => return Ok(false),
            Ask::Qr | Ask::PairingCode { .. } if it.is_linked() => return Err("already_paired"),
            Ask::PairingCode { switch: false } if matches!(it.face.state, State::Pairing { how: How::Qr, .. }) => {
                return Err("already_pairing");
            }
            // A run that has not heard of its link yet is one of a session that has a link.
            Ask::Qr | Ask::PairingCode { .. } if runs && !matches!(it.face.state, State::Pairing { .. }) => {
                return Err("already_paired");
            }
            Ask::Qr => it.boot(true, now)?,
            Ask::PairingCode { .. } => it.shift(now, |it| {
                it.face.wish = Wish::Run;
                it.halt();
                it.pair(How::Code, now);
            }),
            Ask::Hold(held) if it.face.held == held => return Ok(false),
            Ask::Hold(held) => it.shift(now, |it| {
                it.face.held = held;
                it.tell("session.labels");
            }),
            Ask::RatePolicy(slug) if it.face.policy == slug => return Ok(false),
            Ask::RatePolicy(slug) => it.shift(now, |it| {
                it.face.policy = slug.to_owned();
                it.tell(&format!("session.rate-policy {slug}"));
            }),
            Ask::Create { .. } | Ask::Delete { .. } | Ask::Restore | Ask::Send { .. } => {}
        }
        Ok(true)
    }

    fn create(&mut self, caller: Caller, ask: Ask) -> String {
        let Ask::Create { start, held } = ask else { panic!("{ask:?} is about a session") };
        let ruling = self.rule(ask.operation(), None, false, false);
        if let Verdict::Denied(code) = ruling.verdict {
            let text = format!("policy.denied {} {code} (generation 0, at {})", ask.operation(), self.now);
            self.house_news.push(News::passing(text));
            let end = End::same(format!("vetoed {code}"));
            self.close(caller.word(), None, ask, ruling, &end);
            return end.answer;
        }
        if self.alive() >= MOST_SESSIONS {
            let end = End::refused("quota_reached");
            self.close(caller.word(), None, ask, ruling, &end);
            return end.answer;
        }
        let mut born = Session::born(held, self.now);
        born.tell_for_good("session.created");
        if start {
            born.face.wish = Wish::Run;
            born.pair(How::Qr, self.now);
            born.tell_status("stopped");
        }
        self.sessions.push(born);
        let end = End::same("done");
        self.close(caller.word(), Some(self.sessions.len() - 1), ask, ruling, &end);
        end.answer
    }

    fn send(&mut self, caller: Caller, session: usize, ask: Ask, key: Option<u8>, ruling: Ruling) -> String {
        let now = self.now;
        let State::Online { run } = self.sessions[session].face.state else {
            let end = End::refused("not_connected");
            self.close(caller.word(), Some(session), ask, ruling, &end);
            return end.answer;
        };
        if let Some(wait) = self.sends_are_full_for(session) {
            let answer = format!("rate_limited {wait}");
            let end = End { answer, stopped: Some("limited"), ..End::refused("rate_limited") };
            self.close(caller.word(), Some(session), ask, ruling, &end);
            return end.answer;
        }
        self.close(caller.word(), Some(session), ask, ruling, &End::same("done"));
        let it = &mut self.sessions[session];
        it.sent.push(now);
        let stamp = format!("(generation {}, at {now})", it.face.generation);
        let (state, answer) = match it.phone.can_send(run) {
            true => {
                it.news.push(News::passing(format!("message.out {stamp}")));
                ("sent", "sent")
            }
            false => {
                if key.is_some() {
                    it.news.push(News::passing(format!("message.failed not_connected {stamp}")));
                }
                self.write_down(caller.word(), ask, Some(session), "refused not_connected");
                ("failed not_connected", "not_connected")
            }
        };
        self.keys.extend(key.map(|key| (key, session, state)));
        answer.to_owned()
    }

    /// The process died between counting a message and hearing what became of it, and the next one says so.
    pub(crate) fn interrupt(&mut self, session: usize, key: Option<u8>) {
        let now = self.now;
        let it = &mut self.sessions[session];
        // What was told of it, or written down, never was.
        it.news.retain(|news| !news.text.starts_with("message."));
        self.audit.retain(|line| !line.contains("refused not_connected"));
        if key.is_some() {
            let generation = it.face.generation;
            it.news.push(News::passing(format!("message.failed interrupted (generation {generation}, at {now})")));
            if let Some(known) = self.keys.last_mut() {
                known.2 = "failed interrupted";
            }
        }
    }

    /// A delete is due: policy is asked again, as the gateway itself. What follows from a veto is a step of its own.
    pub(crate) fn carry_out_due(&mut self, session: usize, only_vetoed: bool) {
        let now = self.now;
        let face = &self.sessions[session].face;
        let is_due = matches!(face.wish, Wish::Gone { due, .. } if due <= now);
        if !is_due || matches!(face.state.word(), "removing" | "gone") {
            return;
        }
        let ask = Ask::Delete { token: None };
        let ruling = self.rule(ask.operation(), Some(session), true, true);
        let outcome = match ruling.verdict {
            Verdict::Denied(code) => {
                let end = self.veto(session, ask, code);
                if !only_vetoed {
                    self.sessions[session].take_back(now, &format!("session.delete-cancelled {code}"), true);
                }
                end.audit
            }
            Verdict::DeferredUntil(until) => {
                let until = until.max(now + MINUTE);
                let it = &mut self.sessions[session];
                it.shift(now, |it| {
                    if let Wish::Gone { due, .. } = &mut it.face.wish {
                        *due = until;
                    }
                    it.tell(&format!("session.delete-scheduled {until}"));
                });
                format!("deferred {until}")
            }
            Verdict::Asks(_) | Verdict::Allowed => {
                self.sessions[session].delete(None, now);
                self.count(ask);
                "done".to_owned()
            }
        };
        self.write_down("the gateway", ask, Some(session), &outcome);
        self.record(Some(session), ask, ruling, None, true);
    }
}

impl Session {
    /// In the commit of something else.
    fn tighten(&mut self) {
        self.face.policy = "strict".to_owned();
        self.tell("session.rate-policy strict");
    }

    fn boot(&mut self, pair: bool, now: Millis) -> Result<(), &'static str> {
        if !self.is_linked() && !pair {
            return Err("not_paired");
        }
        self.shift(now, |it| {
            it.face.wish = Wish::Run;
            it.halt();
            match it.is_linked() {
                true => it.launch(now),
                false => it.pair(How::Qr, now),
            }
        });
        Ok(())
    }

    fn log_out(&mut self, connect: bool, now: Millis) -> Result<bool, &'static str> {
        match self.face.state {
            State::LoggedOut { .. } => return Ok(false),
            State::Stopped if !connect => return Err("not_running"),
            _ => {}
        }
        self.shift(now, |it| {
            it.face.wish = Wish::Rest;
            let unlink = if it.may_be_linked() { "under-way" } else { "not-linked" };
            if it.may_be_linked() {
                it.undo_link(now);
            }
            it.face.state = State::LoggedOut { by: "api", unlink };
        });
        Ok(true)
    }

    /// Deletes now, or `until` then. Answers whether that is news.
    fn delete(&mut self, until: Option<Millis>, now: Millis) -> bool {
        let (since, ran) = match self.face.wish {
            Wish::Gone { due, .. } if until.is_some_and(|until| until >= due && until > now) => return false,
            Wish::Gone { since, ran, .. } => (since, ran),
            Wish::Run => (now, true),
            Wish::Rest => (now, false),
        };
        self.shift(now, |it| {
            it.face.wish = Wish::Gone { due: until.unwrap_or(now), since, ran };
            match until {
                Some(until) => {
                    if it.face.state.run().is_some() || matches!(it.face.state, State::Failed(_, Some(_))) {
                        it.halt();
                        it.face.state = State::Stopped;
                    }
                    it.tell(&format!("session.delete-scheduled {until}"));
                }
                None => {
                    it.tell_for_good("session.deleting");
                    if it.may_be_linked() {
                        let run = it.undo_link(now);
                        it.face.state = State::Unlinking { run, by: now + 10 * SECOND };
                    } else {
                        it.go();
                    }
                }
            }
        });
        true
    }
}
