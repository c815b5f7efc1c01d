//! A session as the run knows it: what was acknowledged about it, and what an unanswered call may have left of it.

use serde_json::{Value, json};

use super::either::Either;
use super::hands::Change;

/// How a session stands, apart from what passes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    Stopped { linked: bool },
    Pairing,
    Failed,
    Working,
    LoggedOut,
}

impl Stands {
    const ALL: [Self; 6] = [
        Self::Stopped { linked: false },
        Self::Stopped { linked: true },
        Self::Pairing,
        Self::Failed,
        Self::Working,
        Self::LoggedOut,
    ];

    /// Whether a session that stands like this can be seen with this status. One that is pairing fails by itself when its codes run out.
    fn is_seen_as(self, status: &str, linked: bool) -> bool {
        match self {
            Self::Stopped { linked: wanted } => status == "stopped" && linked == wanted,
            Self::Pairing => ["scan_qr_code", "starting", "failed"].contains(&status),
            Self::Failed => status == "failed",
            Self::Working => ["working", "starting"].contains(&status),
            Self::LoggedOut => status == "logged_out",
        }
    }
}

/// Whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Here,
    /// Its deletion waits; until when, once that was seen.
    Pending(Option<u64>),
    /// Its deletion has begun and cannot be stopped but by a restore.
    Going,
    Gone,
}

/// What can be done to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Start,
    Stop,
    Restart,
    Logout,
    Qr,
    PairingCode,
    Scan,
    PhoneUnlinks,
    Disconnect,
    Receive,
    Limit,
    Labels(String),
    Settings(String),
    Proxy(Option<String>),
    Policy(&'static str),
    MakeLink,
    RevokeLink,
    Delete,
    Restore,
}

/// A session of a worker's.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) id: String,
    /// The mark with which it was made.
    made: String,
    pub(super) life: Either<Life>,
    pub(super) stands: Either<Stands>,
    labels: Either<String>,
    settings: Either<String>,
    proxy: Either<Option<String>>,
    policy: Either<String>,
    /// What the simulated phone did last is reported and committed later than it is answered, or, if the gateway is killed, not at all.
    phone: Option<Stands>,
}

impl Act {
    pub(super) fn change(&self, id: &str) -> Change {
        let path = |rest: &str| format!("/api/v1/sessions/{id}{rest}");
        let post = |rest: &str, operation| Change::new("POST", path(rest), operation);
        let put = |rest: &str, operation| Change::new("PUT", path(rest), operation);
        let change = match self {
            Self::Start => post(":start", "session.start"),
            Self::Stop => post(":stop", "session.stop"),
            Self::Restart => post(":restart", "session.restart"),
            Self::Logout => post(":logout", "session.logout"),
            Self::Qr => Change::new("GET", path("/qr"), "session.qr"),
            Self::PairingCode => {
                post("/pairing-code", "session.pairing-code").with(&json!({ "phone": "628123456789" }))
            }
            Self::Scan => post("/simulator:scan", ""),
            Self::PhoneUnlinks => post("/simulator:unlink", ""),
            Self::Disconnect => post("/simulator:disconnect", "").with(&json!({ "seconds": 1 })),
            Self::Receive => {
                post("/simulator:receive", "").with(&json!({ "from": "6281@s.whatsapp.net", "text": "hi" }))
            }
            Self::Limit => post("/simulator:limit", "").with(&json!({ "code": "463" })),
            Self::Labels(mark) => put("/labels", "session.labels").with(&json!({ "mark": mark })),
            Self::Settings(mark) => put("/settings", "session.settings")
                .with(&json!({ "autoRead": true, "presenceTyping": false, "rejectedCallText": mark })),
            Self::Proxy(Some(host)) => put("/proxy", "session.proxy")
                .with(&json!({ "protocol": "http", "host": format!("{host}.example.com"), "port": 8080 })),
            Self::Proxy(None) => Change::new("DELETE", path("/proxy"), "session.proxy"),
            Self::Policy(slug) => put("/rate-policy", "session.rate-policy").with(&json!({ "policy": slug })),
            Self::MakeLink => post("/link", "session.link"),
            Self::RevokeLink => Change::new("DELETE", path("/link"), "session.link"),
            Self::Delete => Change::new("DELETE", path(""), "session.delete"),
            Self::Restore => post(":restore", "session.restore"),
        };
        change.about(id)
    }
}

impl Kept {
    /// A new one with these labels and this rate policy.
    pub(super) fn new(id: String, mark: String, policy: &str, starts: bool) -> Self {
        Self {
            id,
            made: mark.clone(),
            life: Either::of(Life::Here),
            stands: Either::of(if starts { Stands::Pairing } else { Stands::Stopped { linked: false } }),
            labels: Either::of(mark),
            settings: Either::of(String::new()),
            proxy: Either::of(None),
            policy: Either::of(policy.to_owned()),
            phone: None,
        }
    }

    /// The gateway was killed: what the phone did and was not committed by then is forgotten.
    pub(super) fn killed(&mut self) {
        if let Some(after) = self.phone.take() {
            self.stands.or(after);
        }
    }

    /// Whether it was made with this mark.
    pub(super) fn is_marked(&self, mark: &str) -> bool {
        self.made == mark
    }

    /// What an act comes to, for certain or perhaps. `answer` is what a certain one was answered.
    pub(super) fn apply(&mut self, act: &Act, certain: bool, answer: &Value, short_grace: bool) {
        use Stands as S;
        match act {
            Act::Start | Act::Restart => self.stands.put(certain, S::Working),
            Act::Stop => self.stands.change(certain, |stands| {
                Some(S::Stopped { linked: matches!(stands, S::Working | S::Stopped { linked: true }) })
            }),
            Act::Logout => self.stands.put(certain, S::LoggedOut),
            Act::Qr | Act::PairingCode => self.stands.put(certain, S::Pairing),
            Act::Scan => self.wait_for(S::Working),
            Act::PhoneUnlinks => self.wait_for(S::LoggedOut),
            Act::Disconnect | Act::Receive | Act::Limit | Act::MakeLink | Act::RevokeLink => {}
            Act::Labels(mark) => self.labels.put(certain, mark.clone()),
            Act::Settings(mark) => self.settings.put(certain, mark.clone()),
            Act::Proxy(host) => {
                self.proxy.put(certain, host.as_ref().map(|host| format!("{host}.example.com")));
            }
            Act::Policy(slug) => self.policy.put(certain, (*slug).to_owned()),
            Act::Delete if certain => self.life.set(match answer["deleteAt"].as_u64() {
                Some(due) => Life::Pending(Some(due)),
                None if answer.is_null() => Life::Gone,
                None => Life::Going,
            }),
            Act::Delete => {
                self.life.or(Life::Pending(None));
                self.life.or(Life::Going);
            }
            Act::Restore => {
                self.life.put(certain, Life::Here);
                if short_grace {
                    // It may have been unlinked in the meantime.
                    S::ALL.into_iter().for_each(|stands| self.stands.or(stands));
                } else if self.stands.may_be(|stands| matches!(stands, S::Pairing)) {
                    self.stands.or(S::Stopped { linked: false });
                    self.stands.or(S::Failed);
                }
            }
        }
    }

    /// Holds what is there against what may be; what it finds wrong, in words.
    pub(super) fn observe(&mut self, status: u16, session: &Value, now: u64) -> Result<(), String> {
        let is_due = |due: &Option<u64>| due.is_none_or(|due| due <= now);
        if status == 404 {
            let may_be_gone = |life: &Life| match life {
                Life::Here => false,
                Life::Pending(due) => due.is_some() && is_due(due),
                Life::Going | Life::Gone => true,
            };
            let fits = self.life.narrow(may_be_gone);
            let was = format!("{:?}", self.life);
            self.life.set(Life::Gone);
            return if fits { Ok(()) } else { Err(format!("{} is gone; it was {was}", self.id)) };
        }
        if status != 200 {
            return Err(format!("{} was answered {status}: {session}", self.id));
        }
        match session["deleteAt"].as_u64() {
            Some(due) => {
                let fits = |life: &Life| matches!(life, Life::Pending(known) if known.is_none_or(|known| known == due));
                if !self.life.narrow(fits) {
                    return Err(format!("{} is to be deleted at {due}; it was {:?}", self.id, self.life));
                }
                self.life.set(Life::Pending(Some(due)));
            }
            None => {
                let fits = |life: &Life| match life {
                    Life::Here | Life::Going => true,
                    Life::Pending(due) => due.is_some() && is_due(due),
                    Life::Gone => false,
                };
                if !self.life.narrow(fits) {
                    return Err(format!("{} is there; it was {:?} at {now}", self.id, self.life));
                }
                self.life.change(true, |life| matches!(life, Life::Pending(_)).then_some(Life::Going));
            }
        }
        self.facet("mark", &session["labels"]["mark"], &self.labels.clone(), |kept, seen| kept.labels.narrow(seen))?;
        self.facet("rate policy", &session["ratePolicy"], &self.policy.clone(), |kept, seen| kept.policy.narrow(seen))?;
        if let Some(after) = self.phone {
            self.stands.or(after);
        }
        if self.life.sure() == Some(&Life::Here) {
            let word = session["status"].as_str().unwrap_or_default();
            let linked = session["phoneNumber"].is_string();
            if !self.stands.narrow(|stands| stands.is_seen_as(word, linked)) {
                return Err(format!("{} is {word}, linked {linked}; it was {:?}", self.id, self.stands));
            }
            if word == "failed" {
                self.stands.set(Stands::Failed);
            }
            if let Some(after) = self.phone {
                let has_come = self.stands.sure() == Some(&after);
                self.stands.or(after);
                if has_come {
                    self.phone = None;
                }
            }
        }
        Ok(())
    }

    fn wait_for(&mut self, after: Stands) {
        self.phone = Some(after);
        self.stands.or(after);
    }

    fn facet(
        &mut self,
        name: &str,
        seen: &Value,
        was: &Either<String>,
        narrow: impl Fn(&mut Self, &dyn Fn(&String) -> bool) -> bool,
    ) -> Result<(), String> {
        let seen = seen.as_str().unwrap_or_default();
        if narrow(self, &|value| value == seen) {
            return Ok(());
        }
        Err(format!("{} has the {name} {seen:?}; it was {was:?}", self.id))
    }

    /// As [`Kept::observe`], for what is read apart from the session.
    pub(super) fn observe_settings(&mut self, settings: &Value) -> Result<(), String> {
        self.facet("rejected call text", &settings["rejectedCallText"], &self.settings.clone(), |kept, seen| {
            kept.settings.narrow(seen)
        })
    }

    /// The same for the proxy.
    pub(super) fn observe_proxy(&mut self, proxy: &Value) -> Result<(), String> {
        let seen = proxy["proxy"]["host"].as_str();
        if self.proxy.narrow(|host| host.as_deref() == seen) {
            return Ok(());
        }
        Err(format!("{} has the proxy {seen:?}; it was {:?}", self.id, self.proxy))
    }

    /// Whether it will become something else by itself.
    pub(super) fn is_transient(&self, status: &str, now: u64) -> bool {
        match self.life.sure() {
            Some(Life::Here) => status == "starting",
            Some(Life::Pending(due)) => due.is_some_and(|due| due <= now),
            Some(Life::Gone) => false,
            Some(Life::Going) => true,
            // An unanswered deletion that nobody repeats; what has become of it is looked up in the data.
            None => false,
        }
    }
}
