//! When the keys are fetched, and what is believed in the meantime.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::jwks::{NOW, claims, name, world};
use super::server::Server;
use super::signer::{Signer, set};
use crate::Jwks;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Checks what becomes of a token of this signer at some time after `NOW`, and how many fetches there were by then.
struct Timeline {
    server: Server,
    jwks: Jwks,
}

impl Timeline {
    async fn new(signers: &[&Signer]) -> Self {
        let (server, jwks) = world(signers).await;
        Self { server, jwks }
    }

    async fn check(&self, after: u64, signer: &Signer, expected: &str, fetches: usize) {
        let mut claims = claims();
        claims["exp"] = u64::MAX.into();
        let found = name(self.jwks.verify(&signer.token(&claims), NOW + after).await);
        assert_eq!((found.as_str(), self.server.asked()), (expected, fetches), "after {after} ms");
    }
}

#[tokio::test]
async fn a_set_is_used_for_an_hour() {
    let signer = Signer::ed("a");
    let line = Timeline::new(&[&signer]).await;
    line.check(0, &signer, "good", 1).await;
    line.check(MINUTE, &signer, "good", 1).await;
    line.check(HOUR - 1, &signer, "good", 1).await;
    line.check(HOUR, &signer, "good", 2).await;
    line.check(2 * HOUR - 1, &signer, "good", 2).await;
}

#[tokio::test]
async fn a_key_that_was_taken_back_is_gone_after_an_hour() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let line = Timeline::new(&[&old]).await;
    line.check(0, &old, "good", 1).await;
    line.server.answer("200 OK", &set(&[&new]));
    line.check(HOUR - 1, &old, "good", 1).await;
    line.check(HOUR, &old, "UnknownKey", 2).await;
}

#[tokio::test]
async fn a_new_key_is_fetched_once() {
    let (old, new) = (Signer::ed("old"), Signer::ec("new"));
    let line = Timeline::new(&[&old]).await;
    line.check(0, &old, "good", 1).await;
    line.server.answer("200 OK", &set(&[&old, &new]));
    line.check(2 * MINUTE, &new, "good", 2).await;
    line.check(2 * MINUTE, &old, "good", 2).await;
    line.check(2 * MINUTE + 1, &new, "good", 2).await;
}

#[tokio::test]
async fn unknown_keys_cost_a_fetch_a_minute_at_most() {
    let (known, stranger) = (Signer::ed("known"), Signer::ed("stranger"));
    let line = Timeline::new(&[&known]).await;
    line.check(0, &known, "good", 1).await;
    for minute in 1..4 {
        let fetches = usize::try_from(minute).unwrap();
        line.check(minute * MINUTE - 1, &stranger, "UnknownKey", fetches).await;
        line.check(minute * MINUTE, &stranger, "UnknownKey", fetches + 1).await;
        line.check(minute * MINUTE + 1, &stranger, "UnknownKey", fetches + 1).await;
        line.check(minute * MINUTE + 1, &known, "good", fetches + 1).await;
    }
}

#[tokio::test]
async fn a_stale_set_is_used_while_the_provider_is_away() {
    let (known, stranger) = (Signer::ed("known"), Signer::ed("stranger"));
    let line = Timeline::new(&[&known]).await;
    line.check(0, &known, "good", 1).await;
    line.server.answer("503 Service Unavailable", "");
    line.check(HOUR, &known, "good", 2).await;
    line.check(HOUR + MINUTE - 1, &known, "good", 2).await;
    // Whose key this is cannot be told, and so it is not the token's fault.
    line.check(HOUR + MINUTE - 1, &stranger, "Keys", 2).await;
    line.check(HOUR + MINUTE, &known, "good", 3).await;
    line.server.answer("200 OK", &set(&[&known, &stranger]));
    line.check(HOUR + 2 * MINUTE, &known, "good", 4).await;
    line.check(HOUR + 2 * MINUTE, &stranger, "good", 4).await;
    line.check(2 * HOUR, &known, "good", 4).await;
}

#[tokio::test]
async fn a_provider_that_was_never_there_is_asked_once_a_minute() {
    let signer = Signer::ed("a");
    let line = Timeline::new(&[&signer]).await;
    line.server.answer("503 Service Unavailable", "");
    line.check(0, &signer, "Keys", 1).await;
    line.check(MINUTE - 1, &signer, "Keys", 1).await;
    line.server.answer("200 OK", &set(&[&signer]));
    line.check(MINUTE, &signer, "good", 2).await;
}

#[tokio::test]
async fn a_clock_that_is_put_back_makes_nothing_fresh_for_long() {
    let signer = Signer::ed("a");
    let line = Timeline::new(&[&signer]).await;
    line.check(100 * HOUR, &signer, "good", 1).await;
    line.check(0, &signer, "good", 2).await;
}

#[tokio::test]
async fn many_tokens_at_once_are_one_fetch() {
    let (known, stranger) = (Signer::ed("known"), Signer::ed("stranger"));
    let (server, jwks) = world(&[&known]).await;
    server.hold();
    let mut calls = JoinSet::new();
    for signer in [&known, &stranger].into_iter().cycle().take(50) {
        let (jwks, token) = (jwks.clone(), signer.token(&claims()));
        calls.spawn(async move { name(jwks.verify(&token, NOW).await) });
    }
    server.arrival().await;
    server.release();
    let mut found = BTreeMap::new();
    for name in calls.join_all().await {
        *found.entry(name).or_insert(0) += 1;
    }
    assert_eq!(found, BTreeMap::from([("good".to_owned(), 25), ("UnknownKey".to_owned(), 25)]));
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_known_key_does_not_wait_for_a_fetch() {
    let (known, stranger) = (Signer::ed("known"), Signer::ed("stranger"));
    let (server, jwks) = world(&[&known]).await;
    assert_eq!(name(jwks.verify(&known.token(&claims()), NOW).await), "good");
    server.arrival().await;

    server.hold();
    let waiting = tokio::spawn({
        let (jwks, token) = (jwks.clone(), stranger.token(&claims()));
        async move { name(jwks.verify(&token, NOW + MINUTE).await) }
    });
    server.arrival().await;
    assert_eq!(name(jwks.verify(&known.token(&claims()), NOW + MINUTE).await), "good");
    assert!(!waiting.is_finished());
    server.release();
    assert_eq!(waiting.await.unwrap(), "UnknownKey");
}

/// Callers may go away at any time. A fetch that died with its caller would be begun anew for every token,
/// or else leave everybody without keys for a minute.
#[tokio::test]
async fn a_fetch_outlives_its_caller() {
    let signer = Signer::ed("a");
    let (server, jwks) = world(&[&signer]).await;
    server.hold();
    let caller = tokio::spawn({
        let (jwks, token) = (jwks.clone(), signer.token(&claims()));
        async move { jwks.verify(&token, NOW).await }
    });
    server.arrival().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    server.release();
    assert_eq!(name(jwks.verify(&signer.token(&claims()), NOW).await), "good");
    assert_eq!(server.asked(), 1);
}
