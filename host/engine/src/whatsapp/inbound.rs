//! Messages that come in: WhatsApp is told that it may forget one only after the service has recorded it.
//!
//! The client asks before it answers WhatsApp, and waits meanwhile. If the service does not record a text in time, or the run is
//! halted, there is no answer, and WhatsApp sends the message again the next time the session connects.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::Instant;
use whatsapp_rust::anyhow::{self, anyhow};
use whatsapp_rust::types::events::InboundMessage;
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::{Client, InboundDurabilityHook};

use super::behaviour;
use super::crew::Crew;
use super::line::Line;
use super::message;
use super::reports::RECORD_TIMEOUT;
use crate::IncomingText;

/// How many texts are remembered of batches of which not all could be recorded.
const MAX_REMEMBERED: usize = 1024;

/// The door through which messages come in.
pub(super) struct Door {
    line: Arc<Line>,
    crew: Crew,
    /// Texts that were recorded in a batch that was not recorded as a whole, and so comes again as a whole.
    recorded: Mutex<HashSet<(String, Option<String>, String)>>,
}

impl Door {
    pub(super) fn new(line: Arc<Line>, crew: Crew) -> Self {
        Self { line, crew, recorded: Mutex::default() }
    }

    async fn record(&self, texts: Vec<IncomingText>) -> bool {
        let end = Instant::now() + RECORD_TIMEOUT;
        let mut done = Vec::new();
        for text in texts {
            let id = (text.from.clone(), text.sender.clone(), text.id.clone());
            let is_known = self.recorded.lock().unwrap_or_else(PoisonError::into_inner).contains(&id);
            if !is_known && !self.line.voice.record(text, end).await {
                let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
                if recorded.len() + done.len() <= MAX_REMEMBERED {
                    recorded.extend(done);
                }
                return false;
            }
            done.push(id);
        }
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &done {
            recorded.remove(id);
        }
        true
    }
}

#[async_trait]
impl InboundDurabilityHook for Door {
    async fn on_messages(&self, client: Arc<Client>, batch: &[InboundMessage]) -> anyhow::Result<()> {
        let settings = self.line.settings();
        if !self.record(texts(batch, settings.ignore_groups)).await {
            return Err(anyhow!("the texts were not recorded"));
        }
        let read = behaviour::read(batch, &settings);
        if !read.is_empty() {
            // The client holds a lock on the sender until this returns.
            self.crew.begin(async move { behaviour::mark(&client, read).await });
        }
        Ok(())
    }
}

/// The texts among messages that are reported.
pub(super) fn texts(batch: &[InboundMessage], ignore_groups: bool) -> Vec<IncomingText> {
    let reported = batch.iter().filter(|inbound| !(ignore_groups && inbound.info.source.chat.is_group()));
    reported.filter_map(|inbound| message::text_in(&inbound.message, &inbound.info)).collect()
}
