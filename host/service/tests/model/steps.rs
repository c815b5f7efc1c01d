//! What can happen in a sequence, and sequences of it by a seed.
//!
//! A step names sessions and tokens by small numbers that are taken modulo those there are, so that a sequence stays one when
//! steps are dropped from it.

use std::fmt;

/// The model's times are milliseconds from the beginning of the sequence.
pub(crate) type Millis = u64;

pub(crate) const SECOND: Millis = 1_000;
pub(crate) const MINUTE: Millis = 60 * SECOND;
pub(crate) const HOUR: Millis = 60 * MINUTE;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A key that may do everything an organisation can.
    Owner,
    /// Another key, which may manage and send.
    Clerk,
    /// A key that may only look.
    Reader,
    /// A key of another organisation.
    Stranger,
    /// Whoever has the token of the first session, and may see nothing else.
    Holder,
}

impl Caller {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Owner => "the owner",
            Self::Clerk => "the clerk",
            Self::Reader => "the reader",
            Self::Stranger => "the stranger",
            Self::Holder => "the holder",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Create {
        start: bool,
        held: bool,
    },
    Start {
        pair: bool,
    },
    Stop,
    Restart {
        pair: bool,
        connect: bool,
    },
    Logout {
        connect: bool,
    },
    /// With the how-manieth token that was given out, and whether what is typed is right.
    Delete {
        token: Option<(u8, bool)>,
    },
    Restore,
    Qr,
    PairingCode {
        switch: bool,
    },
    /// Puts under a legal hold, or takes out of it.
    Hold(bool),
    RatePolicy(&'static str),
    /// Sends, under one of a few idempotency keys if any.
    Send {
        key: Option<u8>,
    },
}

impl Ask {
    /// The operation's name, as the audit has it.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Create { .. } => "session.create",
            Self::Start { .. } => "session.start",
            Self::Stop => "session.stop",
            Self::Restart { .. } => "session.restart",
            Self::Logout { .. } => "session.logout",
            Self::Delete { .. } => "session.delete",
            Self::Restore => "session.restore",
            Self::Qr => "session.qr",
            Self::PairingCode { .. } => "session.pairing-code",
            Self::Hold(_) => "session.labels",
            Self::RatePolicy(_) => "session.rate-policy",
            Self::Send { .. } => "message.send",
        }
    }
}

/// A policy that can be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `grace-delete` with this grace; a legal hold vetoes.
    Grace(Millis),
    /// `confirm-delete`: type the session's name.
    Confirm,
    /// `delete-quota`: two a minute, three an hour.
    Quota,
    /// Denies this operation.
    Deny(&'static str),
    /// Puts every delete off by so much, also one that is due.
    PutOff(Millis),
    /// Chooses the strict rate policy whenever a session is stopped.
    Tighten,
}

/// What a phone or a network does, through the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Scan,
    Unlink,
    Disconnect(Millis),
    Limit(&'static str),
}

/// A fact that some run tells, whether it fits or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    Code(How, Millis),
    Passkey,
    Exhausted,
    Linked,
    Connected,
    Disconnected,
    LoggedOut,
    /// There is no device to unlink.
    NotLinked,
    /// The device is unlinked, and whether WhatsApp has confirmed it.
    Unlinked(bool),
    /// The run ended for good, for this reason.
    Ended(&'static str),
    Limited(&'static str),
    /// There is no such run. Only reconciliation says so.
    Lost,
}

impl Fact {
    /// Whether a run that tells it is over.
    pub(crate) fn ends_its_run(self) -> bool {
        matches!(
            self,
            Self::Exhausted | Self::LoggedOut | Self::NotLinked | Self::Unlinked(_) | Self::Ended(_) | Self::Lost
        )
    }
}

/// How a session is being linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Qr,
    Code,
    Passkey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Ask(Caller, u8, Ask),
    /// The process is killed while it does this, after so many turns of its task.
    Killed(u8, Ask, u8),
    /// The process is killed while it does what is due, after so many rounds of its tasks.
    KilledWorking(u8),
    /// The process is killed, and is away for so long.
    Crash(Millis),
    Act(u8, Act),
    /// A run, so many before the last one, tells something.
    Tell(u8, u8, Fact),
    Bind(Rule),
    /// Takes away the how-manieth binding.
    Unbind(u8),
    /// Everything that is due now is done.
    Settle,
    Pass(Millis),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(caller, _, ask @ Ask::Create { .. }) => write!(f, "{} asks for {ask:?}", caller.word()),
            Self::Ask(caller, session, ask) => write!(f, "{} asks for {ask:?} of session {session}", caller.word()),
            Self::Killed(session, ask, turns) => {
                write!(f, "the process dies {turns} turns into {ask:?} of session {session}, and starts again")
            }
            Self::KilledWorking(turns) => {
                write!(f, "the process dies {turns} rounds into doing what is due, and starts again")
            }
            Self::Crash(away) => write!(f, "the process dies, and starts again {away} ms later"),
            Self::Act(session, act) => write!(f, "the phone of session {session}: {act:?}"),
            Self::Tell(session, back, fact) => write!(f, "a run of session {session}, {back} ago, tells {fact:?}"),
            Self::Bind(rule) => write!(f, "{rule:?} is bound"),
            Self::Unbind(which) => write!(f, "binding {which} is taken away"),
            Self::Settle => f.write_str("what is due is done"),
            Self::Pass(time) => write!(f, "{time} ms pass"),
        }
    }
}

/// A small generator of numbers (SplitMix64): the same seed gives the same sequence on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u8) -> u8 {
        u8::try_from(self.next() % u64::from(bound)).unwrap()
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.below(u8::try_from(choices.len()).unwrap()))]
    }
}

/// The sequence of a seed.
pub(crate) fn sequence(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let mut steps = Vec::new();
    for _ in 0..dice.below(3) {
        steps.push(Step::Bind(rule(&mut dice)));
    }
    // Most sessions are worth something only once they are connected.
    for session in 0..=dice.below(2) {
        steps.push(Step::Ask(Caller::Owner, session, Ask::Create { start: dice.yes(), held: false }));
        if dice.below(3) > 0 {
            let scan = Step::Act(session, Act::Scan);
            steps.extend([Step::Ask(Caller::Owner, session, Ask::Start { pair: true }), scan]);
            steps.push(dice.of(&[Step::Settle, Step::Pass(SECOND)]));
        }
    }
    for _ in 0..=dice.below(12) {
        steps.push(step(&mut dice));
    }
    steps
}

fn step(dice: &mut Dice) -> Step {
    let session = dice.below(3);
    match dice.below(32) {
        0..=13 => {
            let caller = match dice.below(12) {
                0..=5 => Caller::Owner,
                6..=8 => Caller::Clerk,
                9 => Caller::Holder,
                10 => Caller::Reader,
                _ => Caller::Stranger,
            };
            Step::Ask(caller, session, ask(dice))
        }
        14..=15 => Step::Killed(session, ask(dice), dice.below(7)),
        16 => Step::KilledWorking(dice.below(250)),
        17 => Step::Crash(dice.of(&[0, 0, 700, 90 * SECOND, HOUR])),
        18..=20 => Step::Act(session, act(dice)),
        21..=22 => Step::Tell(session, dice.of(&[0, 0, 1, 2]), fact(dice)),
        23..=24 => Step::Bind(rule(dice)),
        25 => Step::Unbind(dice.below(3)),
        26..=27 => Step::Settle,
        _ => Step::Pass(dice.of(&[150, 300, SECOND, SECOND, 6 * SECOND, 35 * SECOND, 61 * SECOND, 400 * SECOND, HOUR])),
    }
}

fn ask(dice: &mut Dice) -> Ask {
    match dice.below(24) {
        0..=1 => Ask::Create { start: dice.yes(), held: dice.below(4) == 0 },
        2..=3 => Ask::Start { pair: dice.yes() },
        4 => Ask::Stop,
        5 => Ask::Restart { pair: dice.yes(), connect: dice.yes() },
        6..=7 => Ask::Logout { connect: dice.yes() },
        8..=12 => {
            let token = (dice.below(3) == 0).then(|| (dice.below(2), dice.below(4) > 0));
            Ask::Delete { token }
        }
        13..=15 => Ask::Restore,
        16 => Ask::Qr,
        17..=18 => Ask::PairingCode { switch: dice.yes() },
        19 => Ask::Hold(dice.below(3) > 0),
        20 => Ask::RatePolicy(dice.of(&["strict", "standard_policy", "high_throughput", "unlimited"])),
        _ => Ask::Send { key: dice.yes().then(|| dice.below(2)) },
    }
}

fn act(dice: &mut Dice) -> Act {
    match dice.below(8) {
        0..=3 => Act::Scan,
        4 => Act::Unlink,
        5..=6 => Act::Disconnect(dice.of(&[2 * SECOND, 400 * SECOND])),
        _ => Act::Limit(dice.of(&["463", "429"])),
    }
}

fn fact(dice: &mut Dice) -> Fact {
    match dice.below(13) {
        0 => Fact::Passkey,
        1 => Fact::Exhausted,
        2 => Fact::Linked,
        3..=4 => Fact::Connected,
        5..=6 => Fact::Disconnected,
        7 => Fact::LoggedOut,
        8 => Fact::Unlinked(dice.yes()),
        9 => Fact::Limited(dice.of(&["463", "429"])),
        10 => Fact::NotLinked,
        _ => Fact::Ended(dice.of(&[
            "banned",
            "replaced",
            "client-outdated",
            "connection-refused",
            "unreachable",
            "proxy-unreachable",
        ])),
    }
}

fn rule(dice: &mut Dice) -> Rule {
    match dice.below(10) {
        0..=2 => Rule::Grace(dice.of(&[30 * SECOND, HOUR / 2])),
        3..=4 => Rule::Confirm,
        5 => Rule::Quota,
        6..=7 => Rule::Deny(dice.of(&[
            "session.create",
            "session.start",
            "session.stop",
            "session.delete",
            "session.restore",
            "message.send",
        ])),
        8 => Rule::PutOff(dice.of(&[1, 90 * SECOND])),
        _ => Rule::Tighten,
    }
}
