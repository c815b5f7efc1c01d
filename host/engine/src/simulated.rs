//! The simulated engine: sessions that pair, connect, send and break without WhatsApp.
//!
//! It is deterministic: what it does is a function of the commands, the simulator's controls and the times it is given.
//! QR codes rotate as WhatsApp's do: the first lives 60 s, each of the next five 20 s, then pairing has failed.
//! Nothing here speaks to a network, and every code it issues says that it is simulated.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_core::operation::Presence;
use portcullis_core::session::{AccountLimit, PairingCode, PairingMethod};
use portcullis_core::{
    Attempt, Device, DeviceChange, DeviceStore, DeviceStoreError, EngineFact, Fact, OrgId, Secret, SessionId, Timestamp,
};
use tokio::sync::Notify;

use crate::{Command, Engine, IncomingText, NumberCheck, OutgoingText, Report, ReportBody, SendError, Sent, Task};

/// How long the first QR code lives.
pub const FIRST_QR: Duration = Duration::from_secs(60);
/// How long each of the next QR codes lives.
pub const NEXT_QR: Duration = Duration::from_secs(20);
/// How many QR codes one pairing gets.
pub const QR_CODES: u32 = 6;
/// How long a pairing code lives.
pub const PAIRING_CODE: Duration = Duration::from_secs(160);
/// How long the simulated network takes to connect.
pub const CONNECT: Duration = Duration::from_millis(500);
/// How long the simulated network takes to come back by itself.
pub const RECONNECT: Duration = Duration::from_secs(2);
/// How long the simulated WhatsApp takes to unlink a device.
pub const UNLINK: Duration = Duration::from_millis(200);
/// Of which kind the row of a linked device is. The real driver's kinds begin with 1.
const DEVICE_KIND: u8 = 0;
/// What that row is called.
const DEVICE_NAME: &[u8] = b"simulated-device";

/// The simulated engine.
pub struct Simulated {
    devices: Arc<dyn DeviceStore>,
    state: Mutex<State>,
    changed: Notify,
}

/// Why a control of the simulator did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimulatorError {
    /// The session has no engine run.
    #[error("the session has no running engine; start it first")]
    NotRunning,
    /// The session is not waiting to be linked.
    #[error("the session is not waiting to be linked")]
    NotPairing,
    /// The session is not connected.
    #[error("the session is not connected")]
    NotConnected,
    /// The link could not be stored.
    #[error("the simulated device could not be stored")]
    Store(#[source] DeviceStoreError),
}

#[derive(Default)]
struct State {
    runs: BTreeMap<SessionId, Run>,
    reports: VecDeque<Report>,
    messages: u64,
}

struct Run {
    org: OrgId,
    attempt: Attempt,
    phase: Phase,
}

enum Phase {
    /// A QR code is shown; `number` counts from 1.
    Qr {
        number: u32,
        next_at: Timestamp,
    },
    /// A code waits to be typed.
    Code {
        ends_at: Timestamp,
    },
    Connecting {
        at: Timestamp,
    },
    Online,
    Offline {
        back_at: Timestamp,
    },
    Unlinking {
        at: Timestamp,
    },
}

impl Phase {
    fn next_at(&self) -> Option<Timestamp> {
        match self {
            Self::Qr { next_at, .. } => Some(*next_at),
            Self::Code { ends_at } => Some(*ends_at),
            Self::Connecting { at } | Self::Unlinking { at } => Some(*at),
            Self::Offline { back_at } => Some(*back_at),
            Self::Online => None,
        }
    }
}

impl Simulated {
    /// An engine that keeps its devices in `devices`.
    #[must_use]
    pub fn new(devices: Arc<dyn DeviceStore>) -> Self {
        Self { devices, state: Mutex::default(), changed: Notify::new() }
    }

    /// The phone scans the QR code, or types the code: the session is linked to `phone` and connects.
    /// Blocks until the device is stored.
    ///
    /// # Errors
    /// If the session does not wait to be linked, or the device cannot be stored.
    pub fn scan(&self, session: SessionId, phone: Option<&str>, now: Timestamp) -> Result<(), SimulatorError> {
        let (org, attempt) = {
            let state = self.state();
            let run = state.runs.get(&session).ok_or(SimulatorError::NotRunning)?;
            if !matches!(run.phase, Phase::Qr { .. } | Phase::Code { .. }) {
                return Err(SimulatorError::NotPairing);
            }
            (run.org, run.attempt)
        };
        let phone = phone.map_or_else(|| made_up_phone(session), str::to_owned);
        let put =
            DeviceChange::Put { kind: DEVICE_KIND, name: DEVICE_NAME.to_vec(), value: phone.clone().into_bytes() };
        self.devices.write(org, session, vec![put]).map_err(SimulatorError::Store)?;
        let device =
            Device { jid: format!("{phone}@s.whatsapp.net"), lid: None, push_name: Some("Simulated phone".to_owned()) };
        let mut state = self.state();
        // The run may have been halted while the device was being stored; then nobody wants to hear of it.
        let Some(run) = state.runs.get_mut(&session).filter(|run| run.attempt == attempt) else {
            return Err(SimulatorError::NotRunning);
        };
        run.phase = Phase::Connecting { at: now.after(CONNECT) };
        self.report(&mut state, org, session, attempt, Fact::Linked { device });
        Ok(())
    }

    /// The phone unlinks the device.
    ///
    /// # Errors
    /// If the session has no run.
    pub fn unlink(&self, session: SessionId) -> Result<(), SimulatorError> {
        self.end(session, Fact::LoggedOut)
    }

    /// The connection is lost and comes back after `outage`.
    ///
    /// # Errors
    /// If the session is not connected.
    pub fn disconnect(&self, session: SessionId, outage: Duration, now: Timestamp) -> Result<(), SimulatorError> {
        let mut state = self.state();
        let run = state.runs.get_mut(&session).ok_or(SimulatorError::NotRunning)?;
        if !matches!(run.phase, Phase::Online) {
            return Err(SimulatorError::NotConnected);
        }
        run.phase = Phase::Offline { back_at: now.after(outage) };
        let (org, attempt) = (run.org, run.attempt);
        self.report(&mut state, org, session, attempt, Fact::Disconnected);
        Ok(())
    }

    /// Somebody writes to the session's account.
    ///
    /// # Errors
    /// If the session is not connected.
    pub fn receive_text(
        &self,
        session: SessionId,
        from: &str,
        text: &str,
        now: Timestamp,
    ) -> Result<(), SimulatorError> {
        let mut state = self.state();
        let run = state.runs.get(&session).ok_or(SimulatorError::NotRunning)?;
        if !matches!(run.phase, Phase::Online) {
            return Err(SimulatorError::NotConnected);
        }
        let org = run.org;
        let id = next_message_id(&mut state, session);
        let (from, text) = (from.to_owned(), text.to_owned());
        let body = ReportBody::TextIn(IncomingText { id, from, sender: None, name: None, at: now, text });
        state.reports.push_back(Report { org, session, body });
        self.changed.notify_one();
        Ok(())
    }

    /// WhatsApp limits the account.
    ///
    /// # Errors
    /// If the session has no run.
    pub fn limit(&self, session: SessionId, code: &str, now: Timestamp) -> Result<(), SimulatorError> {
        let mut state = self.state();
        let run = state.runs.get(&session).ok_or(SimulatorError::NotRunning)?;
        let limit = AccountLimit { code: code.to_owned(), until: None, since: now };
        let (org, attempt) = (run.org, run.attempt);
        self.report(&mut state, org, session, attempt, Fact::Limited { limit });
        Ok(())
    }

    fn end(&self, session: SessionId, fact: Fact) -> Result<(), SimulatorError> {
        let mut state = self.state();
        let run = state.runs.remove(&session).ok_or(SimulatorError::NotRunning)?;
        self.report(&mut state, run.org, session, run.attempt, fact);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and a half-made change could not be told from a whole one anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn online(&self, session: SessionId, attempt: Attempt) -> Result<(), SendError> {
        match self.state().runs.get(&session) {
            Some(Run { attempt: current, phase: Phase::Online, .. }) if *current == attempt => Ok(()),
            _ => Err(SendError::NotConnected),
        }
    }

    fn is_unlinking(&self, session: SessionId, attempt: Attempt) -> bool {
        let state = self.state();
        let run = state.runs.get(&session);
        run.is_some_and(|run| run.attempt == attempt && matches!(run.phase, Phase::Unlinking { .. }))
    }

    fn report(&self, state: &mut State, org: OrgId, session: SessionId, attempt: Attempt, fact: Fact) {
        let body = ReportBody::Fact(EngineFact { attempt, fact });
        state.reports.push_back(Report { org, session, body });
        self.changed.notify_one();
    }

    fn begin(&self, org: OrgId, session: SessionId, attempt: Attempt, phase: Phase) {
        let mut state = self.state();
        // Commands of two commits can arrive in the wrong order; an older run never replaces a newer one.
        if state.runs.get(&session).is_none_or(|run| run.attempt <= attempt) {
            state.runs.insert(session, Run { org, attempt, phase });
        }
        self.changed.notify_one();
    }

    /// Forgets the device. A store that fails here leaves rows that a start would find and an erasure removes;
    /// the lifecycle's own record, that nothing is linked, stands either way.
    fn forget(&self, org: OrgId, session: SessionId) {
        let _ = self.devices.write(org, session, vec![DeviceChange::Clear]);
    }

    fn move_on(&self, state: &mut State, session: SessionId) {
        let Some(run) = state.runs.get_mut(&session) else { return };
        let (org, attempt) = (run.org, run.attempt);
        let fact = match run.phase {
            Phase::Qr { number, next_at } if number < QR_CODES => {
                let (number, expires_at) = (number + 1, next_at.after(NEXT_QR));
                run.phase = Phase::Qr { number, next_at: expires_at };
                Some(qr_code(session, attempt, number, expires_at))
            }
            Phase::Qr { .. } | Phase::Code { .. } => {
                state.runs.remove(&session);
                Some(Fact::CodesExhausted)
            }
            Phase::Connecting { .. } | Phase::Offline { .. } => {
                run.phase = Phase::Online;
                Some(Fact::Connected)
            }
            Phase::Unlinking { .. } => {
                state.runs.remove(&session);
                Some(Fact::Unlinked { confirmed: true })
            }
            Phase::Online => None,
        };
        if let Some(fact) = fact {
            let body = ReportBody::Fact(EngineFact { attempt, fact });
            state.reports.push_back(Report { org, session, body });
        }
    }
}

impl Engine for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn perform(&self, Command { org, session, task }: Command, now: Timestamp) {
        match task {
            Task::Launch { attempt, .. } => match self.devices.read(org, session, DEVICE_KIND, DEVICE_NAME) {
                Ok(Some(_)) => self.begin(org, session, attempt, Phase::Connecting { at: now.after(CONNECT) }),
                // WhatsApp answers 401 to credentials that it does not know.
                Ok(None) | Err(_) => self.report(&mut self.state(), org, session, attempt, Fact::LoggedOut),
            },
            Task::Pair { attempt, phone: None, .. } => {
                let next_at = now.after(FIRST_QR);
                self.begin(org, session, attempt, Phase::Qr { number: 1, next_at });
                self.report(&mut self.state(), org, session, attempt, qr_code(session, attempt, 1, next_at));
            }
            Task::Pair { attempt, phone: Some(_), .. } => {
                let ends_at = now.after(PAIRING_CODE);
                self.begin(org, session, attempt, Phase::Code { ends_at });
                let code =
                    PairingCode { text: Secret::new(typed_code(session, attempt)), expires_at: ends_at, ordinal: 0 };
                let fact = Fact::CodeIssued { method: PairingMethod::Code, code };
                self.report(&mut self.state(), org, session, attempt, fact);
            }
            Task::Halt { attempt } => {
                let mut state = self.state();
                if state.runs.get(&session).is_some_and(|run| run.attempt == attempt) {
                    state.runs.remove(&session);
                }
            }
            Task::Unlink { attempt, .. } => match self.devices.read(org, session, DEVICE_KIND, DEVICE_NAME) {
                Ok(Some(_)) => {
                    self.forget(org, session);
                    self.begin(org, session, attempt, Phase::Unlinking { at: now.after(UNLINK) });
                }
                // A run that unlinks already has forgotten it, and goes on.
                Ok(None) if self.is_unlinking(session, attempt) => {}
                Ok(None) | Err(_) => {
                    let mut state = self.state();
                    state.runs.retain(|of, run| *of != session || run.attempt > attempt);
                    self.report(&mut state, org, session, attempt, Fact::NotLinked);
                }
            },
            // Nobody is there who could see a difference.
            Task::Configure { .. } => {}
            Task::Forget => self.forget(org, session),
        }
    }

    fn runs(&self) -> Vec<(SessionId, Attempt)> {
        self.state().runs.iter().map(|(session, run)| (*session, run.attempt)).collect()
    }

    fn run(&self, session: SessionId) -> Option<Attempt> {
        self.state().runs.get(&session).map(|run| run.attempt)
    }

    fn poll(&self, now: Timestamp) -> Vec<Report> {
        let mut state = self.state();
        loop {
            // In the order of their times, so that a long step of the clock tells the same story as many short ones.
            let due = state.runs.iter().filter_map(|(session, run)| Some((run.phase.next_at()?, *session))).min();
            match due {
                Some((at, session)) if at <= now => self.move_on(&mut state, session),
                _ => return state.reports.drain(..).collect(),
            }
        }
    }

    fn next_wake(&self) -> Option<Timestamp> {
        let state = self.state();
        if !state.reports.is_empty() {
            return Some(Timestamp::default());
        }
        state.runs.values().filter_map(|run| run.phase.next_at()).min()
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.changed.notified())
    }

    fn send_text(
        &self,
        session: SessionId,
        attempt: Attempt,
        text: OutgoingText,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<Sent, SendError>> + Send + '_>> {
        Box::pin(async move {
            let mut state = self.state();
            match state.runs.get(&session) {
                Some(Run { attempt: current, phase: Phase::Online, .. }) if *current == attempt => {
                    if is_unknown(&text.to) {
                        return Err(SendError::UnknownRecipient);
                    }
                    Ok(Sent { id: next_message_id(&mut state, session), at: now })
                }
                _ => Err(SendError::NotConnected),
            }
        })
    }

    fn check_numbers(
        &self,
        session: SessionId,
        attempt: Attempt,
        numbers: Vec<String>,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<NumberCheck>, SendError>> + Send + '_>> {
        Box::pin(async move {
            self.online(session, attempt)?;
            let check = |number: String| {
                let jid = (!is_unknown(&number)).then(|| format!("{number}@s.whatsapp.net"));
                NumberCheck { number, jid }
            };
            Ok(numbers.into_iter().map(check).collect())
        })
    }

    fn show_presence(
        &self,
        session: SessionId,
        attempt: Attempt,
        _chat: Option<String>,
        _presence: Presence,
    ) -> Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + '_>> {
        // Nobody is there to see it.
        Box::pin(async move { self.online(session, attempt) })
    }

    fn simulator(&self) -> Option<&Simulated> {
        Some(self)
    }
}

/// The simulated WhatsApp knows every account and group but those whose numbers end in four zeros.
fn is_unknown(jid: &str) -> bool {
    jid.split('@').next().is_some_and(|user| user.ends_with("0000"))
}

fn qr_code(session: SessionId, attempt: Attempt, number: u32, expires_at: Timestamp) -> Fact {
    let text = format!("2@simulated,{session},{},{number}", attempt.number());
    Fact::CodeIssued {
        method: PairingMethod::Qr,
        code: PairingCode { text: Secret::new(text), expires_at, ordinal: 0 },
    }
}

/// Eight characters of the alphabet in which nothing looks like something else, as `ABCD-1234`.
fn typed_code(session: SessionId, attempt: Attempt) -> String {
    const ALPHABET: &[u8; 32] = b"123456789ABCDEFGHJKLMNPQRSTVWXYZ";
    let mut bits = scramble(low_bits(session) ^ attempt.number());
    let mut character = || {
        let index = (bits & 31) as usize;
        bits >>= 5;
        char::from(ALPHABET[index])
    };
    let first: String = (0..4).map(|_| character()).collect();
    let second: String = (0..4).map(|_| character()).collect();
    format!("{first}-{second}")
}

fn made_up_phone(session: SessionId) -> String {
    format!("62800{:08}", scramble(low_bits(session)) % 100_000_000)
}

fn next_message_id(state: &mut State, session: SessionId) -> String {
    state.messages += 1;
    format!("3EB0{:016X}", scramble(low_bits(session) ^ state.messages.rotate_left(32)))
}

fn low_bits(session: SessionId) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = session.to_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The finaliser of SplitMix64: different inputs give different outputs that look unrelated.
fn scramble(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod test;
