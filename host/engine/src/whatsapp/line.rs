//! What a run shares with those who use it: the service that sends, and the client that hears.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_core::{Settings, Timestamp};
use tokio::sync::Notify;
use whatsapp_rust::Client;
use whatsapp_rust::types::events::{Event, EventHandler, EventInterest, ServerAck};

use super::acks::{Acks, Answer};
use super::crew::Crew;
use super::facts;
use super::reports::Voice;

/// How many receipts of one session may wait for its run; further ones are dropped. Everything else that waits there is rare.
const MAX_WAITING_RECEIPTS: usize = 256;

/// One run's line.
pub(super) struct Line {
    pub(super) voice: Voice,
    pub(super) acks: Arc<Acks>,
    heard: Mutex<Heard>,
    woken: Notify,
    /// The client, while it is connected.
    client: Mutex<Option<Arc<Client>>>,
    /// The crew of the last client, once there was one.
    crew: Mutex<Option<Crew>>,
    settings: Mutex<Arc<Settings>>,
    /// Held while everybody is shown what the account is doing, so that what was wanted last is shown last.
    pub(super) showing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Heard {
    events: VecDeque<Arc<Event>>,
    receipts: usize,
}

impl Line {
    pub(super) fn new(voice: Voice, settings: Settings) -> Self {
        Self {
            voice,
            acks: Arc::default(),
            heard: Mutex::default(),
            woken: Notify::new(),
            client: Mutex::default(),
            crew: Mutex::default(),
            settings: Mutex::new(Arc::new(settings)),
            showing: Arc::default(),
        }
    }

    /// The next event, in the order in which the client made them. It is for one waiter, and forgets nothing when dropped.
    pub(super) async fn next(&self) -> Arc<Event> {
        loop {
            let event = {
                let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                let event = heard.events.pop_front();
                if let Some(Event::Receipt(_)) = event.as_deref() {
                    heard.receipts -= 1;
                }
                event
            };
            match event {
                Some(event) => return event,
                None => self.woken.notified().await,
            }
        }
    }

    /// The line is another client's now. What one that is gone has said means nothing to the next one.
    pub(super) fn belong_to(&self, crew: Crew) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Heard::default();
        *self.crew.lock().unwrap_or_else(PoisonError::into_inner) = Some(crew);
    }

    /// Those who work for the client, and end with it.
    pub(super) fn crew(&self) -> Option<Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The client, if it is connected.
    pub(super) fn client(&self) -> Option<Arc<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn up(&self, client: &Arc<Client>) {
        self.acks.open();
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(client));
    }

    pub(super) fn down(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.acks.give_up();
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn configure(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    fn hear(&self, event: Arc<Event>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Receipt(_) = &*event {
            if heard.receipts >= MAX_WAITING_RECEIPTS {
                return;
            }
            heard.receipts += 1;
        }
        heard.events.push_back(event);
        drop(heard);
        self.woken.notify_one();
    }
}

/// The client's listener. It is called while the client works and must not take long.
pub(super) struct Ear(pub(super) Arc<Line>);

impl EventHandler for Ear {
    fn handle_event(&self, event: Arc<Event>) {
        match &*event {
            // Who waits for an answer to a message hears it at once.
            Event::ServerAck(ack) => {
                if ack.class.as_deref() == Some("message") {
                    self.0.acks.settle(&ack.id, answer(ack));
                }
            }
            // Those were told to the service before the client told them here.
            Event::Messages(batch) if batch.hook_committed => {}
            _ => self.0.hear(event),
        }
    }

    fn interest(&self) -> EventInterest {
        facts::interest()
    }
}

fn answer(ack: &ServerAck) -> Answer {
    let at = ack.timestamp.and_then(|at| u64::try_from(at.timestamp_millis()).ok());
    Answer { error: ack.error.clone(), at: at.map(Timestamp::from_millis) }
}
