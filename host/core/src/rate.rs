//! Rate arithmetic: named policies, their limits, and the windows in which the store's writer counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{PluginId, SessionId, Timestamp};

/// The policy that a session gets when nobody chose one.
pub const DEFAULT_POLICY: &str = "standard_policy";

/// The limits under a named policy; zero means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimits {
    /// Sends in any 60 seconds.
    pub send_message_per_minute: u32,
    /// Sends in a UTC day.
    pub send_message_daily_cap: u32,
    /// The least number of seconds between two sends.
    pub account_protection_seconds: u32,
    /// Sends under way at once.
    pub concurrent_limit: u32,
    /// Group calls in any 60 seconds.
    pub group_req_per_minute: u32,
    /// Group calls in a UTC day.
    pub group_daily_cap: u32,
    /// Number checks in any 60 seconds.
    pub check_req_per_minute: u32,
    /// Number checks in a UTC day.
    pub check_daily_cap: u32,
}

/// A named policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatePolicy {
    /// Its stable name.
    pub slug: String,
    /// What people call it.
    pub name: String,
    /// Whether organisations without an active plan may use it.
    pub free: bool,
    /// What it allows.
    pub limits: RateLimits,
}

/// The policies that the gateway knows without configuration, strictest first.
/// The numbers are Portcullis's own: no public source gives any.
#[must_use]
pub fn built_in_policies() -> &'static [RatePolicy] {
    static POLICIES: std::sync::LazyLock<Vec<RatePolicy>> = std::sync::LazyLock::new(make_policies);
    &POLICIES
}

/// The policy with this slug.
#[must_use]
pub fn built_in_policy(slug: &str) -> Option<&'static RatePolicy> {
    built_in_policies().iter().find(|policy| policy.slug == slug)
}

fn make_policies() -> Vec<RatePolicy> {
    let row = |slug: &str,
               name: &str,
               free,
               [per_minute, daily, gap, at_once, group, group_day, check, check_day]: [u32; 8]| {
        RatePolicy {
            slug: slug.to_owned(),
            name: name.to_owned(),
            free,
            limits: RateLimits {
                send_message_per_minute: per_minute,
                send_message_daily_cap: daily,
                account_protection_seconds: gap,
                concurrent_limit: at_once,
                group_req_per_minute: group,
                group_daily_cap: group_day,
                check_req_per_minute: check,
                check_daily_cap: check_day,
            },
        }
    };
    vec![
        row("strict", "Strict", true, [5, 200, 10, 1, 2, 20, 5, 50]),
        row(DEFAULT_POLICY, "Standard", true, [20, 1_000, 3, 1, 5, 100, 10, 200]),
        row("high_throughput", "High throughput", false, [60, 10_000, 1, 3, 20, 500, 30, 2_000]),
        row("unlimited", "Unlimited", false, [0; 8]),
    ]
}

/// Over which time a counter is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// The last so many milliseconds.
    Sliding(u64),
    /// Since midnight UTC.
    UtcDay,
}

impl Window {
    /// Hits at or before this point no longer count at `now`.
    #[must_use]
    pub fn counts_after(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Sliding(millis) => Timestamp::from_millis(now.as_millis().saturating_sub(millis)),
            // A hit at midnight itself belongs to the new day.
            Self::UtcDay => Timestamp::from_millis(now.start_of_day().as_millis().saturating_sub(1)),
        }
    }

    /// How long after `now` the hit at `hit` stops counting.
    #[must_use]
    pub fn frees_in(self, hit: Timestamp, now: Timestamp) -> Duration {
        match self {
            Self::Sliding(millis) => hit.after(Duration::from_millis(millis)).since(now),
            Self::UtcDay => now.start_of_day().after(Duration::from_secs(24 * 60 * 60)).since(now),
        }
    }
}

/// A bound that the store's writer checks, and a hit that it counts, in an operation's commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitCheck {
    /// Which counter, within the organisation.
    pub counter: String,
    /// Over which time.
    pub window: Window,
    /// The operation goes through while the counter is below this.
    pub max: u64,
}

/// The counter of a session's sends.
#[must_use]
pub fn send_counter(session: SessionId) -> String {
    format!("send:{session}")
}

/// The counter of a session's group calls.
#[must_use]
pub fn group_counter(session: SessionId) -> String {
    format!("group:{session}")
}

/// The counter of a session's number checks.
#[must_use]
pub fn check_counter(session: SessionId) -> String {
    format!("check:{session}")
}

/// A counter of a plugin's own: whatever name it chooses, it counts in a space of its own.
#[must_use]
pub fn plugin_counter(plugin: PluginId, name: &str) -> String {
    format!("plugin:{plugin}:{name}")
}

/// Whose a counter is; it goes with its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterOwner {
    /// The organisation's.
    Org,
    /// A session's.
    Session(SessionId),
    /// A plugin's.
    Plugin(PluginId),
}

impl CounterOwner {
    /// The owner of the counter with this name.
    #[must_use]
    pub fn of(counter: &str) -> Self {
        let owner = match counter.split_once(':') {
            Some(("send" | "group" | "check", id)) => id.parse().ok().map(Self::Session),
            Some(("plugin", rest)) => rest.split_once(':').and_then(|(id, _)| id.parse().ok()).map(Self::Plugin),
            _ => None,
        };
        owner.unwrap_or(Self::Org)
    }
}

impl RateLimits {
    /// What one send has to pass. The day's check is always among them, so that every send is counted
    /// and a stricter policy, chosen later, knows of it.
    /// A send to a group is also a group call: WhatsApp is asked for the group's members to encrypt to.
    #[must_use]
    pub fn send_checks(&self, session: SessionId, to_group: bool) -> Vec<LimitCheck> {
        let mut checks = Vec::with_capacity(5);
        let gap = u64::from(self.account_protection_seconds) * 1000;
        if gap > 0 {
            checks.push(LimitCheck { counter: send_counter(session), window: Window::Sliding(gap), max: 1 });
        }
        windows(&mut checks, send_counter(session), self.send_message_per_minute, self.send_message_daily_cap);
        if to_group {
            windows(&mut checks, group_counter(session), self.group_req_per_minute, self.group_daily_cap);
        }
        checks
    }

    /// What one request to check numbers has to pass.
    #[must_use]
    pub fn number_checks(&self, session: SessionId) -> Vec<LimitCheck> {
        let mut checks = Vec::with_capacity(2);
        windows(&mut checks, check_counter(session), self.check_req_per_minute, self.check_daily_cap);
        checks
    }

    /// The stricter of two sets of limits, field by field.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let least = |a: u32, b: u32| match (a, b) {
            (0, bound) | (bound, 0) => bound,
            (a, b) => a.min(b),
        };
        Self {
            send_message_per_minute: least(self.send_message_per_minute, other.send_message_per_minute),
            send_message_daily_cap: least(self.send_message_daily_cap, other.send_message_daily_cap),
            // A gap is stricter the longer it is.
            account_protection_seconds: self.account_protection_seconds.max(other.account_protection_seconds),
            concurrent_limit: least(self.concurrent_limit, other.concurrent_limit),
            group_req_per_minute: least(self.group_req_per_minute, other.group_req_per_minute),
            group_daily_cap: least(self.group_daily_cap, other.group_daily_cap),
            check_req_per_minute: least(self.check_req_per_minute, other.check_req_per_minute),
            check_daily_cap: least(self.check_daily_cap, other.check_daily_cap),
        }
    }
}

/// The checks of a counter within the minute and the day; zero means that there is no bound, but the day is always counted.
fn windows(checks: &mut Vec<LimitCheck>, counter: String, per_minute: u32, daily: u32) {
    if per_minute > 0 {
        let window = Window::Sliding(60_000);
        checks.push(LimitCheck { counter: counter.clone(), window, max: per_minute.into() });
    }
    let max = if daily > 0 { daily.into() } else { u64::MAX };
    checks.push(LimitCheck { counter, window: Window::UtcDay, max });
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_send_is_counted_and_an_unlimited_policy_bounds_nothing() {
        let id = SessionId::from_bytes([1; 16]);
        let checks = |slug: &str| {
            let policy = built_in_policy(slug).expect("a built-in policy");
            policy.limits.send_checks(id, false).iter().map(|check| (check.window, check.max)).collect::<Vec<_>>()
        };
        assert_eq!(checks("unlimited"), [(Window::UtcDay, u64::MAX)]);
        assert_eq!(
            checks("strict"),
            [(Window::Sliding(10_000), 1), (Window::Sliding(60_000), 5), (Window::UtcDay, 200)]
        );
    }

    #[test]
    fn a_counters_name_says_whose_it_is() {
        let (session, plugin) = (SessionId::from_bytes([1; 16]), PluginId::from_bytes([2; 16]));
        for counter in [send_counter(session), group_counter(session), check_counter(session)] {
            assert_eq!(CounterOwner::of(&counter), CounterOwner::Session(session), "{counter}");
        }
        for name in ["deletes", "send:x", &send_counter(session), ""] {
            assert_eq!(CounterOwner::of(&plugin_counter(plugin, name)), CounterOwner::Plugin(plugin), "{name}");
        }
        for counter in ["op:session.delete", "send", "send:nobody", "plugin:nobody:x", ""] {
            assert_eq!(CounterOwner::of(counter), CounterOwner::Org, "{counter}");
        }
    }

    #[test]
    fn a_sliding_window_excludes_its_own_start() {
        let now = Timestamp::from_millis(100_000);
        let window = Window::Sliding(60_000);
        assert_eq!(window.counts_after(now), Timestamp::from_millis(40_000));
        assert_eq!(window.frees_in(Timestamp::from_millis(40_001), now), Duration::from_millis(1));
    }

    #[test]
    fn a_day_begins_at_midnight_utc() {
        let day = 24 * 60 * 60 * 1000;
        let now = Timestamp::from_millis(day + 5);
        assert!(Timestamp::from_millis(day) > Window::UtcDay.counts_after(now));
        assert!(Timestamp::from_millis(day - 1) <= Window::UtcDay.counts_after(now));
        assert_eq!(Window::UtcDay.frees_in(Timestamp::from_millis(day), now).as_millis(), u128::from(day - 5));
    }
}
