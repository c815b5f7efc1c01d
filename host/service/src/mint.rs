//! Fresh random values, for the core to make ids and names from.

use portcullis_core::Timestamp;

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

/// A fresh id of any type, born at `now`.
pub(crate) fn id<T>(make: impl FnOnce(Timestamp, u128) -> T, now: Timestamp) -> T {
    make(now, random())
}
