//! Webhooks: where an organisation wants to hear of events, and in which form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{OrgId, Secret, SessionId, Timestamp, WebhookId};

/// The most extra headers that a webhook sends.
pub const MAX_HEADERS: usize = 20;
/// What stands for the value of a header where it is shown. Given back in a change, it means the value that is there.
pub const MASKED: &str = "***";
/// The longest URL, in bytes.
pub const MAX_URL: usize = 2048;

/// A subscription to events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Whose it is.
    pub org: OrgId,
    /// The only session that it hears of; all of the organisation's if there is none. The webhook goes with the session.
    pub session: Option<SessionId>,
    /// What its owner chose.
    pub spec: WebhookSpec,
    /// Grows with every change; the expectation of commits.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// A secret that was replaced and signs beside its successor for a while, so that receivers can change theirs.
    #[serde(default)]
    pub retired: Option<RetiredSecret>,
    /// Since when and why it is no longer told anything, though its owner wants it to be.
    #[serde(default)]
    pub disabled: Option<Disabled>,
}

impl Webhook {
    /// Whether it is told of events.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.spec.active && self.disabled.is_none()
    }
}

/// A secret that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredSecret {
    /// The secret.
    pub secret: Secret,
    /// Until when it signs.
    pub until: Timestamp,
}

/// That a webhook is no longer told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub why: DisabledBecause,
}

/// Why a webhook is no longer told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisabledBecause {
    /// Its receiver said that it is gone for good: status 410.
    Gone,
    /// Nothing was taken for five days.
    Failing,
}

impl DisabledBecause {
    /// The stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

/// What the owner of a webhook chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSpec {
    /// In whose words events are told.
    pub format: EventFormat,
    /// Where they are told; `http` or `https`.
    pub url: String,
    /// Which events, by their names in the format's vocabulary; `*` stands for all.
    pub events: Vec<String>,
    /// Headers that every delivery carries besides.
    pub headers: BTreeMap<String, Secret>,
    /// What deliveries are signed with.
    pub secret: Option<Secret>,
    /// What happens when nobody takes a delivery.
    pub retry: RetryPolicy,
    /// Whether anything is delivered.
    pub active: bool,
    /// Whether the event's name is appended to the URL's path.
    pub path_per_event: bool,
    /// Whether media are told in base 64 within the event.
    pub inline_media: bool,
}

/// What changes about a webhook; what is none stays as it is, but for the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookChange {
    /// The only session that it hears of from then on; all if there is none.
    pub session: Option<SessionId>,
    /// Where events are told.
    pub url: Option<String>,
    /// Which events.
    pub events: Option<Vec<String>>,
    /// Headers of deliveries.
    pub headers: Option<BTreeMap<String, Secret>>,
    /// What deliveries are signed with; the inner none takes it away.
    pub secret: Option<Option<Secret>>,
    /// What happens when nobody takes a delivery.
    pub retry: Option<RetryPolicy>,
    /// Whether anything is delivered.
    pub active: Option<bool>,
}

impl WebhookChange {
    /// The webhook with the change.
    #[must_use]
    pub fn apply(&self, to: &Webhook, now: Timestamp) -> Webhook {
        let mut next = to.clone();
        next.session = self.session;
        let spec = &mut next.spec;
        spec.url.clone_from(self.url.as_ref().unwrap_or(&to.spec.url));
        spec.events.clone_from(self.events.as_ref().unwrap_or(&to.spec.events));
        if let Some(headers) = &self.headers {
            let value = |name: &String, given: &Secret| match to.spec.headers.get(name) {
                Some(known) if given.reveal() == MASKED => known.clone(),
                _ => given.clone(),
            };
            spec.headers = headers.iter().map(|(name, given)| (name.clone(), value(name, given))).collect();
        }
        if let Some(secret) = &self.secret {
            spec.secret.clone_from(secret);
            // Who does not ask for a transition gets none.
            next.retired = None;
        }
        spec.retry = self.retry.unwrap_or(to.spec.retry);
        spec.active = self.active.unwrap_or(to.spec.active);
        // Whoever asks for it again, or names another receiver, has mended what was wrong.
        if self.active == Some(true) || self.url.is_some() {
            next.disabled = None;
        }
        next.generation += 1;
        next.updated_at = now;
        next
    }
}

/// The vocabularies in which events can be told, one for each kind of receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventFormat {
    /// Portcullis's own, which is the router's.
    Router,
    /// Wawp's.
    Wawp,
    /// Evolution's.
    Evolution,
    /// That of the Standard Webhooks specification, with its signatures and its times of retry.
    Standard,
}

impl EventFormat {
    /// The stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Wawp => "wawp",
            Self::Evolution => "evolution",
            Self::Standard => "standard",
        }
    }
}

/// What happens when nobody takes a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How the waits grow.
    pub growth: RetryGrowth,
    /// The first wait, in seconds.
    pub delay_seconds: u32,
    /// How often a delivery is tried in all.
    pub attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { growth: RetryGrowth::Exponential, delay_seconds: 2, attempts: 15 }
    }
}

/// How the waits between tries grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryGrowth {
    /// Not at all.
    Constant,
    /// By the first wait each time.
    Linear,
    /// To the double each time.
    Exponential,
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_masked_value_that_comes_back_is_the_value_that_is_there() {
        let secret = |text: &str| Secret::new(text);
        let headers = |entries: &[(&str, &str)]| {
            entries.iter().map(|(name, value)| ((*name).to_owned(), secret(value))).collect::<BTreeMap<_, _>>()
        };
        let now = Timestamp::from_millis(1);
        let spec = WebhookSpec {
            format: EventFormat::Router,
            url: "https://example.com".to_owned(),
            events: vec!["*".to_owned()],
            headers: headers(&[("A", "one"), ("B", "two")]),
            secret: None,
            retry: RetryPolicy::default(),
            active: true,
            path_per_event: false,
            inline_media: false,
        };
        let (id, org) = (WebhookId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        let webhook = Webhook {
            id,
            org,
            session: None,
            spec,
            generation: 1,
            created_at: now,
            updated_at: now,
            retired: None,
            disabled: None,
        };
        let change = WebhookChange {
            session: None,
            url: None,
            events: None,
            headers: Some(headers(&[("A", MASKED), ("C", MASKED)])),
            secret: None,
            retry: None,
            active: None,
        };
        assert_eq!(change.apply(&webhook, now).spec.headers, headers(&[("A", "one"), ("C", MASKED)]));
    }
}
