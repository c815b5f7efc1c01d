//! The tail of an outbox: what a stream tells next, and when it has to end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use portcullis_core::{EventFormat, EventId, OrgId, OutboxPlace, Permit, Timestamp};
use portcullis_service::{Service, ServiceError};
use portcullis_webhook::{message_id, parts};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::mark::{Mark, Since};
use super::sources::{AllSource, Event, Looked, OrgSource, Source};
use super::wanted::Wanted;
use super::{HEARTBEAT, REPLAYED};
use crate::Front;
use crate::asked::StreamRequest;
use crate::places::StreamPlace;

/// What a stream tells next.
#[derive(Debug)]
pub(crate) enum Told {
    /// A part of an event.
    Event(Event),
    /// What should have come next is no longer there; the stream goes on behind this place.
    Gap(OutboxPlace),
    /// Nothing has happened for a while, and the stream has come this far.
    Beat(Option<Mark>),
    /// Nothing more comes.
    End(Ending),
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The gateway ends.
    Gateway,
    /// The caller may no longer follow events.
    Revoked,
    /// The caller's key or token has expired.
    Expired,
    /// The session is gone.
    SessionGone,
    /// The events cannot be read.
    Failed,
}

impl Ending {
    /// The stable word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway_ending",
            Self::Revoked => "unauthorized",
            Self::Expired => "expired",
            Self::SessionGone => "session_gone",
            Self::Failed => "store_unavailable",
        }
    }
}

/// How much of the past a stream may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    /// Everything that is still there.
    All,
    /// The latest [`REPLAYED`] events, or nothing.
    Latest,
}

/// A stream that was opened.
pub(crate) struct Opened {
    pub(crate) tail: Tail,
    /// From where on it tells, if there is a place to resume from.
    pub(crate) from: Option<Mark>,
    /// Whether it begins somewhere else than was asked.
    pub(crate) lost: bool,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("from", &self.from).field("lost", &self.lost).finish_non_exhaustive()
    }
}

/// A stream's events, as its client takes them.
pub(crate) struct Tail {
    front: Arc<Front>,
    source: Source,
    wanted: Wanted,
    /// What was read and not told yet.
    batch: VecDeque<Event>,
    /// The last event of the stream's only session is in the batch, or was told.
    is_over: bool,
    /// The stream's only session is not there any more, whatever was told of it.
    is_gone: bool,
    doors: watch::Receiver<()>,
    ending: watch::Receiver<bool>,
    /// When the caller's key or token ends.
    until: Option<Timestamp>,
    next_beat: Instant,
    _place: StreamPlace,
}

/// Opens a stream for whoever was permitted to follow events.
///
/// # Errors
/// If they may not any more, or the store cannot be read.
pub(crate) fn open(
    front: &Arc<Front>,
    permit: Permit,
    request: &StreamRequest,
    replay: Replay,
    place: StreamPlace,
) -> Result<Opened, ServiceError> {
    let service = &front.service;
    // Whatever changes from here on is noticed.
    let (doors, ending) = (service.doors(), front.ending.subscribe());
    let wanted = Wanted::new(&request.events, permit.principal().capabilities);
    let until = [request.until, service.end_of_key(&permit)?].into_iter().flatten().min();
    let (source, lost) = if request.firehose {
        (Source::All(AllSource::new(service, permit)?), request.since.is_some())
    } else {
        let follower = service.follow_events(&permit)?;
        let (told, lost) = begin(front, &permit, request.since, replay)?;
        (Source::Org(OrgSource { permit, follower, told }), lost)
    };
    let from = source.mark();
    let tail = Tail {
        front: Arc::clone(front),
        source,
        wanted,
        batch: VecDeque::new(),
        is_over: false,
        is_gone: false,
        doors,
        ending,
        until,
        next_beat: Instant::now() + HEARTBEAT,
        _place: place,
    };
    Ok(Opened { tail, from, lost })
}

/// From where on a stream tells, and whether that is somewhere else than was asked.
fn begin(front: &Front, permit: &Permit, since: Option<Since>, replay: Replay) -> Result<(Mark, bool), ServiceError> {
    let service = &front.service;
    let end = service.events_end(permit)?;
    let from_now = |lost| (Mark::whole(end), lost);
    let is_far = |mark: Mark| replay == Replay::Latest && end.0 - mark.behind().0 > REPLAYED as u64;
    Ok(match since {
        None => from_now(false),
        // A place that was never given out: the data are older than the client.
        Some(Since::Mark(mark)) if mark.place > end || is_far(mark) => from_now(true),
        Some(Since::Mark(mark)) => (mark, false),
        // The event itself is known, so that it may be one further away.
        Some(Since::Event(event)) => match find(service, permit, event, end)? {
            Some(mark) => (mark, false),
            None if replay == Replay::Latest => from_now(true),
            None => {
                let stretch = service.look_at_events(permit, OutboxPlace(0), |_, _| false, |_| true)?;
                (Mark::whole(stretch.missing.unwrap_or_default()), true)
            }
        },
    })
}

/// Where an envelope of this id was told, if it is among the latest. An event of several parts has an id for each.
fn find(service: &Service, permit: &Permit, id: EventId, end: OutboxPlace) -> Result<Option<Mark>, ServiceError> {
    if let Some(place) = service.place_of_event(permit, id, REPLAYED + 1)? {
        return Ok(Some(Mark { place, part: Some(0) }));
    }
    let (mut found, mut after) = (None, OutboxPlace(end.0.saturating_sub(REPLAYED as u64 + 1)));
    let has_parts = |_, kind| parts(EventFormat::Router, kind).len() > 1;
    while found.is_none() && after < end {
        let stretch = service.look_at_events(permit, after, has_parts, |placed| {
            let named = (1..).zip(parts(EventFormat::Router, placed.event.body.kind()).iter().skip(1));
            let part = named.map(|(part, _)| part).find(|part| message_id(placed.event.id, *part) == id);
            found = part.map(|part| Mark { place: placed.place, part: Some(part) });
            found.is_none()
        })?;
        after = stretch.through;
    }
    Ok(found)
}

impl Tail {
    /// What is told next. Nothing is lost if this is dropped before it completes.
    pub(crate) async fn next(&mut self) -> Told {
        loop {
            if let Some(why) = self.has_to_end() {
                return Told::End(why);
            }
            if let Some(event) = self.ready() {
                return Told::Event(event);
            }
            if self.is_over {
                return Told::End(Ending::SessionGone);
            }
            match self.look() {
                Ok(Looked { missing: Some(place), .. }) => return Told::Gap(place),
                Ok(_) if !self.batch.is_empty() || self.is_over => {}
                // Others get their turn between two looks that find nothing to tell.
                Ok(Looked { more: true, .. }) => tokio::task::yield_now().await,
                Ok(_) if self.is_gone => return Told::End(Ending::SessionGone),
                Ok(_) => {
                    if self.wait().await {
                        return Told::Beat(self.source.mark());
                    }
                }
                Err(error) => {
                    let org = self.org();
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(%org, error, "the events of a stream could not be read");
                    return Told::End(Ending::Failed);
                }
            }
        }
    }

    /// What was read already.
    pub(crate) fn ready(&mut self) -> Option<Event> {
        self.batch.pop_front()
    }

    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    pub(crate) fn org(&self) -> OrgId {
        self.source.permit().target().org
    }

    /// Why the stream may tell nothing more, not even what was read already.
    fn has_to_end(&mut self) -> Option<Ending> {
        if *self.ending.borrow() {
            return Some(Ending::Gateway);
        }
        if self.until.is_some_and(|until| until <= self.front.service.now()) {
            return Some(Ending::Expired);
        }
        // The sender lives in the service, so an error cannot come.
        if self.doors.has_changed().unwrap_or(true) {
            self.doors.mark_unchanged();
            if self.front.service.may_follow(self.source.permit()).is_err() {
                return Some(Ending::Revoked);
            }
        }
        None
    }

    /// Reads the next batch.
    fn look(&mut self) -> Result<Looked, ServiceError> {
        let looked = self.source.look(&self.front.service, &self.wanted, &mut self.batch)?;
        self.is_over |= looked.is_over;
        Ok(looked)
    }

    /// Waits until it is worth looking again; whether whoever listens is to hear first that the stream lives.
    async fn wait(&mut self) -> bool {
        let (source, service, until) = (&mut self.source, &self.front.service, self.until);
        let expiry = async {
            match until {
                Some(until) => service.reach(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = source.news(service) => return false,
            _ = self.doors.changed() => {
                // It is looked at before anything else is told.
                self.doors.mark_changed();
                return false;
            }
            _ = self.ending.changed() => return false,
            () = expiry => return false,
            () = sleep_until(self.next_beat) => {}
        }
        self.next_beat = Instant::now() + HEARTBEAT;
        self.is_gone = source.look_around(service);
        true
    }
}
