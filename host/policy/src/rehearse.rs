//! Rehearsals: one call of one plugin whose inputs come as JSON in the contract's words.
//!
//! A replay asks a plugin what it would have answered to a decision of the past, a scan what it would answer about every session, and an author's test what it answers to a file.
//! All of them make the same call as live operations do, with the same fuel, and nothing that it answers is done.
//! Reads come from a snapshot, or from what the call of the past has recorded; then the answer is exact, or it is reported that it cannot be.

use std::sync::Arc;

use portcullis_core::{
    BindingId, Decision, FollowUp, Grant, HostRule, KvAccess, OrgId, PluginClass, PluginFailure, PluginId, PolicyReads,
    Timestamp,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bindings::portcullis::policy::{describe, types};
use crate::call::{Bound, Budget, CallState, Called, Question, Reply};
use crate::chain::bad_output;
use crate::convert::answer::{self, Teller};
use crate::imports::http::QueuedRequest;
use crate::imports::reads::{Recorded, Source};
use crate::loaded::Plugin;
use crate::{LogLevel, Pacing, Runtime, SettingsProblem, words};

/// A call to be made once more, or for the first time, without any consequence.
#[derive(Clone)]
pub struct Rehearsal<'a> {
    /// SHA-256 of the component, which must be at hand ([`Runtime::load`] it first).
    pub digest: [u8; 32],
    /// Whose bounds hold.
    pub class: PluginClass,
    /// Whose share of calls it takes.
    pub org: OrgId,
    /// Who owns the plugin: its secrets are theirs.
    pub owner: OrgId,
    /// The plugin: its keys and counters are its own.
    pub plugin: PluginId,
    /// What it may use.
    pub grants: &'a [Grant],
    /// To which hosts it may send requests. Nothing is sent.
    pub http_hosts: &'a [HostRule],
    /// What is asked.
    pub question: Script,
    /// Where its reads come from.
    pub reads: ReadsFrom,
}

/// What is asked in a rehearsal, in the contract's words.
#[derive(Debug, Clone, PartialEq)]
pub enum Script {
    /// `describe.describe`.
    Describe,
    /// `settings.validate`.
    Validate {
        /// The settings, a JSON document.
        settings: String,
    },
    /// `gate.before`.
    Before {
        /// The `context`.
        context: Value,
        /// The `operation`.
        operation: Value,
    },
    /// `observer.after`.
    After {
        /// The `context`.
        context: Value,
        /// The `operation`.
        operation: Value,
        /// The `outcome`.
        outcome: Value,
    },
    /// `observer.on-event`.
    OnEvent {
        /// The `context`.
        context: Value,
        /// The `event`.
        event: Value,
    },
    /// `timer.fired`.
    Fired {
        /// The `context`.
        context: Value,
        /// The timer's key.
        key: String,
        /// What it hands back.
        payload: String,
    },
    /// `pace.limits`.
    Limits {
        /// The `context`.
        context: Value,
        /// The `usage`.
        usage: Value,
    },
}

/// Where a rehearsal's reads come from.
#[derive(Clone)]
pub enum ReadsFrom {
    /// A snapshot.
    Live(Arc<dyn PolicyReads>),
    /// What an earlier call recorded: the `reads` of one link of a [`RecordedInput`].
    Recorded(Vec<Value>),
}

/// How a rehearsal went.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsed {
    /// What the plugin said, after the same checks as in a live call.
    pub result: Result<Said, PluginFailure>,
    /// What it said in the contract's words, also if that broke a bound; none if it said nothing.
    pub answer: Option<Value>,
    /// The read that ended the call, because the record does not tell it: what the plugin would have answered is not known.
    pub unrecorded: Option<String>,
    /// What it has read of its keys, and would have written.
    pub kv: Vec<KvAccess>,
    /// The requests that it would have sent.
    pub requests: Vec<QueuedRequest>,
    /// What it logged.
    pub logs: Vec<(LogLevel, String)>,
    /// Units of fuel used.
    pub fuel: u64,
    /// Microseconds of wall time used.
    pub micros: u64,
    /// The most bytes of linear memory held.
    pub memory: u64,
}

/// What a plugin said in a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// What it is; in [`Rehearsed::answer`].
    Description,
    /// What is wrong with the settings; nothing if they will do.
    Problems(Vec<SettingsProblem>),
    /// A gate's decision.
    Decision(Decision),
    /// What is to follow.
    FollowUps(Vec<FollowUp>),
    /// The session's rate limits, if it gave any.
    Pacing(Option<Pacing>),
}

/// Why a rehearsal could not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RehearsalError {
    /// The plugin is not at hand.
    #[error("the plugin is not loaded")]
    NotAtHand,
    /// The plugin does not export the function.
    #[error("the plugin does not export {function}, so it is never asked that")]
    NotExported {
        /// Which.
        function: &'static str,
    },
    /// An input is not what the contract calls for.
    #[error("the {part} is none of the contract: {why}")]
    Input {
        /// Which.
        part: &'static str,
        /// Where and how.
        why: String,
    },
    /// Too many calls are under way.
    #[error("too many plugin calls are under way")]
    Overloaded,
}

impl RehearsalError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAtHand => "plugin_unavailable",
            Self::NotExported { .. } => "not_exported",
            Self::Input { .. } => "invalid_input",
            Self::Overloaded => "plugin_overloaded",
        }
    }
}

/// What one run of a chain was told, as [`ChainRun::input`](crate::ChainRun::input) recorded it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RecordedInput {
    /// The version of the contract.
    pub contract: String,
    /// The context, without what differs from link to link.
    pub context: Value,
    /// The operation.
    pub operation: Value,
    /// The links that were asked.
    pub links: Vec<RecordedLink>,
}

/// What one link was told besides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RecordedLink {
    /// Its place in the chain, as in its answer.
    #[serde(default)]
    pub position: u32,
    /// Its binding.
    pub binding: BindingId,
    /// Whether it was asked in the shadow of another version.
    #[serde(default)]
    pub shadow: bool,
    /// Its settings.
    pub settings: String,
    /// What it could use.
    pub grants: Vec<Grant>,
    /// What it has read.
    pub reads: Vec<Value>,
}

impl RecordedInput {
    /// Takes a recorded input apart.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(input: &str) -> Result<Self, RehearsalError> {
        serde_json::from_str(input).map_err(|error| RehearsalError::Input { part: "record", why: error.to_string() })
    }

    /// The question that one link was asked, with these settings in the place of its own if there are any.
    #[must_use]
    pub fn before(&self, link: &RecordedLink, settings: Option<&str>) -> Script {
        let mut context = self.context.clone();
        if let Some(context) = context.as_object_mut() {
            context.insert("binding-id".to_owned(), json!(link.binding));
            context.insert("settings".to_owned(), json!(settings.unwrap_or(&link.settings)));
        }
        Script::Before { context, operation: self.operation.clone() }
    }
}

/// The inputs of a call, as the contract's values.
enum Inputs {
    None,
    Settings(String),
    Before(Box<types::Context>, types::Operation),
    After(Box<types::Context>, types::Operation, types::Outcome),
    OnEvent(Box<types::Context>, types::Event),
    Fired(Box<types::Context>, String, String),
    Limits(Box<types::Context>, types::Usage),
}

impl Runtime {
    /// Asks a plugin once, and does nothing of what it says.
    ///
    /// # Errors
    /// If the question cannot be put at all. How the plugin fails over it is part of what comes back.
    pub async fn rehearse(&self, rehearsal: Rehearsal<'_>) -> Result<Rehearsed, RehearsalError> {
        let Rehearsal { digest, class, org, owner, plugin, grants, http_hosts, question, reads } = rehearsal;
        let code = self.at_hand(&digest).ok_or(RehearsalError::NotAtHand)?;
        let inputs = hear(question)?;
        if !inputs.exported(&code) {
            return Err(RehearsalError::NotExported { function: inputs.function() });
        }
        let bounds = self.config().bounds(class);
        let (now, seed) = inputs.context().map_or((0, 0), |context| (context.now, context.seed));
        let now = Timestamp::from_millis(now);
        let reads = match reads {
            ReadsFrom::Live(live) => Source::Live(live),
            ReadsFrom::Recorded(list) => Source::Recorded(Arc::new(Recorded(list))),
        };
        // As in live calls, what a plugin says of itself and of settings rests on nothing else.
        let named = inputs.context().and_then(|context| context.binding_id.parse().ok());
        let binding = named.unwrap_or(BindingId::from_bytes([0; 16]));
        let bound = Bound { owner, plugin, binding, grants: grants.to_vec(), hosts: http_hosts.to_vec(), reads };
        let mut state = CallState::new(&bounds, now, seed, inputs.context().map(|_| bound));
        if matches!(inputs, Inputs::After(..) | Inputs::OnEvent(..) | Inputs::Fired(..)) {
            state = state.that_may_send();
        }
        let budget = match inputs {
            Inputs::Before(..) | Inputs::Limits(..) => Budget::again(&bounds),
            _ => Budget::background(&bounds),
        };
        let permit = self.permits().take(org).await.ok_or(RehearsalError::Overloaded)?;
        let Called { result, unrecorded, fuel, micros, memory, mut state, .. } =
            self.call(&permit, &code, state, budget, inputs.question()).await;
        let (answer, result) = match result {
            Err(failure) => (None, Err(failure)),
            Ok(reply) => {
                let answer = said_in_words(&reply);
                let teller = Teller { plugin, grants, now };
                (Some(answer), checked(&teller, reply).map_err(|broken| bad_output(&mut state, broken)))
            }
        };
        Ok(Rehearsed {
            result,
            answer,
            unrecorded,
            kv: state.kv.into_accesses(plugin),
            requests: state.outbox.unwrap_or_default(),
            logs: state.log.into_lines(),
            fuel,
            micros,
            memory,
        })
    }
}

fn hear(script: Script) -> Result<Inputs, RehearsalError> {
    Ok(match script {
        Script::Describe => Inputs::None,
        Script::Validate { settings } => Inputs::Settings(settings),
        Script::Before { context, operation } => {
            Inputs::Before(Box::new(part("context", context)?), part("operation", operation)?)
        }
        Script::After { context, operation, outcome } => {
            Inputs::After(Box::new(part("context", context)?), part("operation", operation)?, part("outcome", outcome)?)
        }
        Script::OnEvent { context, event } => {
            Inputs::OnEvent(Box::new(part("context", context)?), part("event", event)?)
        }
        Script::Fired { context, key, payload } => Inputs::Fired(Box::new(part("context", context)?), key, payload),
        Script::Limits { context, usage } => Inputs::Limits(Box::new(part("context", context)?), part("usage", usage)?),
    })
}

fn part<T: DeserializeOwned>(part: &'static str, json: Value) -> Result<T, RehearsalError> {
    words::from_json(json).map_err(|error| RehearsalError::Input { part, why: error.to_string() })
}

impl Inputs {
    fn context(&self) -> Option<&types::Context> {
        match self {
            Self::None | Self::Settings(_) => None,
            Self::Before(context, ..)
            | Self::After(context, ..)
            | Self::OnEvent(context, ..)
            | Self::Fired(context, ..)
            | Self::Limits(context, ..) => Some(context),
        }
    }

    fn question(&self) -> Question<'_, types::Context> {
        match self {
            Self::None => Question::Describe,
            Self::Settings(settings) => Question::Validate(settings),
            Self::Before(context, operation) => Question::Before(context, operation),
            Self::After(context, operation, outcome) => Question::After(context, operation, outcome),
            Self::OnEvent(context, event) => Question::OnEvent(context, event),
            Self::Fired(context, key, payload) => Question::Fired(context, key, payload),
            Self::Limits(context, usage) => Question::Limits(context, *usage),
        }
    }

    fn function(&self) -> &'static str {
        match self {
            Self::None => "describe.describe",
            Self::Settings(_) => "settings.validate",
            Self::Before(..) => "gate.before",
            Self::After(..) => "observer.after",
            Self::OnEvent(..) => "observer.on-event",
            Self::Fired(..) => "timer.fired",
            Self::Limits(..) => "pace.limits",
        }
    }

    fn exported(&self, plugin: &Plugin) -> bool {
        match self {
            Self::None => &plugin.describe,
            Self::Settings(_) => &plugin.validate,
            Self::Before(..) => &plugin.before,
            Self::After(..) => &plugin.after,
            Self::OnEvent(..) => &plugin.on_event,
            Self::Fired(..) => &plugin.fired,
            Self::Limits(..) => &plugin.limits,
        }
        .is_some()
    }
}

fn said_in_words(reply: &Reply) -> Value {
    match reply {
        Reply::Described(description) => words::to_json::<describe::Description>(description),
        Reply::Validated(outcome) => words::to_json(outcome),
        Reply::Decided(decision) => words::to_json(decision),
        Reply::FollowUps(follow_ups) => words::to_json(follow_ups),
        Reply::Paced(pacing) => words::to_json(pacing),
    }
}

fn checked(teller: &Teller<'_>, reply: Reply) -> Result<Said, answer::Broken> {
    Ok(match reply {
        Reply::Described(_) => Said::Description,
        Reply::Validated(outcome) => {
            Said::Problems(outcome.err().unwrap_or_default().into_iter().map(Into::into).collect())
        }
        Reply::Decided(decision) => Said::Decision(teller.decision(decision)?),
        Reply::FollowUps(follow_ups) => Said::FollowUps(teller.follow_ups(follow_ups)?),
        Reply::Paced(pacing) => Said::Pacing(pacing.map(answer::pacing)),
    })
}
