//! Fresh random values, for the core to make ids and names from.

use std::sync::{Mutex, PoisonError};

use portcullis_core::{Secret, Timestamp};

/// 128 random bits from the operating system.
///
/// # Panics
/// If the operating system has no randomness, which no part of the gateway can go on without.
#[must_use]
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    u128::from_le_bytes(bytes)
}

/// A new key with which webhooks are signed.
pub(crate) fn webhook_key() -> Secret {
    portcullis_webhook::mint(bytes())
}

/// A new key of the kind of another.
pub(crate) fn webhook_key_like(other: &Secret) -> Secret {
    portcullis_webhook::mint_like(other, bytes())
}

/// 256 random bits.
fn bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&random().to_be_bytes());
    bytes[16..].copy_from_slice(&random().to_be_bytes());
    bytes
}

/// A new secret that is plain text.
pub(crate) fn text_key() -> Secret {
    Secret::new(format!("{:032x}{:032x}", random(), random()))
}

/// 64 random bits.
pub(crate) fn seed() -> u64 {
    let bits = random() & u128::from(u64::MAX);
    u64::try_from(bits).unwrap_or_default()
}

/// A fresh id of any type, born at `now`.
///
/// Ids of one process sort in the order in which they were made, also within a millisecond:
/// the audit and the outbox are read in the order of their ids.
pub(crate) fn id<T>(make: impl FnOnce(Timestamp, u128) -> T, now: Timestamp) -> T {
    static LAST: Mutex<(Timestamp, u128)> = Mutex::new((Timestamp::from_millis(0), 0));
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    *last = after(*last, now, random());
    make(last.0, last.1)
}

/// How many random bits an id has.
const BITS: u32 = 80;

/// The time and the random bits of the id after `last`.
fn after(last: (Timestamp, u128), now: Timestamp, random: u128) -> (Timestamp, u128) {
    if now > last.0 {
        // A clear highest bit leaves room for more ids in this millisecond than can be made in it.
        return (now, random & ((1 << (BITS - 1)) - 1));
    }
    // A random step keeps the next id from being guessed.
    (last.0, last.1 + 1 + (random & 0xFFFF_FFFF))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn ids_of_one_millisecond_sort_in_the_order_in_which_they_were_made() {
        let now = Timestamp::from_millis(5);
        let first = after((Timestamp::from_millis(4), 7), now, u128::MAX);
        let second = after(first, now, 0);
        let third = after(second, Timestamp::from_millis(3), u128::MAX);
        assert!(first < second && second < third, "{first:?} {second:?} {third:?}");
        assert!(third.1 < 1 << BITS && first.0 == now && third.0 == now);
    }
}
