//! What the server has seen, for tests to ask: texts, unlinks, and how often some things happened.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::registry::DeviceId;

/// Everything that is remembered of what happened.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) texts: Vec<Text>,
    pub(crate) unlinks: Vec<Unlink>,
    pub(crate) calls: Vec<Call>,
    pub(crate) totals: Totals,
    by_id: HashMap<String, Vec<usize>>,
}

/// A text that the server took from a device, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Who has sent it.
    pub number: u64,
    /// From which device; 0 is the phone.
    pub device: u16,
    /// The id that the sender gave it.
    pub id: String,
    /// For which number it is, or which group.
    pub to: u64,
    /// What it says, as the recipient's phone has decrypted it.
    pub text: Option<String>,
    /// How often the server took it. More than once means that the sender has sent it again by itself.
    pub accepted: u32,
    /// How often it was sent again because a recipient had asked for it.
    pub repeated: u32,
    /// The error with which the server refused it.
    pub refused: Option<u16>,
    /// How often a recipient's phone has decrypted it.
    pub decrypted: u32,
    /// How often a recipient's phone could not.
    pub undecryptable: u32,
    /// The recipient's linked devices.
    pub copies: Vec<Delivery>,
    /// Whether the recipient has read it.
    pub read: bool,
    /// The sender's address of the recipient, which receipts come from.
    #[serde(skip)]
    pub(crate) chat: String,
}

/// A linked device's copy of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Which of the recipient's devices.
    pub device: u16,
    /// How often it was sent to the device.
    pub sent: u32,
    /// How the device has acknowledged it last: `delivery`, `inactive`, `read` and so on, which come in any order.
    pub receipt: Option<String>,
    /// How often the device asked for it again because it could not decrypt it.
    pub retries: u32,
}

/// A device that was linked and is no more, or that asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlink {
    /// Whose device.
    pub number: u64,
    /// Which device.
    pub device: u16,
    /// Who wanted it.
    pub by: UnlinkedBy,
    /// Whether the device was told that it is done.
    pub confirmed: bool,
}

/// A call for an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The id that the caller gave it.
    pub id: String,
    /// Whose phone calls.
    pub from: u64,
    /// Which number is called.
    pub to: u64,
    /// Which of that number's devices have refused it.
    pub refused_by: Vec<u16>,
}

/// Who ends a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnlinkedBy {
    /// The device itself.
    Device,
    /// The phone.
    Phone,
}

/// How often some things happened since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Connections that were made, whatever became of them.
    pub accepted: u64,
    /// Connections that were closed because connects are refused.
    pub refused: u64,
    /// Handshakes that did not come to an end.
    pub failed_handshakes: u64,
    /// Connections that asked to be paired.
    pub registrations: u64,
    /// Devices that were linked.
    pub pairings: u64,
    /// Logins and pairings that were refused.
    pub failures: u64,
    /// Questions that were left without an answer.
    pub unanswered: u64,
    /// Questions for numbers of which it is asked whether they are on WhatsApp.
    pub number_checks: u64,
    /// Receipts that were lost, because receipts are.
    pub lost_receipts: u64,
}

impl Seen {
    /// The entry of a text, which it has from now on.
    pub(crate) fn text(&mut self, from: DeviceId, id: &str, to: u64, chat: &str) -> &mut Text {
        let at = match self.position(from, id) {
            Some(at) => at,
            None => {
                self.texts.push(Text::new(from, id, to, chat));
                self.by_id.entry(id.to_owned()).or_default().push(self.texts.len() - 1);
                self.texts.len() - 1
            }
        };
        &mut self.texts[at]
    }

    pub(crate) fn find(&mut self, from: DeviceId, id: &str) -> Option<&mut Text> {
        let at = self.position(from, id)?;
        self.texts.get_mut(at)
    }

    /// A text of that id from any device of a number.
    pub(crate) fn of(&mut self, number: u64, id: &str) -> Option<&mut Text> {
        let at = self.by_id.get(id)?.iter().copied().find(|at| self.texts[*at].number == number)?;
        self.texts.get_mut(at)
    }

    /// A text of that id for a number.
    pub(crate) fn for_number(&mut self, to: u64, id: &str) -> Option<&mut Text> {
        let at = self.by_id.get(id)?.iter().copied().find(|at| self.texts[*at].to == to)?;
        self.texts.get_mut(at)
    }

    fn position(&self, from: DeviceId, id: &str) -> Option<usize> {
        let is_it = |at: &usize| self.texts[*at].number == from.number && self.texts[*at].device == from.device;
        self.by_id.get(id)?.iter().copied().find(is_it)
    }
}

impl Text {
    fn new(from: DeviceId, id: &str, to: u64, chat: &str) -> Self {
        Self {
            number: from.number,
            device: from.device,
            id: id.to_owned(),
            to,
            text: None,
            accepted: 0,
            repeated: 0,
            refused: None,
            decrypted: 0,
            undecryptable: 0,
            copies: Vec::new(),
            read: false,
            chat: chat.to_owned(),
        }
    }

    pub(crate) fn sender(&self) -> DeviceId {
        DeviceId { number: self.number, device: self.device }
    }

    /// The copy of one of the recipient's devices.
    pub(crate) fn copy(&mut self, device: u16) -> &mut Delivery {
        let at = match self.copies.iter().position(|copy| copy.device == device) {
            Some(at) => at,
            None => {
                self.copies.push(Delivery { device, sent: 0, receipt: None, retries: 0 });
                self.copies.len() - 1
            }
        };
        &mut self.copies[at]
    }
}
