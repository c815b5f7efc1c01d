//! The rungs, strictest first, with the same numbers as the gateway's built-in policies.

use portcullis_sdk::RateLimits;

/// The stable names of the rungs.
pub(crate) const SLUGS: [&str; 4] = ["strict", "standard_policy", "high_throughput", "unlimited"];

/// The lowest rung.
pub(crate) const STRICT: usize = 0;

/// The limits of the rungs; zero means unlimited.
pub(crate) const BUILT_IN: [RateLimits; 4] = [
    row([5, 200, 10, 1, 2, 20, 5, 50]),
    row([20, 1_000, 3, 1, 5, 100, 10, 200]),
    row([60, 10_000, 1, 3, 20, 500, 30, 2_000]),
    row([0; 8]),
];

/// The rung with this slug.
pub(crate) fn rung(slug: &str) -> Option<usize> {
    let slug = if slug == "standard" { "standard_policy" } else { slug };
    SLUGS.iter().position(|known| *known == slug)
}

/// What both limits allow.
pub(crate) fn tighter(one: RateLimits, other: RateLimits) -> RateLimits {
    RateLimits {
        send_message_per_minute: lower(one.send_message_per_minute, other.send_message_per_minute),
        send_message_daily_cap: lower(one.send_message_daily_cap, other.send_message_daily_cap),
        // The one limit of which more is stricter.
        account_protection_seconds: one.account_protection_seconds.max(other.account_protection_seconds),
        concurrent_limit: lower(one.concurrent_limit, other.concurrent_limit),
        group_req_per_minute: lower(one.group_req_per_minute, other.group_req_per_minute),
        group_daily_cap: lower(one.group_daily_cap, other.group_daily_cap),
        check_req_per_minute: lower(one.check_req_per_minute, other.check_req_per_minute),
        check_daily_cap: lower(one.check_daily_cap, other.check_daily_cap),
    }
}

/// The lower of two caps, of which zero is none.
pub(crate) fn lower(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, cap) | (cap, 0) => cap,
        (one, other) => one.min(other),
    }
}

const fn row([per_minute, daily, gap, at_once, group, group_day, check, check_day]: [u32; 8]) -> RateLimits {
    RateLimits {
        send_message_per_minute: per_minute,
        send_message_daily_cap: daily,
        account_protection_seconds: gap,
        concurrent_limit: at_once,
        group_req_per_minute: group,
        group_daily_cap: group_day,
        check_req_per_minute: check,
        check_daily_cap: check_day,
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn zero_is_no_cap() {
        assert_eq!(lower(0, 50), 50);
        assert_eq!(lower(50, 0), 50);
        assert_eq!(lower(0, 0), 0);
        assert_eq!(lower(20, 50), 20);
    }

    #[test]
    fn each_rung_allows_no_less_than_the_one_before() {
        for pair in BUILT_IN.windows(2) {
            assert_eq!(tighter(pair[0], pair[1]), pair[0]);
        }
    }
}
