//! Write a Portcullis policy plugin in a few lines of Rust.
//!
//! A plugin is a type without data that implements some of six traits, and one line that exports them:
//!
//! ```
//! use portcullis_sdk::{Context, Decision, Describe, Description, Gate, Operation};
//!
//! struct NightWatch;
//!
//! impl Describe for NightWatch {
//!     fn describe() -> Description {
//!         Description::new("night-watch", "1.0.0", "Sessions are not deleted while they are online.").hook("session.delete")
//!     }
//! }
//!
//! impl Gate for NightWatch {
//!     fn before(context: &Context, _operation: &Operation) -> Decision {
//!         match &context.session {
//!             Some(session) if session.is_online() => Decision::deny("online", "stop the session before deleting it"),
//!             _ => Decision::Allow,
//!         }
//!     }
//! }
//!
//! portcullis_sdk::export!(NightWatch: describe, gate);
//! # fn main() {}
//! ```
//!
//! What is named in [`export!`] is what the component exports, and what it exports is what the host asks it.
//! Natively the line only checks that the traits are there, so the same crate runs its unit tests with `cargo test`;
//! [`sample`] makes the contexts for them.
//!
//! A gate is a pure function of its context, its operation and what it reads through [`kv`] and [`sessions`].
//! Time is [`Context::now`](Context#structfield.now) and randomness is [`Context::seed`](Context#structfield.seed), so that a decision can be replayed years later.

#[doc(hidden)]
pub mod bindings;
mod context;
mod decision;
mod duration;
mod export;
mod form;
mod host;
pub mod sample;
mod traits;

pub use bindings::configured::exports::portcullis::policy::settings::Problem;
pub use bindings::described::exports::portcullis::policy::describe::{Description, Want};
pub use bindings::imports::portcullis::policy::types::{
    Confirmation, Context, Decision, Deferral, Denial, Detail, Event, FollowUp, HostError, Intent, Label, Limit,
    Limitation, NamedJson, Operation, Org, Outcome, Patch, Phase, Principal, PrincipalKind, Question, RateLimits,
    Request, Session, SessionCreate, SessionCreatePatch, SessionLabelsPatch, Status, TextMessage, TimerSetting,
    Timestamp, Usage, Window,
};
pub use bindings::pacing::exports::portcullis::policy::pace::Pacing;
pub use duration::Duration;
pub use form::Form;
pub use host::{http, kv, log, secrets, sessions};
pub use traits::{Describe, Gate, Observer, Pace, Settings, Timer};
