//! One call of one plugin: a fresh store and instance, bounded in every direction, and dropped afterwards.
//!
//! Three things can stop a guest, and the first is meant to. Fuel is counted by the instructions that it executes, so it ends a spin at the same place every time.
//! The deadline is an outer cap on wall time: the guest yields at every tick of the engine's epoch, and the clock is looked at then.
//! Refused memory does not stop it; what it does about that usually does.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use portcullis_core::{BindingId, Grant, HostRule, OrgId, PluginFailure, PluginId, Timestamp};
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, TypedFunc};
use wasmtime::{ResourceLimiter, Store};

use crate::bindings::portcullis::policy::describe::Description;
use crate::bindings::portcullis::policy::pace::Pacing;
use crate::bindings::portcullis::policy::settings::Problem;
use crate::bindings::portcullis::policy::types;
use crate::convert::context::Context;
use crate::failure::{Unrecorded, classify};
use crate::imports::http::QueuedRequest;
use crate::imports::kv::KvBuffer;
use crate::imports::log::Log;
use crate::imports::reads::{Reads, Source};
use crate::imports::wasi::Wasi;
use crate::loaded::Plugin;
use crate::permits::Permit;
use crate::slices::Turns;
use crate::{ClassBounds, Runtime, machine};

/// The longest wall time that a binding can give one call inside a request.
const LONGEST_GATE: Duration = Duration::from_secs(2);
/// How many bytes a guest can hand to the host at a time, in an answer or in a call.
const OUTPUT_BYTES: usize = 64 << 10;
/// How many more if it may send requests: what a request has besides its body, and enough to be told that it is too large.
const REQUEST_BYTES: usize = 64 << 10;

/// What is asked of a guest. The context is a record of the contract's, in whichever of its forms.
#[derive(Clone, Copy)]
pub(crate) enum Question<'a, C> {
    Describe,
    Validate(&'a str),
    Before(&'a C, &'a types::Operation),
    After(&'a C, &'a types::Operation, &'a types::Outcome),
    OnEvent(&'a C, &'a types::Event),
    Fired(&'a C, &'a str, &'a str),
    Limits(&'a C, types::Usage),
}

/// A question as the host asks it.
pub(crate) type Asked<'a> = Question<'a, Context>;

/// What it said.
pub(crate) enum Reply {
    Described(Description),
    Validated(Result<(), Vec<Problem>>),
    Decided(types::Decision),
    FollowUps(Vec<types::FollowUp>),
    Paced(Option<Pacing>),
}

/// What a call may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) fuel: u64,
    pub(crate) wall: Duration,
}

impl Budget {
    /// For calls inside a request; a binding may have a wall time of its own.
    pub(crate) fn gate(bounds: &ClassBounds, wall_millis: Option<u32>) -> Self {
        let own = wall_millis.map(|millis| Duration::from_millis(millis.into()).min(LONGEST_GATE));
        Self { fuel: bounds.gate_fuel, wall: own.unwrap_or(bounds.gate_wall) }
    }

    /// For calls off the request path.
    pub(crate) fn background(bounds: &ClassBounds) -> Self {
        Self { fuel: bounds.background_fuel, wall: bounds.background_wall }
    }

    /// For a call that was made inside a request and is made again off its path: fuel decides, and the clock is as patient as it can be.
    pub(crate) fn again(bounds: &ClassBounds) -> Self {
        Self { fuel: bounds.gate_fuel, wall: bounds.background_wall.max(LONGEST_GATE) }
    }
}

/// A call that has ended.
pub(crate) struct Called {
    pub(crate) result: Result<Reply, PluginFailure>,
    /// If the function that was asked has another type than the contract's: which and how.
    pub(crate) mismatch: Option<String>,
    /// If the call was ended by a read that a record does not tell: which.
    pub(crate) unrecorded: Option<String>,
    pub(crate) fuel: u64,
    pub(crate) micros: u64,
    pub(crate) memory: u64,
    pub(crate) state: CallState,
}

/// What a store holds besides the instance: bounds, and what the imports read and write.
pub(crate) struct CallState {
    pub(crate) now: Timestamp,
    pub(crate) seed: u64,
    /// Whose call it is; none for calls that belong to no binding.
    pub(crate) bound: Option<Bound>,
    pub(crate) kv: KvBuffer,
    pub(crate) log: Log,
    pub(crate) reads: Reads,
    /// The requests that the call has queued; none where nothing may be sent.
    pub(crate) outbox: Option<Vec<QueuedRequest>>,
    /// Made when the guest first calls anything of WASI.
    pub(crate) wasi: Option<Box<Wasi>>,
    memory: Memory,
    /// How much the call may still have the host do.
    work: u32,
}

/// How much one call may have the host do, whatever its fuel: a kept key is 1, a page of sessions 100.
/// A call into the host costs a guest few instructions, so fuel alone would bound floods of them by the clock.
const HOST_WORK: u32 = 10_000;

/// The guest had the host do more than one call may. It counts as used-up fuel: the same call ends at the same place every time.
#[derive(Debug, thiserror::Error)]
#[error("the call had the host do too much")]
pub(crate) struct WorkSpent;

/// A binding's side of a call.
pub(crate) struct Bound {
    /// Whose plugin it is: its secrets are theirs.
    pub(crate) owner: OrgId,
    pub(crate) plugin: PluginId,
    pub(crate) binding: BindingId,
    pub(crate) grants: Vec<Grant>,
    /// To which hosts it may send requests.
    pub(crate) hosts: Vec<HostRule>,
    pub(crate) reads: Source,
}

impl CallState {
    pub(crate) fn new(bounds: &ClassBounds, now: Timestamp, seed: u64, bound: Option<Bound>) -> Self {
        Self {
            now,
            seed,
            bound,
            kv: KvBuffer::default(),
            log: Log::default(),
            reads: Reads::default(),
            outbox: None,
            wasi: None,
            work: HOST_WORK,
            memory: Memory { most: bounds.memory_bytes, held: 0, peak: 0, denied: false },
        }
    }

    /// The same for a call off the path of an operation, from which requests may be sent.
    pub(crate) fn that_may_send(mut self) -> Self {
        self.outbox = Some(Vec::new());
        self
    }

    /// How many bytes the guest can hand to the host at a time. A request is larger than anything else that it can say.
    fn output_bytes(&self) -> usize {
        let sends = self.outbox.is_some() && self.granted(Grant::Http).is_ok();
        if sends { OUTPUT_BYTES + REQUEST_BYTES } else { OUTPUT_BYTES }
    }

    /// Takes units of host work.
    pub(crate) fn spend(&mut self, units: u32) -> Result<(), WorkSpent> {
        self.work = self.work.checked_sub(units).ok_or(WorkSpent)?;
        Ok(())
    }

    /// The binding's side of the call if it grants `grant`.
    pub(crate) fn granted(&self, grant: Grant) -> Result<&Bound, types::HostError> {
        self.bound.as_ref().filter(|bound| bound.grants.contains(&grant)).ok_or(types::HostError::NotGranted)
    }
}

impl Runtime {
    /// Asks `plugin` on behalf of the permit's organisation.
    pub(crate) async fn call<C: Lower + Sync>(
        &self,
        permit: &Permit,
        plugin: &Plugin,
        state: CallState,
        budget: Budget,
        question: Question<'_, C>,
    ) -> Called {
        let turns = Turns::new(self.slices(), permit.org(), budget.wall);
        let _calling = self.ticker().tick();
        let output_bytes = state.output_bytes();
        let mut store = Store::new(self.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(output_bytes);
        // Both bounds are set before the instantiation, which may run code of the guest's.
        store.set_epoch_deadline(1);
        let at_tick = Arc::clone(&turns);
        store.epoch_deadline_callback(move |_| at_tick.at_tick());
        let outcome = match store.set_fuel(budget.fuel) {
            Ok(()) => {
                let asking = async {
                    turns.begin().await?;
                    ask(plugin, &mut store, question).await
                };
                let mut asking = pin!(asking);
                // Most calls end before the first tick, and need no timer.
                match poll_fn(|context| Poll::Ready(turns.poll(asking.as_mut(), context))).await {
                    Poll::Ready(outcome) => Ok(outcome),
                    Poll::Pending => {
                        tokio::task::yield_now().await;
                        let asking = poll_fn(|context| turns.poll(asking.as_mut(), context));
                        tokio::time::timeout(turns.longest(), asking).await
                    }
                }
            }
            Err(error) => Ok(Err(error)),
        };

        let fuel = budget.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let (mut mismatch, mut unrecorded) = (None, None);
        let result = match outcome {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                let failure = if let Some(Mismatched(why)) = error.downcast_ref() {
                    mismatch = Some(why.clone());
                    PluginFailure::Unavailable
                } else {
                    unrecorded = error.downcast_ref().map(|Unrecorded(read)| read.clone());
                    classify(&error, store.data().memory.denied)
                };
                store.data_mut().log.failure(failure, &error);
                Err(failure)
            }
            Err(_elapsed) => Err(turns.overdue()),
        };
        let mut state = store.into_data();
        if let Some(wasi) = &state.wasi {
            wasi.drain(&mut state.log);
        }
        Called {
            result,
            mismatch,
            unrecorded,
            fuel,
            micros: u64::try_from(turns.ran().as_micros()).unwrap_or(u64::MAX),
            memory: u64::try_from(state.memory.peak).unwrap_or(u64::MAX),
            state,
        }
    }
}

async fn ask<C: Lower + Sync>(
    plugin: &Plugin,
    store: &mut Store<CallState>,
    question: Question<'_, C>,
) -> wasmtime::Result<Reply> {
    let instance = plugin.pre.instantiate_async(&mut *store).await?;
    let at = Lookup { plugin, instance };
    Ok(match question {
        Question::Describe => {
            at.check_all::<C>(store)?;
            let (description,) = at.describe(store)?.call_async(store, ()).await?;
            Reply::Described(description)
        }
        Question::Validate(json) => {
            let (outcome,) = at.validate(store)?.call_async(store, (json,)).await?;
            Reply::Validated(outcome)
        }
        Question::Before(context, operation) => {
            let (decision,) = at.before(store)?.call_async(store, (context, operation)).await?;
            Reply::Decided(decision)
        }
        Question::After(context, operation, outcome) => {
            let (follow_ups,) = at.after(store)?.call_async(store, (context, operation, outcome)).await?;
            Reply::FollowUps(follow_ups)
        }
        Question::OnEvent(context, event) => {
            let (follow_ups,) = at.on_event(store)?.call_async(store, (context, event)).await?;
            Reply::FollowUps(follow_ups)
        }
        Question::Fired(context, key, payload) => {
            let (follow_ups,) = at.fired(store)?.call_async(store, (context, key, payload)).await?;
            Reply::FollowUps(follow_ups)
        }
        Question::Limits(context, usage) => {
            let (pacing,) = at.limits(store)?.call_async(store, (context, usage)).await?;
            Reply::Paced(pacing)
        }
    })
}

/// A function that the plugin does not export, or with another type than the contract's.
#[derive(Debug, thiserror::Error)]
#[error("a function of the contract is missing or has another type: {0}")]
struct Mismatched(String);

/// The functions of an instance, by the contract's types.
struct Lookup<'a> {
    plugin: &'a Plugin,
    instance: Instance,
}

type Contextual<'a, C, T> = (&'a C, T);
type FollowUps = (Vec<types::FollowUp>,);
type Found<P, R> = wasmtime::Result<TypedFunc<P, R>>;

impl Lookup<'_> {
    fn find<P, R>(&self, store: &mut Store<CallState>, name: &str, index: Option<&ComponentExportIndex>) -> Found<P, R>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let index = index.ok_or_else(|| Mismatched(format!("{name} is not exported")))?;
        let found = self.instance.get_typed_func(store, index);
        found.map_err(|error| Mismatched(format!("{name}: {}", crate::compile::short(&error))).into())
    }

    fn describe(&self, store: &mut Store<CallState>) -> Found<(), (Description,)> {
        self.find(store, "describe.describe", self.plugin.describe.as_ref())
    }

    fn validate<'b>(&self, store: &mut Store<CallState>) -> Found<(&'b str,), (Result<(), Vec<Problem>>,)> {
        self.find(store, "settings.validate", self.plugin.validate.as_ref())
    }

    fn before<'b, C: Lower>(
        &self,
        store: &mut Store<CallState>,
    ) -> Found<Contextual<'b, C, &'b types::Operation>, (types::Decision,)> {
        self.find(store, "gate.before", self.plugin.before.as_ref())
    }

    fn after<'b, C: Lower>(
        &self,
        store: &mut Store<CallState>,
    ) -> Found<(&'b C, &'b types::Operation, &'b types::Outcome), FollowUps> {
        self.find(store, "observer.after", self.plugin.after.as_ref())
    }

    fn on_event<'b, C: Lower>(
        &self,
        store: &mut Store<CallState>,
    ) -> Found<Contextual<'b, C, &'b types::Event>, FollowUps> {
        self.find(store, "observer.on-event", self.plugin.on_event.as_ref())
    }

    fn fired<'b, C: Lower>(&self, store: &mut Store<CallState>) -> Found<(&'b C, &'b str, &'b str), FollowUps> {
        self.find(store, "timer.fired", self.plugin.fired.as_ref())
    }

    fn limits<'b, C: Lower>(
        &self,
        store: &mut Store<CallState>,
    ) -> Found<Contextual<'b, C, types::Usage>, (Option<Pacing>,)> {
        self.find(store, "pace.limits", self.plugin.limits.as_ref())
    }

    /// Checks the type of everything that the plugin exports of the contract.
    fn check_all<C: Lower>(&self, store: &mut Store<CallState>) -> wasmtime::Result<()> {
        let Plugin { validate, before, after, on_event, fired, limits, .. } = self.plugin;
        self.describe(store)?;
        if validate.is_some() {
            self.validate(store)?;
        }
        if before.is_some() {
            self.before::<C>(store)?;
        }
        if after.is_some() || on_event.is_some() {
            self.after::<C>(store)?;
            self.on_event::<C>(store)?;
        }
        if fired.is_some() {
            self.fired::<C>(store)?;
        }
        if limits.is_some() {
            self.limits::<C>(store)?;
        }
        Ok(())
    }
}

/// Bounds the linear memory of all instances of a store together.
struct Memory {
    most: usize,
    held: usize,
    peak: usize,
    denied: bool,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let held = self.held.saturating_add(desired.saturating_sub(current));
        if held > self.most {
            self.denied = true;
            return Ok(false);
        }
        self.held = held;
        self.peak = self.peak.max(held);
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= machine::TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        usize::try_from(machine::CORE_INSTANCES).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(machine::TABLES).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(machine::MEMORIES).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_bindings_wall_time_stands_for_the_usual_one_up_to_the_hosts_bound() {
        let bounds = crate::RuntimeConfig::default().bounds(portcullis_core::PluginClass::Standard);
        let wall = |millis| Budget::gate(&bounds, millis).wall.as_millis();
        assert_eq!((wall(None), wall(Some(10)), wall(Some(2_000)), wall(Some(60_000))), (50, 10, 2_000, 2_000));
    }
}
