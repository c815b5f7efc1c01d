//! The pure core of Portcullis: what things are and what may happen to them.
//!
//! Everything here is a function of its arguments.
//! There is no clock, no randomness, no IO and no async: time and random values come in as values, and what should be done goes out as data.
//!
//! The first stop for a reader is [`lifecycle`], which draws the state machine of a session, then [`operation`], the one table of all operations.

pub mod audit;
pub mod authorize;
pub mod confirmation;
pub mod decision;
pub mod delivery;
pub mod errand;
pub mod event;
mod host_rule;
pub mod id;
pub mod key;
pub mod label;
pub mod lifecycle;
pub mod message;
pub mod operation;
pub mod org;
pub mod plugin;
pub mod port;
pub mod principal;
pub mod rate;
pub mod receipt;
pub mod secret;
pub mod session;
pub mod time;
pub mod verdict;
pub mod webhook;
pub mod why;

pub use audit::{AuditEntry, AuditOutcome, DecisionRecord, FirstRound, Stop};
pub use authorize::{Denial, Permit, Target, authorize};
pub use confirmation::Confirmation;
pub use decision::{Answer, Decision, FollowUp, Patch, PluginFailure};
pub use delivery::{
    Attempt as DeliveryAttempt, Delivered, Delivery, DeliveryKey, DeliveryRecord, DeliveryState, Line, OutboxPlace,
    PluginRequest,
};
pub use errand::{Errand, ErrandBody};
pub use event::{DomainEvent, EventBody, EventKind, MessageStage};
pub use host_rule::{HOST_RULES_MAX, HostRule, NoHostRule};
pub use id::{
    AuditId, BindingId, DecisionId, DeliveryId, ErrandId, EventId, IdError, KeyId, MessageId, OrgId, PluginId,
    PublisherId, RequestId, SessionId, WebhookId,
};
pub use key::ApiKey;
pub use label::{LabelError, Labels};
pub use lifecycle::{Effect, EngineFact, Fact, Input, Refusal, Request, Step, step};
pub use message::{MessageState, OutgoingMessage};
pub use operation::{Operation, OperationKind};
pub use org::{Org, Plan, PluginRules, Quotas};
pub use plugin::{
    Binding, Candidate, FailureFold, Grant, Hook, Mode, PluginClass, PluginVersion, Previous, Publisher, Selector,
    Suspension, Tally, Want,
};
pub use port::{
    Clock, DEVICE_NAME_BYTES, DEVICE_VALUE_BYTES, DeviceChange, DeviceRow, DeviceStore, DeviceStoreError, KvAccess,
    KvChange, KvEntry, PolicyReadError, PolicyReads, RequestFlaw,
};
pub use principal::{Capabilities, Capability, Principal, PrincipalKind};
pub use rate::{LimitCheck, RateLimits, RatePolicy, Window};
pub use receipt::{AuditEnd, Receipt, Removal, Unlink};
pub use secret::Secret;
pub use session::{Attempt, Device, Intent, Names, Proxy, Session, Settings, Status, TempLink};
pub use time::Timestamp;
pub use verdict::{Verdict, fold};
pub use webhook::{
    Disabled, DisabledBecause, EventFormat, RetiredSecret, RetryPolicy, Webhook, WebhookChange, WebhookSpec,
};
pub use why::why;
