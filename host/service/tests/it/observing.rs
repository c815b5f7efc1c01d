//! What plugins are told off the path of an operation: exactly once as far as anything comes of it, whatever fails in between,
//! and nobody's beside the backlog of others.

use std::time::Duration;

use portcullis_core::operation::{CreateSession, WhenUnpaired};
use portcullis_core::{AuditEntry, AuditOutcome, BindingId, FailureFold, Mode, Operation, OperationKind, SessionId};
use portcullis_service::{BindingChange, QuotaChange, ServiceError, Waited};
use portcullis_store::QuotaKind;
use portcullis_testing::text::KV;
use portcullis_testing::{ANSWER, DATA, Guest};

use crate::guests::denying;
use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Where a list of follow-ups lies, and its one element.
const LIST: u32 = 656;
const ELEMENT: u32 = 1664;

/// The text at [`DATA`] in pieces: a label's key and value, an event's name and document, a key of the plugin's.
const TEXT: &str = "seenyesnews{}k";
const SEEN: [u32; 4] = [DATA, 4, DATA + 4, 3];
const NEWS: [u32; 4] = [DATA + 7, 4, DATA + 11, 2];
const KEY: u32 = DATA + 13;

/// Leaves the address of a list with one follow-up of this case and these words.
fn one(case: u32, words: [u32; 4]) -> String {
    let words = words.iter().zip([8, 12, 16, 20]);
    let words: String =
        words.map(|(word, at)| format!("(i32.store (i32.const {}) (i32.const {word}))", ELEMENT + at)).collect();
    format!(
        "(i32.store (i32.const {LIST}) (i32.const {ELEMENT})) (i32.store (i32.const {}) (i32.const 1))
         (i32.store8 (i32.const {ELEMENT}) (i32.const {case})) {words} i32.const {LIST}",
        LIST + 4,
    )
}

/// A guest with this gate whose `after` has this body.
fn observer(name: &str, gate: &str, after: &str) -> Guest {
    let function = |name: &str, params: &str, body: &str| {
        format!("(func (export \"portcullis:policy/observer@0.1.0#{name}\") {params} (result i32) {body})")
    };
    let mut guest = Guest::gate(gate)
        .named(name)
        .data(TEXT)
        .with(&function("after", "(param i32)", after))
        .with(&function("on-event", "(param i32)", &format!("i32.const {LIST}")));
    guest.exports = vec!["describe", "gate", "observer"];
    guest
}

fn allow() -> String {
    format!("i32.const {ANSWER}")
}

/// Labels every session that it is told of.
fn labelling() -> Vec<u8> {
    observer("labelling", &allow(), &one(4, SEEN)).build()
}

/// Emits an event for every operation that it is told of.
fn reporting() -> Vec<u8> {
    observer("reporting", &allow(), &one(1, NEWS)).build()
}

/// Fails whenever it is told something.
fn failing() -> Vec<u8> {
    observer("failing", &allow(), "unreachable").build()
}

/// Labels every session that it is told of, and fails whenever it is asked.
fn failing_gate() -> Vec<u8> {
    observer("failing-gate", "unreachable", &one(4, SEEN)).build()
}

/// Computes until it is stopped whenever it is told something.
fn spinning() -> Vec<u8> {
    observer("spinning", &allow(), "(loop $again (br $again)) unreachable").build()
}

/// Its gate writes a key; its observer reads that key, writes it again, and labels the session if it was there.
fn remembering() -> Vec<u8> {
    let get = format!("(call $get (i32.const {KEY}) (i32.const 1) (i32.const 4096))");
    let set = format!(
        "(call $set (i32.const {KEY}) (i32.const 1) (i32.const {DATA}) (i32.const 4)
            (i32.const 0) (i64.const 0) (i32.const 4160))"
    );
    let after = format!(
        "{get} {set}
         (if (i32.eqz (i32.load8_u (i32.const 4104))) (then (return (i32.const {}))))
         {}",
        LIST + 32,
        one(4, SEEN)
    );
    // It wants the grant `kv`: the list of what it wants lies 52 bytes behind the beginning of its description.
    let word = |word: u32| word.to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat();
    let list = |at: u32, words: &[u32]| {
        let words: String = words.iter().map(|each| word(*each)).collect();
        format!("(data (i32.const {at}) \"{words}\")")
    };
    let wants = [list(64 + 52, &[400, 1]), list(400, &[416, 2, 418, 3]), "(data (i32.const 416) \"kvwhy\")".to_owned()];
    let guest = observer("remembering", &format!("{get} {set} {}", allow()), &after);
    guest.importing(KV).with(&wants.concat()).build()
}

impl World {
    async fn is_seen(&self, session: SessionId) -> bool {
        self.session(session).await.is_some_and(|session| session.labels.contains_key("seen"))
    }

    fn news(&self) -> usize {
        self.events().iter().filter(|name| **name == "plugin.event").count()
    }

    fn waiting(&self) -> u32 {
        self.store.snapshot().unwrap().count(self.org, QuotaKind::Errands).unwrap()
    }

    async fn set_mode(&self, binding: BindingId, mode: Mode) {
        self.change_binding(binding, BindingChange { mode: Some(mode), ..BindingChange::default() }).await;
    }

    /// The codes with which the audit says that plugins were not told something.
    async fn untold(&self) -> Vec<String> {
        let code = |entry: AuditEntry| match entry {
            AuditEntry { operation: OperationKind::EventTell, outcome: AuditOutcome::Refused { code }, .. } => {
                Some(code)
            }
            _ => None,
        };
        self.audit().await.into_iter().filter_map(code).collect()
    }
}

/// An observer was shown the state from before the operation's own commit, so one that read what its gate had written
/// rested on something that was over, and nothing of what it wanted was ever kept.
#[tokio::test]
async fn an_observer_reads_what_its_gate_has_written() {
    let world = World::new().await;
    world.bind(remembering(), vec![OperationKind::SessionCreate], "{}").await;
    // Several of them write the same key at the same time; who comes too late is asked again.
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(world.create().await);
    }
    world.settle().await;
    world.pass(MINUTE).await;
    for session in sessions {
        assert!(world.is_seen(session).await);
    }
    assert_eq!((world.waiting(), world.untold().await), (0, vec![]));
}

/// What was to be told when the gateway was killed was lost.
#[tokio::test]
async fn an_observer_hears_of_what_was_done_right_before_a_crash_and_hears_it_once() {
    let mut world = World::new().await;
    let session = world.online().await;
    world.bind(reporting(), vec![], "{}").await;
    world.send(session).await.unwrap();
    world.crash().await;
    world.settle().await;
    assert_eq!(world.news(), 1);
    world.crash().await;
    world.pass(2 * HOUR).await;
    assert_eq!(world.news(), 1);
}

/// A session that nothing runs for is erased within the call that deletes it, and takes along what lies under its key.
#[tokio::test]
async fn an_observer_hears_of_a_deletion_although_the_session_is_gone() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(reporting(), vec![OperationKind::SessionDelete], "{}").await;
    world.execute(Operation::SessionDelete { session }).await.unwrap();
    world.pass(MINUTE).await;
    assert_eq!((world.status(session).await, world.news()), ("gone", 1));
}

/// However an operation ends, observers hear of it once: also if nothing was done, and if nothing was even recorded.
#[tokio::test]
async fn an_observer_hears_of_every_end() {
    let world = World::new().await;
    let session = world.create().await;
    world.bind(reporting(), vec![], "{}").await;
    let mut news = 0;
    let mut heard = async |what: &str| {
        news += 1;
        world.settle().await;
        assert_eq!(world.news(), news, "{what}");
    };
    world.execute(Operation::SessionStop { session }).await.unwrap();
    heard("it was so already").await;
    let sent = world.send(session).await;
    assert!(matches!(sent, Err(ServiceError::Send(_))), "{sent:?}");
    heard("the engine was not even asked").await;
    world.execute(Operation::SessionRatePolicy { session, slug: "no-such".into() }).await.unwrap_err();
    heard("the plan refused it").await;
    world.set_quotas(QuotaChange { sessions: Some(1), ..QuotaChange::default() }).await;
    let create = world.execute(Operation::SessionCreate(CreateSession::default())).await;
    assert!(matches!(create, Err(ServiceError::Quota { .. })), "{create:?}");
    heard("a quota was in the way of its commit").await;
    world.bind(denying(), vec![OperationKind::SessionStart], "{}").await;
    world.settle().await;
    world.execute(Operation::SessionStart { session, when_unpaired: WhenUnpaired::Pair }).await.unwrap_err();
    heard("a plugin denied it").await;
}

/// What a plugin had still to be told was thrown away when its binding was found off, and so were its timers.
#[tokio::test]
async fn what_waits_for_a_binding_that_is_off_waits_until_it_is_on_again() {
    let world = World::new().await;
    let binding = world.bind(labelling(), vec![OperationKind::SessionCreate], "{}").await;
    let session = world.create().await;
    world.set_mode(binding, Mode::Off).await;
    world.pass(6 * HOUR).await;
    assert_eq!((world.is_seen(session).await, world.waiting()), (false, 1));
    world.set_mode(binding, Mode::Enforce).await;
    world.pass(5 * MINUTE).await;
    assert_eq!((world.is_seen(session).await, world.waiting()), (true, 0));
    // With the binding it goes for good.
    let other = world.create().await;
    world.unbind(binding).await;
    world.pass(HOUR).await;
    assert_eq!((world.is_seen(other).await, world.waiting()), (false, 0));
}

#[tokio::test]
async fn what_waits_for_a_suspended_binding_waits_until_it_is_resumed() {
    let world = World::new().await;
    let hooks = vec![OperationKind::SessionCreate, OperationKind::SessionStart];
    let binding = world.bind(failing_gate(), hooks, "{}").await;
    let allow = BindingChange { on_failure: Some(FailureFold::Allow), ..BindingChange::default() };
    world.change_binding(binding, allow).await;
    let session = world.create().await;
    for _ in 0..19 {
        world.execute(Operation::SessionStart { session, when_unpaired: WhenUnpaired::Refuse }).await.unwrap_err();
    }
    assert!(world.events().contains(&"plugin.suspended"), "{:?}", world.events());
    world.pass(HOUR).await;
    assert!(!world.is_seen(session).await);
    let permit = world.permit(OperationKind::BindingUpdate, None).await;
    world.service.resume(&permit, binding, portcullis_service::Call::default()).await.unwrap();
    world.pass(5 * MINUTE).await;
    assert_eq!((world.is_seen(session).await, world.waiting()), (true, 0));
}

/// What a plugin failed at was over after one try, and nothing but a line in the log said so.
#[tokio::test]
async fn what_a_plugin_fails_at_is_tried_ten_times_and_then_given_up_in_the_audit() {
    let world = World::new().await;
    world.bind(failing(), vec![OperationKind::SessionCreate], "{}").await;
    world.create().await;
    world.pass(10 * MINUTE).await;
    assert_eq!((world.waiting(), world.untold().await), (1, vec![]), "it comes later each time");
    world.pass(HOUR).await;
    assert_eq!((world.waiting(), world.untold().await), (0, vec!["plugin_trap".to_owned()]));
}

/// Plugins of one organisation that took their time kept those of all others from being told anything.
#[tokio::test]
async fn nobody_waits_for_the_plugins_of_another_organisation() {
    let world = World::new().await;
    let other = world.other_org().await;
    world.bind(spinning(), vec![OperationKind::SessionCreate], "{}").await;
    other.bind(labelling(), vec![OperationKind::SessionCreate], "{}").await;
    for _ in 0..24 {
        world.create().await;
    }
    let driver = tokio::spawn(std::sync::Arc::clone(&world.service).run(std::future::pending()));
    let session = other.create().await;
    let seen = other.service.wait_for(other.org, session, HOUR, |session| session.labels.contains_key("seen")).await;
    assert!(matches!(seen, Waited::Reached(_)), "{seen:?}");
    let snapshot = world.store.snapshot().unwrap();
    let untried = snapshot.errands_due(world.org, world.service.now(), 99).unwrap();
    assert!(untried.iter().any(|errand| errand.attempts == 0), "the others were through before");
    driver.abort();
}
