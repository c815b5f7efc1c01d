//! `http`: who may send what, and that nothing of it counts where nothing may be sent.

use std::sync::Arc;

use portcullis_core::{EventId, Grant, HostRule, Mode, PluginFailure, PluginRequest, RequestFlaw, Secret};
use portcullis_testing::text::{self, HTTP, INVALID, NOT_FOUND, NOT_GRANTED, RESULT, Request};
use portcullis_testing::{ANSWER, Guest};

use super::{NOW, Snapshot, ask, bind_with, delete, org_id, plugin_id, run, runtime};
use crate::{Event, Link, Observed, Outcome, ReadsFrom, Rehearsal, Runtime, Script};

/// The error of a quota, and of a call that is not offered.
const QUOTA: u32 = 3;
const UNAVAILABLE: u32 = 5;

const URL: &str = "https://api.example.org/hook";
const BOTH: &[Grant] = &[Grant::Http, Grant::Secrets];

fn post(url: &str) -> Request<'_> {
    Request { method: "POST", url, ..Request::default() }
}

/// A guest that does this whenever it is told anything, and then has no follow-ups. Its gate does the same.
fn telling(body: &str, data: &str) -> Guest {
    let mut guest =
        text::exporting("observer", &["after", "on-event"], "i32", &format!("(local $i i32) {body} i32.const 8192"));
    let gate = text::before(&format!("(local $i i32) {body} i32.const {ANSWER}"));
    guest.exports = vec!["describe", "gate", "observer"];
    guest.importing(HTTP).with(&gate).with(data)
}

fn sending(request: &Request<'_>) -> Guest {
    let (data, call) = request.sent();
    telling(&call, &data)
}

/// A guest that is stopped unless its call is refused with this error; without one, unless it goes through.
fn expecting(request: &Request<'_>, error: Option<u32>) -> Guest {
    let (data, call) = request.sent();
    let refused = format!("(i32.load8_u (i32.const {RESULT}))");
    let right = match error {
        None => format!("(i32.eqz {refused})"),
        Some(error) => {
            format!("(i32.and {refused} (i32.eq (i32.load8_u offset=4 (i32.const {RESULT})) (i32.const {error})))")
        }
    };
    telling(&format!("{call} (if (i32.eqz {right}) (then unreachable))"), &data)
}

async fn bind(runtime: &Runtime, guest: &Guest, grants: &[Grant]) -> Link {
    let link = bind_with(runtime, guest, Mode::Enforce, grants).await;
    let mut binding = (*link.binding).clone();
    binding.http_hosts = ["api.example.org", "*.partner.example"].map(|rule| HostRule::parse(rule).unwrap()).into();
    Link { binding: Arc::new(binding), ..link }
}

fn world() -> Arc<Snapshot> {
    Arc::new(Snapshot {
        secrets: [("token".to_owned(), Secret::new("hush"))].into(),
        sends: true,
        ..Snapshot::default()
    })
}

async fn observe(runtime: &Runtime, link: &Link, world: Arc<Snapshot>) -> Observed {
    runtime.observe(std::slice::from_ref(link), &ask(), &delete(), &Outcome::Done, world).await.remove(0)
}

#[tokio::test]
async fn what_an_observer_sends_comes_back_with_its_answer() {
    let runtime = runtime();
    let request = Request {
        headers: &[("content-type", "text/plain")],
        secret_headers: &[("authorization", "token")],
        body: "gone",
        ..post(URL)
    };
    let link = bind(&runtime, &sending(&request), BOTH).await;
    let after = observe(&runtime, &link, world()).await;
    let event = Event { id: EventId::from_bytes([1; 16]), name: "x".into(), at: NOW, session: None, json: "{}".into() };
    let links = [link.clone()];
    let on_event = runtime.observe_event(&links, &ask(), &event, world()).await.remove(0);
    for observed in [&after, &on_event] {
        assert_eq!(observed.result, Ok(vec![]));
        let [queued] = &observed.requests[..] else { panic!("{observed:?}") };
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(
            queued.request,
            PluginRequest {
                binding: link.binding.id,
                method: "POST".into(),
                url: URL.into(),
                headers: pair("content-type", "text/plain"),
                secret_headers: pair("authorization", "token"),
                body: b"gone".into(),
            }
        );
    }
    assert_eq!(
        after.requests[0].id,
        observe(&runtime, &link, world()).await.requests[0].id,
        "the same call, the same id"
    );
}

#[tokio::test]
async fn whoever_may_not_send_is_told_why() {
    let runtime = runtime();
    let headers = |count: usize| vec![("a", "b"); count];
    let (many, too_many) = (headers(32), headers(33));
    let wide = "v".repeat(8 << 10);
    let (body, too_long) = ("b".repeat(64 << 10), "b".repeat((64 << 10) + 1));
    let longest_name = "n".repeat(65);
    let (wide, nameless) = ([("a", wide.as_str())], [("a", longest_name.as_str())]);
    let cases: Vec<(&str, Request<'_>, &[Grant], Option<u32>)> = vec![
        ("a request", post(URL), BOTH, None),
        ("to a host below one", post("https://eu.partner.example/"), BOTH, None),
        ("every method", Request { method: "PATCH", ..post(URL) }, BOTH, None),
        ("as many headers as there may be", Request { headers: &many, ..post(URL) }, BOTH, None),
        ("as large a body", Request { body: &body, ..post(URL) }, BOTH, None),
        ("without the grant", post(URL), &[Grant::Secrets], Some(NOT_GRANTED)),
        ("to another host", post("https://evil.example/"), BOTH, Some(NOT_GRANTED)),
        ("to what is above", post("https://partner.example/"), BOTH, Some(NOT_GRANTED)),
        ("another method", Request { method: "CONNECT", ..post(URL) }, BOTH, Some(INVALID)),
        ("a method of two lines", Request { method: "GET / HTTP/1.1\\r\\nx", ..post(URL) }, BOTH, Some(INVALID)),
        ("where nothing may go", post("refused"), BOTH, Some(INVALID)),
        ("too many headers", Request { headers: &too_many, ..post(URL) }, BOTH, Some(INVALID)),
        ("too long headers", Request { headers: &wide, ..post(URL) }, BOTH, Some(INVALID)),
        ("too large a body", Request { body: &too_long, ..post(URL) }, BOTH, Some(INVALID)),
        ("with a secret", Request { secret_headers: &[("a", "token")], ..post(URL) }, BOTH, None),
        (
            "without a grant for it",
            Request { secret_headers: &[("a", "token")], ..post(URL) },
            &[Grant::Http],
            Some(NOT_GRANTED),
        ),
        ("that there is not", Request { secret_headers: &[("a", "other")], ..post(URL) }, BOTH, Some(NOT_FOUND)),
        ("that cannot be", Request { secret_headers: &nameless, ..post(URL) }, BOTH, Some(INVALID)),
    ];
    for (about, request, grants, error) in cases {
        let link = bind(&runtime, &expecting(&request, error), grants).await;
        let observed = observe(&runtime, &link, world()).await;
        assert_eq!(observed.result, Ok(vec![]), "{about}");
        assert_eq!(observed.requests.len(), usize::from(error.is_none()), "{about}");
    }
    let link = bind(&runtime, &expecting(&post(URL), Some(UNAVAILABLE)), BOTH).await;
    let nowhere = Arc::new(Snapshot::default());
    assert_eq!(observe(&runtime, &link, nowhere).await.result, Ok(vec![]), "a gateway without a way out");
}

#[tokio::test]
async fn a_gate_sends_nothing_and_is_told_so() {
    let runtime = runtime();
    let link = bind(&runtime, &expecting(&post(URL), Some(UNAVAILABLE)), BOTH).await;
    assert_eq!(run(&runtime, &link).await.answers[0].result, Ok(portcullis_core::Decision::Allow));
}

#[tokio::test]
async fn what_a_plugin_sends_counts_only_if_its_answer_does() {
    let runtime = runtime();
    let guest = sending(&post(URL));
    let link = bind(&runtime, &guest, BOTH).await;
    let binding = portcullis_core::Binding { mode: Mode::Monitor, ..(*link.binding).clone() };
    let monitoring = Link { binding: Arc::new(binding), ..link.clone() };
    let shadow = Link { shadow: true, ..link };
    for link in [monitoring, shadow] {
        assert_eq!(observe(&runtime, &link, world()).await.requests, []);
    }
    let (data, call) = post(URL).sent();
    let failing = bind(&runtime, &telling(&format!("{call} unreachable"), &data), BOTH).await;
    let observed = observe(&runtime, &failing, world()).await;
    assert_eq!((observed.result, observed.requests), (Err(PluginFailure::Trap), vec![]));
}

#[tokio::test]
async fn a_flood_of_requests_comes_to_eight_and_then_to_the_end_of_the_call() {
    let runtime = runtime();
    let (data, call) = post(URL).sent();
    let last = format!("(i32.eq (i32.load8_u offset=4 (i32.const {RESULT})) (i32.const {QUOTA}))");
    let some = telling(&format!("{} (if (i32.eqz {last}) (then unreachable))", text::times(9, &call)), &data);
    let link = bind(&runtime, &some, BOTH).await;
    let observed = observe(&runtime, &link, world()).await;
    assert_eq!((observed.result, observed.requests.len()), (Ok(vec![]), 8));
    let flood = telling(&text::times(100_000, &call), &data);
    let link = bind(&runtime, &flood, BOTH).await;
    let observed = observe(&runtime, &link, world()).await;
    assert_eq!((observed.result, observed.requests.len()), (Err(PluginFailure::Fuel), 0));
}

#[tokio::test]
async fn what_is_too_large_to_be_read_is_not_read() {
    let runtime = runtime();
    let (data, _) = post(URL).sent();
    // Lengths of which none is true.
    for (pairs, body) in [(0, 3 << 16), (1 << 24, 0), (0, i32::MAX)] {
        let call = format!(
            "(call $send (i32.const 16384) (i32.const 4) (i32.const 16388) (i32.const 28) (i32.const 0) (i32.const {pairs})
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {body}) (i32.const {RESULT}))"
        );
        let link = bind(&runtime, &telling(&call, &data), BOTH).await;
        let observed = observe(&runtime, &link, world()).await;
        assert!(observed.result.is_err() && observed.requests.is_empty(), "{pairs} {body}: {observed:?}");
    }
}

#[tokio::test]
async fn a_rehearsal_tells_what_would_have_been_sent() {
    let runtime = runtime();
    let link = bind(&runtime, &sending(&post(URL)), BOTH).await;
    let hosts = link.binding.http_hosts.clone();
    let context = crate::words::to_json(&crate::convert::ask::context(&ask()));
    let rehearsal = |reads| Rehearsal {
        digest: link.version.digest,
        class: portcullis_core::PluginClass::Standard,
        org: org_id(),
        owner: org_id(),
        plugin: plugin_id(),
        grants: BOTH,
        http_hosts: &hosts,
        question: Script::Fired { context: context.clone(), key: String::new(), payload: String::new() },
        reads,
    };
    let fired = runtime.rehearse(rehearsal(ReadsFrom::Live(world()))).await;
    assert!(fired.is_err(), "it has no timers: {fired:?}");
    let event = serde_json::json!({ "id": "e", "name": "x", "at": 0, "session": null, "json": "{}" });
    let told = |reads| Rehearsal {
        question: Script::OnEvent { context: context.clone(), event: event.clone() },
        ..rehearsal(reads)
    };
    let rehearsed = runtime.rehearse(told(ReadsFrom::Live(world()))).await.unwrap();
    assert_eq!((rehearsed.result.is_ok(), rehearsed.requests.len()), (true, 1));
    let recorded = runtime.rehearse(told(ReadsFrom::Recorded(Vec::new()))).await.unwrap();
    assert!(recorded.unrecorded.is_some(), "a record tells nothing about ways out: {recorded:?}");
}

impl Snapshot {
    /// The host of a URL, read without any of the care that the way out takes.
    pub(super) fn host(&self, request: &PluginRequest) -> Result<String, RequestFlaw> {
        if !self.sends {
            return Err(RequestFlaw::NoWayOut);
        }
        let host = request.url.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        host.map(str::to_owned).ok_or_else(|| RequestFlaw::Refused("not there".into()))
    }
}
