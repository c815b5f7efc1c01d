//! Where a stream's events come from: the outbox of one organisation, or all of them in turn.

use std::collections::{BTreeSet, HashMap, VecDeque};

use portcullis_core::{EventKind, OperationKind, OrgId, OutboxPlace, Permit, Target, authorize};
use portcullis_service::{Everybody, Follower, PlacedEvent, Service, ServiceError};
use portcullis_webhook::{About, Telling, native};

use super::mark::Mark;
use super::wanted::Wanted;

/// How many events a batch has at most.
const BATCH: usize = 64;
/// When a batch is full, in bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// A part of an event, ready to be told.
#[derive(Debug)]
pub(crate) struct Event {
    /// From where on who has seen it goes on.
    pub(crate) mark: Mark,
    pub(crate) name: &'static str,
    /// A JSON document.
    pub(crate) envelope: Vec<u8>,
}

/// What a look came to besides the events in the batch.
#[derive(Default)]
pub(super) struct Looked {
    /// Whether there may be more.
    pub(super) more: bool,
    /// The last of the events that should have been told next and are no longer there.
    pub(super) missing: Option<OutboxPlace>,
    /// The only session of the stream was deleted, and nothing more will happen to it.
    pub(super) is_over: bool,
}

/// Where a stream's events come from.
pub(super) enum Source {
    /// One organisation, or one session of it.
    Org(OrgSource),
    /// All organisations.
    All(AllSource),
}

/// The events of one organisation, or of one session of it.
pub(super) struct OrgSource {
    pub(super) permit: Permit,
    pub(super) follower: Follower,
    /// How far everything was told, or passed over.
    pub(super) told: Mark,
}

/// The events of all organisations, each in its own order. There is no order among them, and so no place to resume from.
pub(super) struct AllSource {
    permit: Permit,
    everybody: Everybody,
    told: HashMap<OrgId, OutboxPlace>,
    /// Who may have news, in turn.
    stirred: VecDeque<OrgId>,
    /// The same, to be asked.
    is_stirred: BTreeSet<OrgId>,
}

impl Source {
    /// Completes when it is worth looking again.
    pub(super) async fn news(&mut self, service: &Service) {
        match self {
            Self::Org(source) => source.follower.news().await,
            Self::All(source) => match source.everybody.news().await {
                Some(org) => source.stir(org),
                None => source.stir_all(service),
            },
        }
    }

    /// Fills the batch from where it has come to.
    pub(super) fn look(
        &mut self,
        service: &Service,
        wanted: &Wanted,
        batch: &mut VecDeque<Event>,
    ) -> Result<Looked, ServiceError> {
        match self {
            Self::Org(source) => {
                let (looked, through) = look(service, &source.permit, source.told, wanted, batch)?;
                source.told = through;
                Ok(looked)
            }
            Self::All(source) => source.look(service, wanted, batch),
        }
    }

    /// Prepares for a look although there was no news; whether the only session of the stream is gone.
    pub(super) fn look_around(&mut self, service: &Service) -> bool {
        match self {
            Self::Org(source) => !service.is_there(&source.permit),
            Self::All(source) => {
                source.stir_all(service);
                false
            }
        }
    }

    /// The place from where a stream that was told everything goes on, if it has one.
    pub(super) fn mark(&self) -> Option<Mark> {
        match self {
            Self::Org(source) => Some(source.told),
            Self::All(_) => None,
        }
    }

    pub(super) fn permit(&self) -> &Permit {
        match self {
            Self::Org(source) => &source.permit,
            Self::All(source) => &source.permit,
        }
    }
}

impl AllSource {
    /// Everything from now on.
    pub(super) fn new(service: &Service, permit: Permit) -> Result<Self, ServiceError> {
        // First to be told of news, then to look where everybody stands: nothing happens in between.
        let everybody = service.follow_everybody(&permit)?;
        let mut source =
            Self { permit, everybody, told: HashMap::new(), stirred: VecDeque::new(), is_stirred: BTreeSet::new() };
        for org in service.all_orgs() {
            source.told.insert(org, service.events_end(&source.permit_of(org)?)?);
        }
        Ok(source)
    }

    fn permit_of(&self, org: OrgId) -> Result<Permit, ServiceError> {
        Ok(authorize(self.permit.principal(), OperationKind::EventRead, Target::org(org))?)
    }

    fn stir(&mut self, org: OrgId) {
        if self.is_stirred.insert(org) {
            self.stirred.push_back(org);
        }
    }

    fn stir_all(&mut self, service: &Service) {
        let all = service.all_orgs();
        let there: BTreeSet<OrgId> = all.iter().copied().collect();
        self.told.retain(|org, _| there.contains(org));
        all.into_iter().for_each(|org| self.stir(org));
    }

    fn look(
        &mut self,
        service: &Service,
        wanted: &Wanted,
        batch: &mut VecDeque<Event>,
    ) -> Result<Looked, ServiceError> {
        let Some(org) = self.stirred.pop_front() else { return Ok(Looked::default()) };
        self.is_stirred.remove(&org);
        let permit = self.permit_of(org)?;
        // An organisation that was not there at the beginning is new, and all of it is news.
        let told = self.told.get(&org).copied().unwrap_or_default();
        let (looked, through) = look(service, &permit, Mark::whole(told), wanted, batch)?;
        self.told.insert(org, through.behind());
        if looked.more {
            self.stir(org);
        }
        Ok(Looked { more: looked.more || !self.stirred.is_empty(), ..looked })
    }
}

/// Fills the batch with the events behind a mark; how far it has come.
fn look(
    service: &Service,
    permit: &Permit,
    told: Mark,
    wanted: &Wanted,
    batch: &mut VecDeque<Event>,
) -> Result<(Looked, Mark), ServiceError> {
    let (mut events, mut bytes, mut is_over) = (0, 0, false);
    let of_one = permit.target().session.is_some();
    let wants = |_, kind| {
        is_over |= of_one && kind == EventKind::Deleted;
        !wanted.of(kind).is_empty()
    };
    let take = |placed: PlacedEvent| {
        bytes += ready(service, &placed, told, wanted, batch);
        events += 1;
        events < BATCH && bytes < BATCH_BYTES
    };
    let stretch = service.look_at_events(permit, told.behind(), wants, take)?;
    let looked = Looked { more: stretch.more, missing: stretch.missing, is_over };
    // Part of the next event was told before; it is not begun anew.
    let through = if stretch.through <= told.behind() { told } else { Mark::whole(stretch.through) };
    Ok((looked, through))
}

/// Puts the wanted parts of an event into the batch; how many bytes they have.
fn ready(service: &Service, placed: &PlacedEvent, told: Mark, wanted: &Wanted, batch: &mut VecDeque<Event>) -> usize {
    let PlacedEvent { place, seq, event } = placed;
    let session = event.session.and_then(|id| service.seen_session(event.org, id));
    let about = session.as_deref().map(About::from);
    let telling = Telling { event, seq: *seq, about: about.as_ref(), server_url: None, engine: service.engine_name() };
    let parts = wanted.of(event.body.kind()).iter().copied().filter(|part| !told.covers(*place, *part));
    let mut told: Vec<_> = parts
        .filter_map(|part| {
            let message = native::router(part, &telling)?;
            let mark = Mark { place: *place, part: Some(part) };
            Some(Event { mark, name: message.name, envelope: message.body })
        })
        .collect();
    // Behind the last part there is nothing of the event any more.
    if let Some(last) = told.last_mut() {
        last.mark.part = None;
    }
    let bytes = told.iter().map(|event| event.envelope.len()).sum();
    batch.extend(told);
    bytes
}
