//! The plain model of an engine with the phones and the network behind it: one run for a session at most, and what it tells.

use std::collections::VecDeque;

use crate::steps::{Act, Fact, How, Millis, SECOND};

/// What is behind one session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phone {
    run: Option<Run>,
    /// Whether the credentials of a link are kept.
    pub(crate) linked: bool,
    /// What was told and not heard yet, each with the run that tells it.
    pub(crate) said: VecDeque<(u64, Fact)>,
    /// The same, by somebody who is heard first.
    pub(crate) whispered: VecDeque<(u64, Fact)>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    number: u64,
    doing: Doing,
}

#[derive(Debug, Clone, Copy)]
enum Doing {
    /// Shows the how-manieth QR code.
    Showing {
        code: u32,
        until: Millis,
    },
    WaitingForTypedCode {
        until: Millis,
    },
    Connecting {
        until: Millis,
    },
    Connected,
    /// The connection is lost, and comes back.
    Away {
        until: Millis,
    },
    Unlinking {
        until: Millis,
    },
}

impl Phone {
    /// A newer run takes an older one's place, never the other way round.
    fn begin(&mut self, number: u64, doing: Doing) {
        if self.run.is_none_or(|run| run.number <= number) {
            self.run = Some(Run { number, doing });
        }
    }

    pub(crate) fn launch(&mut self, number: u64, now: Millis) {
        match self.linked {
            true => self.begin(number, Doing::Connecting { until: now + SECOND / 2 }),
            // WhatsApp knows nobody without credentials.
            false => self.said.push_back((number, Fact::LoggedOut)),
        }
    }

    pub(crate) fn pair(&mut self, number: u64, how: How, now: Millis) {
        let (doing, until) = match how {
            How::Qr | How::Passkey => (Doing::Showing { code: 1, until: now + 60 * SECOND }, now + 60 * SECOND),
            How::Code => (Doing::WaitingForTypedCode { until: now + 160 * SECOND }, now + 160 * SECOND),
        };
        self.begin(number, doing);
        self.said.push_back((number, Fact::Code(how, until)));
    }

    pub(crate) fn halt(&mut self, number: u64) {
        self.run = self.run.filter(|run| run.number != number);
    }

    pub(crate) fn unlink(&mut self, number: u64, now: Millis) {
        let goes_on = matches!(self.run, Some(Run { number: now, doing: Doing::Unlinking { .. } }) if now == number);
        if std::mem::take(&mut self.linked) {
            self.begin(number, Doing::Unlinking { until: now + SECOND / 5 });
        } else if !goes_on {
            self.run = self.run.filter(|run| run.number > number);
            self.said.push_back((number, Fact::NotLinked));
        }
    }

    /// The run that there is.
    pub(crate) fn alive(&self) -> Option<u64> {
        self.run.map(|run| run.number)
    }

    /// Whether this run could send now.
    pub(crate) fn can_send(&self, number: u64) -> bool {
        self.run.is_some_and(|run| run.number == number && matches!(run.doing, Doing::Connected))
    }

    /// The process is gone, and with it everything but the credentials.
    pub(crate) fn die(&mut self) {
        *self = Self { linked: self.linked, ..Self::default() };
    }

    /// Somebody does something to the phone or the network; answers whether they could.
    pub(crate) fn act(&mut self, act: Act, now: Millis) -> bool {
        let Some(run) = &mut self.run else { return false };
        let fact = match (act, run.doing) {
            (Act::Scan, Doing::Showing { .. } | Doing::WaitingForTypedCode { .. }) => {
                self.linked = true;
                run.doing = Doing::Connecting { until: now + SECOND / 2 };
                Fact::Linked
            }
            (Act::Disconnect(time), Doing::Connected) => {
                run.doing = Doing::Away { until: now + time };
                Fact::Disconnected
            }
            (Act::Scan | Act::Disconnect(_), _) => return false,
            (Act::Unlink, _) => Fact::LoggedOut,
            (Act::Limit(code), _) => Fact::Limited(code),
        };
        let number = run.number;
        self.said.push_back((number, fact));
        if act == Act::Unlink {
            self.run = None;
        }
        true
    }

    /// A run tells something out of the blue.
    pub(crate) fn whisper(&mut self, number: u64, fact: Fact) {
        self.whispered.push_back((number, fact));
        if fact.ends_its_run() {
            self.halt(number);
        }
    }

    /// When something happens by itself; at once if somebody has not been heard yet.
    pub(crate) fn wakes(&self) -> Option<Millis> {
        if !self.said.is_empty() || !self.whispered.is_empty() {
            return Some(0);
        }
        self.run.and_then(|run| run.doing.until())
    }

    /// What was told up to now, in the order in which it is heard.
    pub(crate) fn listen(&mut self, now: Millis) -> Vec<(u64, Fact)> {
        while let Some(run) = &mut self.run
            && let Some(until) = run.doing.until()
            && until <= now
        {
            let (number, doing) = (run.number, run.doing);
            let fact = match doing {
                // The first code stands for a minute, the five that follow for 20 seconds each.
                Doing::Showing { code, .. } if code < 6 => {
                    run.doing = Doing::Showing { code: code + 1, until: until + 20 * SECOND };
                    Fact::Code(How::Qr, until + 20 * SECOND)
                }
                Doing::Showing { .. } | Doing::WaitingForTypedCode { .. } => Fact::Exhausted,
                Doing::Connecting { .. } | Doing::Away { .. } => {
                    run.doing = Doing::Connected;
                    Fact::Connected
                }
                Doing::Unlinking { .. } | Doing::Connected => Fact::Unlinked(true),
            };
            if fact.ends_its_run() {
                self.run = None;
            }
            self.said.push_back((number, fact));
        }
        self.whispered.drain(..).chain(self.said.drain(..)).collect()
    }
}

impl Doing {
    fn until(self) -> Option<Millis> {
        match self {
            Self::Showing { until, .. }
            | Self::WaitingForTypedCode { until }
            | Self::Connecting { until }
            | Self::Away { until }
            | Self::Unlinking { until } => Some(until),
            Self::Connected => None,
        }
    }
}
