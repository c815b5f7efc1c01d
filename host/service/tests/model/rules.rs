//! The plain model of policies: what each says, what it comes to, and the questions that callers are asked back.

use crate::plain::Model;
use crate::state::Wish;
use crate::steps::{Caller, HOUR, MINUTE, Millis, Rule};

/// A rule at work. Numbers are never given twice in a sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) number: u32,
    pub(crate) rule: Rule,
}

/// A question that was asked back, which its token answers.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) session: usize,
    pub(crate) asker: Caller,
    /// What was wanted of the session then.
    pub(crate) wish: Wish,
    pub(crate) until: Millis,
    /// The binding that asks.
    pub(crate) binding: u32,
    /// Whether it has not been used, and its session is there.
    pub(crate) known: bool,
}

/// What a chain says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Denied(&'static str),
    /// Ask the caller back, in the words of this binding.
    Asks(u32),
    DeferredUntil(Millis),
    Allowed,
}

/// What is behind a verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ruling {
    pub(crate) verdict: Verdict,
    /// Whether any plugin was asked.
    pub(crate) recorded: bool,
    pub(crate) quota: bool,
    pub(crate) tightens: bool,
}

impl Rule {
    fn hears_of(self, operation: &str) -> bool {
        match self {
            Self::Grace(_) | Self::Confirm | Self::Quota | Self::PutOff(_) => operation == "session.delete",
            Self::Deny(denied) => operation == denied,
            Self::Tighten => operation == "session.stop",
        }
    }
}

impl Model {
    /// Asks the chain about an operation, of a session if it is about one.
    pub(crate) fn rule(&self, operation: &str, session: Option<usize>, is_due: bool, is_confirmed: bool) -> Ruling {
        let held = session.is_some_and(|session| self.sessions[session].face.held);
        let mut denial = None;
        let mut question = None;
        let mut until = None;
        let mut ruling = Ruling { verdict: Verdict::Allowed, recorded: false, quota: false, tightens: false };
        for bound in self.bound.iter().filter(|bound| bound.rule.hears_of(operation)) {
            ruling.recorded = true;
            match bound.rule {
                Rule::Grace(_) if held => denial = denial.or(Some("legal_hold")),
                Rule::Grace(grace) if !is_due => until = until.max(Some(self.now + grace)),
                Rule::Confirm if !is_due && !is_confirmed => question = question.or(Some(bound.number)),
                Rule::Quota if !is_due => ruling.quota = true,
                Rule::Deny(_) => denial = denial.or(Some("no")),
                Rule::PutOff(time) => until = until.max(Some(self.now + time)),
                Rule::Tighten => ruling.tightens = true,
                Rule::Grace(_) | Rule::Confirm | Rule::Quota => {}
            }
        }
        ruling.verdict = match (denial, question, until) {
            (Some(code), ..) => Verdict::Denied(code),
            (None, Some(binding), _) => Verdict::Asks(binding),
            (None, None, Some(until)) => Verdict::DeferredUntil(until),
            (None, None, None) => Verdict::Allowed,
        };
        ruling
    }

    /// Why a token does not count, if it does not.
    pub(crate) fn rejects(&self, token: usize, asker: Caller, session: usize, right: bool) -> Option<&'static str> {
        let token = &self.tokens[token];
        let is_there = self.bound.iter().any(|bound| bound.number == token.binding);
        match () {
            () if !token.known => Some("confirmation_unknown"),
            () if token.until <= self.now => Some("confirmation_expired"),
            () if token.asker != asker || token.session != session => Some("confirmation_of_another_request"),
            () if token.wish != self.sessions[session].face.wish => Some("confirmation_outdated"),
            () if !right => Some("confirmation_wrong_answer"),
            () if !is_there => Some("confirmation_outdated"),
            () => None,
        }
    }

    /// A new question; old ones that nobody can answer any more are forgotten.
    pub(crate) fn ask_back(&mut self, session: usize, asker: Caller, binding: u32) {
        let now = self.now;
        self.tokens.iter_mut().filter(|token| token.until <= now).for_each(|token| token.known = false);
        let wish = self.sessions[session].face.wish.clone();
        self.tokens.push(Token { session, asker, wish, until: now + 10 * MINUTE, binding, known: true });
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.bound.iter().any(|bound| std::mem::discriminant(&bound.rule) == std::mem::discriminant(&rule))
    }

    pub(crate) fn bind(&mut self, rule: Rule) {
        let number = self.bound.last().map_or(0, |bound| bound.number + 1);
        self.bound.push(Bound { number, rule });
        self.audit.push(format!("the owner binding.create - done at {}", self.now));
    }

    pub(crate) fn unbind(&mut self, which: usize) {
        self.bound.remove(which);
        self.audit.push(format!("the owner binding.delete - done at {}", self.now));
    }

    /// For how long the quota of deletes is used up.
    pub(crate) fn quota_is_full_for(&self) -> Option<Millis> {
        let minute = full_for(&self.counted, MINUTE, 2, self.now);
        minute.max(full_for(&self.counted, HOUR, 3, self.now))
    }

    /// For how long a session may not send.
    pub(crate) fn sends_are_full_for(&self, session: usize) -> Option<Millis> {
        let session = &self.sessions[session];
        let (gap, per_minute) = match session.face.policy.as_str() {
            "strict" => (10_000, 5),
            "standard_policy" => (3_000, 20),
            "high_throughput" => (1_000, 60),
            _ => return None,
        };
        let gap = full_for(&session.sent, gap, 1, self.now);
        gap.max(full_for(&session.sent, MINUTE, per_minute, self.now))
    }
}

/// For how long `most` hits within `window` are used up, if they are.
fn full_for(hits: &[Millis], window: Millis, most: usize, now: Millis) -> Option<Millis> {
    let within: Vec<_> = hits.iter().filter(|hit| **hit + window > now).collect();
    let first_to_go = within.len().checked_sub(most)?;
    Some(within[first_to_go] + window - now)
}
