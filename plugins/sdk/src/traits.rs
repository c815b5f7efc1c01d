//! What a plugin may implement. Each trait is one exported interface of the contract.

use crate::bindings::configured::exports::portcullis::policy::settings;
use crate::bindings::described::exports::portcullis::policy::describe;
use crate::bindings::gating::exports::portcullis::policy::gate;
use crate::bindings::observing::exports::portcullis::policy::observer;
use crate::bindings::pacing::exports::portcullis::policy::pace;
use crate::bindings::timed::exports::portcullis::policy::timer;
use crate::{Context, Decision, Description, Event, FollowUp, Operation, Outcome, Pacing, Problem, Usage};

/// Says what the plugin is. Every plugin exports it.
pub trait Describe {
    /// Asked once, at upload.
    fn describe() -> Description;
}

/// Checks the settings of a binding. [`Form`](crate::Form) reads them field by field.
pub trait Settings {
    /// Asked at every change of a binding's settings, with the JSON document.
    ///
    /// # Errors
    ///
    /// All that is wrong with the settings, by field.
    fn validate(json: &str) -> Result<(), Vec<Problem>>;
}

/// Decides before operations.
pub trait Gate {
    /// Asked before every hooked operation, inside the request.
    fn before(context: &Context, operation: &Operation) -> Decision;
}

/// Watches operations and events; a plugin that watches only one of the two leaves the other out.
pub trait Observer {
    /// Told after the operation's commit, off the request path.
    fn after(_context: &Context, _operation: &Operation, _outcome: &Outcome) -> Vec<FollowUp> {
        Vec::new()
    }

    /// Told of something that happened to a session, or of a fact that the organisation posted.
    fn on_event(_context: &Context, _event: &Event) -> Vec<FollowUp> {
        Vec::new()
    }
}

/// Has durable timers.
pub trait Timer {
    /// Called when a timer that the plugin set is due, with the key and the payload it was set with.
    fn fired(context: &Context, key: &str, payload: &str) -> Vec<FollowUp>;
}

/// Sets rate limits.
pub trait Pace {
    /// Asked when the limits of the context's session are needed; none leaves them to its named policy.
    fn limits(context: &Context, usage: &Usage) -> Option<Pacing>;
}

impl<T: Describe> describe::Guest for T {
    fn describe() -> Description {
        <T as Describe>::describe()
    }
}

impl<T: Settings> settings::Guest for T {
    fn validate(json: String) -> Result<(), Vec<Problem>> {
        <T as Settings>::validate(&json)
    }
}

impl<T: Gate> gate::Guest for T {
    fn before(context: Context, operation: Operation) -> Decision {
        <T as Gate>::before(&context, &operation)
    }
}

impl<T: Observer> observer::Guest for T {
    fn after(context: Context, operation: Operation, outcome: Outcome) -> Vec<FollowUp> {
        <T as Observer>::after(&context, &operation, &outcome)
    }

    fn on_event(context: Context, event: Event) -> Vec<FollowUp> {
        <T as Observer>::on_event(&context, &event)
    }
}

impl<T: Timer> timer::Guest for T {
    fn fired(context: Context, key: String, payload: String) -> Vec<FollowUp> {
        <T as Timer>::fired(&context, &key, &payload)
    }
}

impl<T: Pace> pace::Guest for T {
    fn limits(context: Context, usage: Usage) -> Option<Pacing> {
        <T as Pace>::limits(&context, &usage)
    }
}
