//! Requests of plugins: from an observer to a receiver, whatever happens in between, and nowhere else.

use std::time::Duration;

use portcullis_core::delivery::AttemptOutcome;
use portcullis_core::{
    BindingId, Clock, Delivered, Delivery, DeliveryState, Grant, HostRule, Line, Mode, Operation, OperationKind,
    PluginId, Secret, Timestamp,
};
use portcullis_service::{BindingChange, Call, DeliveryFilter, QuotaChange, RequestQuery};
use portcullis_store::PLUGIN_REQUESTS_MAX;
use portcullis_testing::text::{self, HTTP, INVALID, RESULT, Request};
use portcullis_testing::{ANSWER, Guest};

use crate::receiver::Receiver;
use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);
/// How long a request waits whose binding does not work.
const AWAY: Duration = Duration::from_secs(5 * 60);

/// A guest that does this whenever it is told anything.
fn telling(body: &str, data: &str) -> Vec<u8> {
    let functions = ["after", "on-event"];
    let mut guest = text::exporting("observer", &functions, "i32", &format!("(local $i i32) {body} i32.const 8192"));
    guest.exports = vec!["describe", "gate", "observer"];
    let wants = [("http", "to tell"), ("secrets", "to be known")];
    let guest = Guest { name: "teller".into(), ..guest }.importing(HTTP).wanting(&wants).with(data);
    guest.with(&text::before(&format!("i32.const {ANSWER}"))).build()
}

fn sending(request: &Request<'_>) -> Vec<u8> {
    let (data, call) = request.sent();
    telling(&call, &data)
}

fn post(url: &str) -> Request<'_> {
    Request { method: "POST", url, body: r#"{"gone": true}"#, ..Request::default() }
}

/// The same with a secret.
fn secretly(url: &str) -> Request<'_> {
    Request { secret_headers: &[("authorization", "token")], ..post(url) }
}

fn hosts(rules: &[&str]) -> BindingChange {
    let rules = rules.iter().map(|rule| HostRule::parse(rule).unwrap()).collect();
    BindingChange { http_hosts: Some(rules), ..BindingChange::default() }
}

impl World {
    /// Binds a teller that may send to this machine, and is told of sessions that are made.
    async fn bind_teller(&self, component: Vec<u8>) -> (BindingId, PluginId) {
        let binding = self.bind(component, vec![OperationKind::SessionCreate], "{}").await;
        self.change_binding(binding, hosts(&["127.0.0.1"])).await;
        (binding, self.plugin_of(binding))
    }

    async fn put_token(&self, plugin: PluginId) {
        let permit = self.permit(OperationKind::SecretPut, None).await;
        let token = Secret::new("Bearer hush");
        self.service.put_secret(&permit, plugin, "token".into(), token, &Call::default()).await.unwrap();
    }

    async fn delete_token(&self, plugin: PluginId) {
        let permit = self.permit(OperationKind::SecretDelete, None).await;
        self.service.delete_secret(&permit, plugin, "token".into(), &Call::default()).await.unwrap();
    }

    fn requests(&self, plugin: PluginId) -> Vec<Delivery> {
        let snapshot = self.store.snapshot().unwrap();
        let found = snapshot.deliveries(self.org, Line::Plugin(plugin), DeliveryFilter::All, None, 10_000).unwrap();
        found.into_iter().map(|(_, delivery)| delivery).collect()
    }

    /// The only request, once this is so.
    async fn request_that(&self, plugin: PluginId, is_so: impl Fn(&Delivery) -> bool) -> Delivery {
        for _ in 0..1_000_000 {
            if let [request] = &self.requests(plugin)[..]
                && is_so(request)
            {
                return request.clone();
            }
            tokio::task::yield_now().await;
        }
        panic!("it never is so: {:?}", self.requests(plugin));
    }

    async fn plugin_errors(&self, plugin: PluginId) -> Vec<String> {
        let permit = self.permit(OperationKind::PluginRead, None).await;
        self.service.plugin_log(&permit, plugin).unwrap().into_iter().map(|line| line.message).collect()
    }
}

fn last_error(request: &Delivery) -> &str {
    match &request.record.attempts.last().unwrap().outcome {
        AttemptOutcome::Failed { error } => error,
        AttemptOutcome::Answered { .. } => "answered",
    }
}

#[tokio::test]
async fn a_request_is_sent_after_the_commit_with_what_the_plugin_never_sees() {
    let mut world = World::delivering().await;
    let mut receiver = Receiver::new().await;
    let url = receiver.url();
    let request = Request { headers: &[("X-Shop", "a b")], ..secretly(&url) };
    // A secret that there is not is said at once, and this guest does not care.
    let (_, plugin) = world.bind_teller(sending(&request)).await;
    world.create().await;
    world.settle().await;
    assert_eq!(world.requests(plugin), []);
    world.put_token(plugin).await;
    world.create().await;
    world.settle().await;
    // It outlives the process.
    world.crash().await;
    world.deliver();
    let told = receiver.next().await;
    let sent = world.request_that(plugin, |request| request.state == DeliveryState::Delivered).await;
    assert_eq!((told.line.as_str(), &told.body["gone"]), ("POST /hook", &true.into()));
    for (name, value) in [
        ("x-shop", "a b"),
        ("authorization", "Bearer hush"),
        ("idempotency-key", &sent.id.to_string()),
        ("portcullis-plugin", &plugin.to_string()),
    ] {
        assert_eq!(told.headers[name], value);
    }
    assert!(told.headers["user-agent"].starts_with("portcullis/"));
    // What the receiver answers may be what it was told.
    let answered = AttemptOutcome::Answered { status: 200, body: String::new() };
    assert_eq!(sent.record.attempts[0].outcome, answered);
    let Delivered::Request(kept) = &sent.record.what else { panic!("{sent:?}") };
    assert_eq!((&kept.headers[0].1[..], &kept.body[..]), ("", &b""[..]), "what only the sending needed is forgotten");
    assert!(receiver.is_quiet());
}

#[tokio::test]
async fn what_is_not_taken_is_tried_again_and_redirects_lead_nowhere() {
    let world = World::delivering().await;
    let mut inside = Receiver::new().await;
    let location: &'static str = format!("location: {}\r\n", inside.url()).leak();
    let mut answers = vec![(200, ""), (503, ""), (302, location)];
    let mut receiver = Receiver::answering(move |_| answers.pop().unwrap()).await;
    let (_, plugin) = world.bind_teller(sending(&post(&receiver.url()))).await;
    world.deliver();
    world.create().await;
    world.settle().await;
    let first = receiver.next().await;
    let second = world.pass_until_told(&mut receiver, MINUTE).await.unwrap();
    let third = world.pass_until_told(&mut receiver, 10 * MINUTE).await.unwrap();
    assert_eq!(first.headers["idempotency-key"], third.headers["idempotency-key"]);
    assert_eq!(second.body, third.body);
    let sent = world.request_that(plugin, |request| request.state == DeliveryState::Delivered).await;
    let statuses = sent.record.attempts.iter().map(|attempt| match &attempt.outcome {
        AttemptOutcome::Answered { status, body } => (*status, body.as_str()),
        AttemptOutcome::Failed { error } => panic!("{error}"),
    });
    assert_eq!(statuses.collect::<Vec<_>>(), [(302, "heard!"), (503, "heard!"), (200, "heard!")]);
    assert!(inside.is_quiet());
}

/// What was changed between the commit and the attempt, and what becomes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Off,
    Monitoring,
    Unbound,
    HostTaken,
    GrantTaken,
    SecretGrantTaken,
    SecretGone,
}

#[tokio::test]
async fn every_attempt_asks_anew_whether_it_may_be_made() {
    use Meanwhile::*;
    for (meanwhile, word) in [
        (Off, None),
        (Monitoring, None),
        (Unbound, Some("unbound")),
        (HostTaken, Some("host_not_allowed")),
        (GrantTaken, Some("not_granted")),
        (SecretGrantTaken, Some("not_granted")),
        (SecretGone, Some("no_secret")),
    ] {
        let world = World::delivering().await;
        let mut receiver = Receiver::new().await;
        let (binding, plugin) = world.bind_teller(sending(&secretly(&receiver.url()))).await;
        world.put_token(plugin).await;
        world.create().await;
        world.settle().await;
        let queued = world.request_that(plugin, |_| true).await;
        let mode = |mode| BindingChange { mode: Some(mode), ..BindingChange::default() };
        let grants = |grants: &[Grant]| BindingChange { grants: Some(grants.to_vec()), ..BindingChange::default() };
        match meanwhile {
            Off => world.change_binding(binding, mode(Mode::Off)).await,
            Monitoring => world.change_binding(binding, mode(Mode::Monitor)).await,
            Unbound => world.unbind(binding).await,
            HostTaken => world.change_binding(binding, hosts(&["example.org"])).await,
            GrantTaken => world.change_binding(binding, grants(&[Grant::Secrets])).await,
            SecretGrantTaken => world.change_binding(binding, grants(&[Grant::Http])).await,
            SecretGone => world.delete_token(plugin).await,
        }
        // The change itself is told to nobody, so that nothing but the request is under way.
        world.deliver();
        let changed = world.request_that(plugin, |request| request.state != queued.state).await;
        match (meanwhile, word) {
            (SecretGone, Some(word)) => {
                assert!(matches!(changed.state, DeliveryState::Waiting { .. }), "{meanwhile:?}");
                assert_eq!((last_error(&changed), changed.record.failures), (word, 1), "{meanwhile:?}");
                world.put_token(plugin).await;
                let told = world.pass_until_told(&mut receiver, MINUTE).await;
                assert!(told.is_some(), "{meanwhile:?}");
            }
            (_, Some(word)) => {
                assert_eq!((changed.state, last_error(&changed)), (DeliveryState::Dead, word), "{meanwhile:?}");
            }
            (_, None) => {
                let due = world.clock.now().after(AWAY);
                assert_eq!(changed.state, DeliveryState::Waiting { due }, "{meanwhile:?}");
                assert_eq!((changed.record.failures, changed.record.attempts), (0, vec![]), "{meanwhile:?}");
                world.change_binding(binding, mode(Mode::Enforce)).await;
                assert!(world.pass_until_told(&mut receiver, 2 * AWAY).await.is_some(), "{meanwhile:?}");
            }
        }
        assert!(receiver.is_quiet(), "{meanwhile:?}");
    }
}

#[tokio::test]
async fn requests_go_with_their_plugin_and_with_the_session_that_they_are_about() {
    let world = World::delivering().await;
    let mut receiver = Receiver::new().await;
    let (binding, plugin) = world.bind_teller(sending(&post(&receiver.url()))).await;
    let session = world.create().await;
    world.settle().await;
    assert_eq!(world.requests(plugin)[0].session, Some(session));
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.settle().await;
    assert_eq!(world.requests(plugin), [], "nobody can read them any more");
    world.create().await;
    world.settle().await;
    assert_eq!(world.requests(plugin).len(), 1);
    world.unbind(binding).await;
    let permit = world.permit(OperationKind::PluginDelete, None).await;
    world.service.delete_plugin(&permit, plugin, Call::default()).await.unwrap();
    assert_eq!(world.requests(plugin), []);
    world.deliver();
    world.pass(MINUTE).await;
    assert!(receiver.is_quiet());
}

/// What nobody may have sent is refused while the guest can still hear it.
#[tokio::test]
async fn what_must_not_be_sent_is_refused_at_once() {
    let url = "http://127.0.0.1/";
    let header = |name, value| Request { headers: Box::leak(Box::new([(name, value)])), ..post(url) };
    let secret = |name| Request { secret_headers: Box::leak(Box::new([(name, "token")])), ..post(url) };
    let bodies = "b".repeat((64 << 10) + 1);
    let requests = [
        header("x", "a\r\nhost: inside"),
        header("x", "a\nb"),
        header("x", "a\0b"),
        header("x\r\nhost", "inside"),
        header("x y", "a"),
        header("", "a"),
        header("Host", "inside"),
        header("content-length", "0"),
        header("Transfer-Encoding", "chunked"),
        header("connection", "upgrade"),
        header("idempotency-key", "another"),
        header("Portcullis-Plugin", "another"),
        secret("host"),
        secret("x\r\ny"),
        post("http://user:password@127.0.0.1/"),
        post("http://example.org@127.0.0.1/"),
        post("http://127.0.0.1\\@example.org/"),
        post("http://127.1/"),
        post("http://2130706433/"),
        post("http://10.0.0.1/"),
        post("http://169.254.169.254/latest/meta-data"),
        post("http://[::1]/"),
        post("http://[::ffff:10.0.0.1]/"),
        post("file:///etc/passwd"),
        post("//127.0.0.1/"),
        post("/relative"),
        post("http://127.0.0.1/ x\r\nhost: inside"),
        post("http://127.0.0.1/#fragment"),
        Request { body: &bodies, ..post(url) },
        Request { method: "get", ..post(url) },
    ];
    for request in requests {
        let world = World::delivering().await;
        let (data, call) = request.sent();
        let refused = format!(
            "(i32.and (i32.load8_u (i32.const {RESULT})) (i32.eq (i32.load8_u offset=4 (i32.const {RESULT})) (i32.const {INVALID})))"
        );
        let component = telling(&format!("{call} (if (i32.eqz {refused}) (then unreachable))"), &data);
        let (binding, plugin) = world.bind_teller(component).await;
        world.put_token(plugin).await;
        let all = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "example.org"];
        world.change_binding(binding, hosts(&all)).await;
        world.create().await;
        world.settle().await;
        assert_eq!(world.plugin_errors(plugin).await, Vec::<String>::new(), "{request:?}");
        assert_eq!(world.requests(plugin), [], "{request:?}");
    }
}

#[tokio::test]
async fn without_a_way_out_a_plugin_is_told_so() {
    const UNAVAILABLE: u32 = 5;
    let world = World::new().await;
    let (data, call) = post("https://example.org/").sent();
    let unavailable = format!("(i32.eq (i32.load8_u offset=4 (i32.const {RESULT})) (i32.const {UNAVAILABLE}))");
    let component = telling(&format!("{call} (if (i32.eqz {unavailable}) (then unreachable))"), &data);
    let (_, plugin) = world.bind_teller(component).await;
    world.create().await;
    world.settle().await;
    assert_eq!((world.plugin_errors(plugin).await, world.requests(plugin)), (vec![], vec![]));
}

#[tokio::test]
async fn no_more_than_a_thousand_wait_and_what_is_beyond_is_the_plugins_failure() {
    let world = World::delivering().await;
    let (data, call) = post("http://127.0.0.1:9/").sent();
    let (_, plugin) = world.bind_teller(telling(&text::times(8, &call), &data)).await;
    world.set_quotas(QuotaChange { sessions: Some(1_000), ..QuotaChange::default() }).await;
    for _ in 0..PLUGIN_REQUESTS_MAX / 8 {
        world.create().await;
    }
    world.settle().await;
    assert_eq!(world.requests(plugin).len(), PLUGIN_REQUESTS_MAX);
    world.create().await;
    world.pass(30 * MINUTE).await;
    assert_eq!(world.requests(plugin).len(), PLUGIN_REQUESTS_MAX);
    let refused = world.audit().await.into_iter().filter_map(|entry| match entry.outcome {
        portcullis_core::AuditOutcome::Refused { code } => Some(code),
        _ => None,
    });
    assert_eq!(refused.collect::<Vec<_>>(), ["follow_ups_not_kept"]);
}

#[tokio::test]
async fn requests_are_listed_newest_first_by_page_and_by_what_became_of_them() {
    let world = World::delivering().await;
    let (binding, plugin) = world.bind_teller(sending(&post("http://127.0.0.1:9/"))).await;
    for _ in 0..3 {
        world.create().await;
        world.settle().await;
    }
    world.deliver();
    world.unbind(binding).await;
    world.pass(MINUTE).await;
    let permit = world.permit(OperationKind::PluginRead, None).await;
    let listed = |filter, before, limit| {
        let page = world.service.plugin_requests(&permit, plugin, RequestQuery { filter, before, limit }).unwrap();
        let entries: Vec<_> = page.entries.iter().map(|(place, request)| (place.0, request.at)).collect();
        (entries, page.more)
    };
    let (all, more) = listed(DeliveryFilter::All, None, 50);
    let times: Vec<Timestamp> = all.iter().map(|(_, at)| *at).collect();
    assert_eq!((all.len(), more), (3, false));
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    assert_eq!(listed(DeliveryFilter::All, None, 2), (all[..2].to_vec(), true));
    assert_eq!(listed(DeliveryFilter::All, Some(all[1].0), 2), (all[2..].to_vec(), false));
    let (waiting, dead) = (listed(DeliveryFilter::Waiting, None, 50).0, listed(DeliveryFilter::Dead, None, 50).0);
    assert_eq!(waiting.len() + dead.len(), 3, "{waiting:?} {dead:?}");
    let other = world.other_org().await;
    let permit = other.permit(OperationKind::PluginRead, None).await;
    let query = RequestQuery { filter: DeliveryFilter::All, before: None, limit: 50 };
    assert!(other.service.plugin_requests(&permit, plugin, query).is_err(), "nobody else's");
}
