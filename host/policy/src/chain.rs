//! Chains: every link is asked in turn, each within its own bounds and all within the chain's.
//!
//! Nothing here errs. A plugin that is missing, fails or answers nonsense is an answer too, and folding decides what it means.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{
    Answer, Binding, BindingId, Decision, FollowUp, Hook, KvAccess, Mode, Operation, PluginFailure, PluginId,
    PolicyReads,
};
use serde_json::json;

use crate::bindings::portcullis::policy::types;
use crate::call::{Asked, Bound, Budget, CallState, Called, Reply};
use crate::convert::answer::{Broken, Teller};
use crate::convert::context::Context;
use crate::convert::{answer, ask};
use crate::imports::http::QueuedRequest;
use crate::imports::reads::{RECORD_BYTES, Read, Source};
use crate::loaded::Plugin;
use crate::{Ask, CONTRACT, ClassBounds, Event, Link, Outcome, PaceUsage, Pacing, Runtime, words};

/// What a chain of gates said.
pub struct ChainRun {
    /// One answer for each link that was asked, in the order of the chain.
    pub answers: Vec<Answer>,
    /// What the answers that count have read and written, each with its binding; the commit expects the former and applies the latter, in this order.
    pub kv: Vec<(BindingId, KvAccess)>,
    /// What the plugins logged.
    pub logs: Vec<LogLine>,
    context: Context,
    operation: types::Operation,
    told: Vec<Told>,
}

impl ChainRun {
    /// What the plugins saw, as a JSON document in the contract's words: context, operation, and each link's settings, grants and reads.
    /// [`RecordedInput`](crate::RecordedInput) takes it apart again. None if it is larger than is recorded (64 KiB); then the decision cannot be replayed.
    ///
    /// It has no credentials, but it has personal values: who keeps it seals it.
    #[must_use]
    pub fn input(&self) -> Option<String> {
        let mut links = Vec::with_capacity(self.told.len());
        for told in &self.told {
            let reads = told.reads.as_ref()?;
            links.push(json!({
                "position": told.position,
                "binding": told.binding.id,
                "shadow": told.shadow,
                "settings": told.binding.settings,
                "grants": told.binding.grants,
                "reads": words::to_json(reads),
            }));
        }
        let document = json!({
            "contract": CONTRACT,
            "context": words::to_json(&self.context),
            "operation": words::to_json(&self.operation),
            "links": links,
        });
        let text = document.to_string();
        (text.len() <= RECORD_BYTES).then_some(text)
    }
}

/// What one link was told.
struct Told {
    position: u32,
    shadow: bool,
    binding: Arc<Binding>,
    /// None if they are too large to be recorded.
    reads: Option<Vec<Read>>,
}

/// What an observer, or a timer's plugin, said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The binding that was told.
    pub binding: BindingId,
    /// Its plugin.
    pub plugin: PluginId,
    /// What is to follow.
    pub result: Result<Vec<FollowUp>, PluginFailure>,
    /// What it has read and written; empty if it failed or its answers do not count.
    pub kv: Vec<KvAccess>,
    /// The requests that it has queued; none if it failed or its answers do not count.
    pub requests: Vec<QueuedRequest>,
    /// What it logged.
    pub logs: Vec<LogLine>,
    /// Units of fuel used.
    pub fuel: u64,
    /// Microseconds of wall time used.
    pub micros: u64,
}

/// A line of a plugin's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Whose call logged it.
    pub binding: BindingId,
    /// The plugin.
    pub plugin: PluginId,
    /// How much it matters.
    pub level: LogLevel,
    /// The line, at most 1 KiB.
    pub message: String,
}

/// How much a line of a log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For the plugin's author.
    Debug,
    /// Worth knowing. Lines on stdout are.
    Info,
    /// Worth looking at. Lines on stderr are.
    Warn,
    /// Something failed; also the host's own line about a call that did.
    Error,
}

impl LogLevel {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl Runtime {
    /// Asks the gates of a chain about an operation, in turn.
    ///
    /// A link whose binding is off, or whose plugin exports no gate, is not asked and has no answer.
    /// A link that is suspended is not asked either, and answers [`PluginFailure::Suspended`].
    /// A plugin that is not at hand ([`Runtime::load`] it first) answers [`PluginFailure::Unavailable`].
    /// Time that is spent waiting for a place, or for a turn to compute, counts against no plugin.
    pub async fn gate(
        &self,
        links: &[Link],
        ask: &Ask,
        operation: &Operation,
        reads: Arc<dyn PolicyReads>,
    ) -> ChainRun {
        let mut run = ChainRun {
            answers: Vec::with_capacity(links.len()),
            kv: Vec::new(),
            logs: Vec::new(),
            context: ask::context(ask),
            operation: ask::operation(operation),
            told: Vec::with_capacity(links.len()),
        };
        let mut left = self.config().chain_wall;
        let mut permit = None;
        for link in links {
            let plugin = match self.asked(link, Hook::Gate, |plugin| plugin.before.is_some()) {
                None => continue,
                Some(Ok(plugin)) => plugin,
                Some(Err(failure)) => {
                    run.answers.push(unanswered(link, failure));
                    continue;
                }
            };
            if permit.is_none() {
                permit = self.permits().take(ask.org.id).await;
            }
            let place = match &permit {
                None => Err(PluginFailure::Overloaded),
                Some(_) if left.is_zero() => Err(PluginFailure::Deadline),
                Some(permit) => Ok(permit),
            };
            let permit = match place {
                Ok(permit) => permit,
                Err(failure) => {
                    run.answers.push(unanswered(link, failure));
                    continue;
                }
            };
            let bounds = self.config().bounds(link.version.class);
            let mut budget = Budget::gate(&bounds, link.binding.wall_millis);
            budget.wall = budget.wall.min(left);
            run.context.speak_to(&link.binding);
            let question = Asked::Before(&run.context, &run.operation);
            let called = self.call(permit, &plugin, state(&bounds, link, ask, &reads), budget, question).await;
            left = left.saturating_sub(Duration::from_micros(called.micros));
            run.take(link, ask, called);
        }
        run.context.speak_to_nobody();
        run
    }

    /// Tells the observers of a chain how an operation ended.
    pub async fn observe(
        &self,
        links: &[Link],
        ask: &Ask,
        operation: &Operation,
        outcome: &Outcome,
        reads: Arc<dyn PolicyReads>,
    ) -> Vec<Observed> {
        let mut context = ask::context(ask);
        let (operation, outcome) = (ask::operation(operation), ask::outcome(outcome));
        let mut observed = Vec::new();
        for link in links {
            context.speak_to(&link.binding);
            let question = Asked::After(&context, &operation, &outcome);
            observed
                .extend(self.tell(link, ask, &reads, question, Hook::Observer, |plugin| plugin.after.is_some()).await);
        }
        observed
    }

    /// Tells the observers of a chain about an event.
    pub async fn observe_event(
        &self,
        links: &[Link],
        ask: &Ask,
        event: &Event,
        reads: Arc<dyn PolicyReads>,
    ) -> Vec<Observed> {
        let mut context = ask::context(ask);
        let event = ask::event(event);
        let mut observed = Vec::new();
        for link in links {
            context.speak_to(&link.binding);
            let question = Asked::OnEvent(&context, &event);
            observed.extend(
                self.tell(link, ask, &reads, question, Hook::Observer, |plugin| plugin.on_event.is_some()).await,
            );
        }
        observed
    }

    /// Tells a plugin that a timer of its own is due. A plugin without timers, or a binding that is off, fails as unavailable.
    pub async fn fire_timer(
        &self,
        link: &Link,
        ask: &Ask,
        key: &str,
        payload: &str,
        reads: Arc<dyn PolicyReads>,
    ) -> Observed {
        let mut context = ask::context(ask);
        context.speak_to(&link.binding);
        let question = Asked::Fired(&context, key, payload);
        let told = self.tell(link, ask, &reads, question, Hook::Timer, |plugin| plugin.fired.is_some()).await;
        told.unwrap_or_else(|| unobserved(link, PluginFailure::Unavailable))
    }

    /// Asks a plugin for the rate limits of the context's session; none leaves them to the named policy.
    /// Writes that it makes meanwhile are dropped, because there is no commit for them.
    ///
    /// # Errors
    /// How the plugin failed.
    pub async fn pace(
        &self,
        link: &Link,
        ask: &Ask,
        usage: PaceUsage,
        reads: Arc<dyn PolicyReads>,
    ) -> Result<Option<Pacing>, PluginFailure> {
        let plugin = match self.asked(link, Hook::Pace, |plugin| plugin.limits.is_some()) {
            None => return Ok(None),
            Some(plugin) => plugin?,
        };
        let permit = self.permits().take(ask.org.id).await.ok_or(PluginFailure::Overloaded)?;
        let mut context = ask::context(ask);
        context.speak_to(&link.binding);
        let question = Asked::Limits(&context, ask::usage(usage));
        let bounds = self.config().bounds(link.version.class);
        let budget = Budget::gate(&bounds, link.binding.wall_millis);
        let called = self.call(&permit, &plugin, state(&bounds, link, ask, &reads), budget, question).await;
        match called.result? {
            Reply::Paced(pacing) => Ok(pacing.map(answer::pacing)),
            _ => Err(PluginFailure::BadOutput),
        }
    }

    /// The plugin of a link; none if it is not to be asked.
    fn asked(
        &self,
        link: &Link,
        hook: Hook,
        exports: fn(&Plugin) -> bool,
    ) -> Option<Result<Arc<Plugin>, PluginFailure>> {
        if link.binding.mode == Mode::Off || !link.version.exports.iter().any(|it| it == hook.interface()) {
            return None;
        }
        if link.suspended {
            return Some(Err(PluginFailure::Suspended));
        }
        match self.at_hand(&link.version.digest) {
            Some(plugin) => exports(&plugin).then_some(Ok(plugin)),
            None => Some(Err(PluginFailure::Unavailable)),
        }
    }

    async fn tell(
        &self,
        link: &Link,
        ask: &Ask,
        reads: &Arc<dyn PolicyReads>,
        question: Asked<'_>,
        hook: Hook,
        exports: fn(&Plugin) -> bool,
    ) -> Option<Observed> {
        let plugin = match self.asked(link, hook, exports)? {
            Ok(plugin) => plugin,
            Err(failure) => return Some(unobserved(link, failure)),
        };
        let Some(permit) = self.permits().take(ask.org.id).await else {
            return Some(unobserved(link, PluginFailure::Overloaded));
        };
        let bounds = self.config().bounds(link.version.class);
        let sending = state(&bounds, link, ask, reads).that_may_send();
        let called = self.call(&permit, &plugin, sending, Budget::background(&bounds), question).await;
        let Called { result, fuel, micros, mut state, .. } = called;
        let converted = result.and_then(|reply| match reply {
            Reply::FollowUps(follow_ups) => {
                teller(link, ask).follow_ups(follow_ups).map_err(|broken| bad_output(&mut state, broken))
            }
            _ => Err(PluginFailure::BadOutput),
        });
        let enforced = counts_for_something(link);
        let counts = enforced && converted.is_ok();
        Some(Observed {
            binding: link.binding.id,
            plugin: link.binding.plugin,
            // What a monitoring plugin or a shadow wants to follow is not done.
            result: converted.map(|follow_ups| if enforced { follow_ups } else { Vec::new() }),
            kv: if counts { state.kv.into_accesses(link.binding.plugin) } else { Vec::new() },
            requests: state.outbox.filter(|_| counts).unwrap_or_default(),
            logs: if link.shadow { Vec::new() } else { lines(link, state.log) },
            fuel,
            micros,
        })
    }
}

impl ChainRun {
    fn take(&mut self, link: &Link, ask: &Ask, called: Called) {
        let Called { result, fuel, micros, memory, mut state, .. } = called;
        let result = result.and_then(|reply| match reply {
            Reply::Decided(decision) => {
                teller(link, ask).decision(decision).map_err(|broken| bad_output(&mut state, broken))
            }
            _ => Err(PluginFailure::BadOutput),
        });
        if counts_for_something(link) && result.is_ok() {
            let accesses = state.kv.into_accesses(link.binding.plugin);
            self.kv.extend(accesses.into_iter().map(|access| (link.binding.id, access)));
        }
        if !link.shadow {
            self.logs.extend(lines(link, state.log));
        }
        self.told.push(Told {
            position: link.position,
            shadow: link.shadow,
            binding: Arc::clone(&link.binding),
            reads: state.reads.into_list(),
        });
        self.answers.push(Answer { fuel, micros, memory, ..answered(link, result) });
    }
}

/// Whether what the plugin does besides answering is done: not in monitor mode, and not in another version's shadow.
fn counts_for_something(link: &Link) -> bool {
    link.binding.mode == Mode::Enforce && !link.shadow
}

fn state(bounds: &ClassBounds, link: &Link, ask: &Ask, reads: &Arc<dyn PolicyReads>) -> CallState {
    let bound = Bound {
        owner: link.binding.org,
        plugin: link.binding.plugin,
        binding: link.binding.id,
        grants: link.binding.grants.clone(),
        hosts: link.binding.http_hosts.clone(),
        reads: Source::Live(Arc::clone(reads)),
    };
    CallState::new(bounds, ask.now, ask.seed, Some(bound))
}

fn teller<'a>(link: &'a Link, ask: &Ask) -> Teller<'a> {
    Teller { plugin: link.binding.plugin, grants: &link.binding.grants, now: ask.now }
}

pub(crate) fn bad_output(state: &mut CallState, broken: Broken) -> PluginFailure {
    state.log.failure(PluginFailure::BadOutput, &wasmtime::Error::new(broken));
    PluginFailure::BadOutput
}

fn lines(link: &Link, log: crate::imports::log::Log) -> Vec<LogLine> {
    let line = |(level, message)| LogLine { binding: link.binding.id, plugin: link.binding.plugin, level, message };
    log.into_lines().into_iter().map(line).collect()
}

fn answered(link: &Link, result: Result<Decision, PluginFailure>) -> Answer {
    let Link { position, binding, version, shadow, .. } = link;
    Answer {
        position: *position,
        binding: binding.id,
        owner: binding.org,
        plugin: binding.plugin,
        plugin_name: version.name.clone(),
        version: version.version,
        digest: version.digest,
        signer: version.signer,
        mode: binding.mode,
        shadow: *shadow,
        on_failure: binding.on_failure,
        result,
        fuel: 0,
        micros: 0,
        memory: 0,
    }
}

fn unanswered(link: &Link, failure: PluginFailure) -> Answer {
    answered(link, Err(failure))
}

fn unobserved(link: &Link, failure: PluginFailure) -> Observed {
    Observed {
        binding: link.binding.id,
        plugin: link.binding.plugin,
        result: Err(failure),
        kv: Vec::new(),
        requests: Vec::new(),
        logs: Vec::new(),
        fuel: 0,
        micros: 0,
    }
}
