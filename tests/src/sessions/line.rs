//! One session as its owner has it: a number of its own whose phone scans, and a friend who texts with it.
//!
//! Everything that goes through the gateway errs when the gateway is gone, and can be done again when it is back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_whatsapp_server::{Controls, DeviceState, State};
use serde_json::{Value, json};

use super::scene::{LOOK, Scene, Watched};
use crate::calls::{Answer, Caller, Gateway, Lost};

/// The first of the numbers that are linked, and of those that text with them.
const NUMBERS: u64 = 628_120_000_001;
const FRIENDS: u64 = 491_520_000_001;
/// How long a device that was scanned may take to log in before it is looked what became of it.
const LOGIN: Duration = Duration::from_secs(2);
/// How long an answer may take. A gateway that has not answered by then does not answer at all.
const ANSWER: Duration = Duration::from_secs(120);
/// How long a code may take that was typed.
const TYPED: Duration = Duration::from_secs(5);
/// How long a session whose device is linked may say that it is not: longer than the gateway tries to find out.
const HESITATION: Duration = Duration::from_secs(40);

/// One session.
pub(super) struct Line {
    pub(super) number: u64,
    /// None until it was made.
    pub(super) id: Option<String>,
    pub(super) controls: Controls,
    pub(super) seen: Watched,
    /// The last thing that was refused, for reports.
    pub(super) refused: String,
    friend: u64,
    gateway: Gateway,
    key: String,
    caller: Caller,
    /// The last of its devices that was logged out on purpose.
    left: u16,
}

/// What became of a session that was to be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// It is.
    Up,
    /// Its device is linked, and it does not know that.
    Lost,
    /// It is not, in all that time.
    Stuck,
}

/// How often a device has logged in.
pub(super) fn logins(device: &DeviceState) -> u32 {
    device.logins.xx + device.logins.ik + device.logins.fallback
}

fn confirmed(state: &State, number: u64, left: u16) -> Option<u16> {
    let devices = state.account(number)?.devices.iter();
    let confirmed = devices.filter(|device| device.linked && device.device > left && logins(device) > 0);
    confirmed.map(|device| device.device).max()
}

impl Line {
    /// The so-manieth one of a run, still to be made.
    pub(super) fn new(scene: &Scene, place: u64) -> Self {
        // Numbers that end in four zeros are not on WhatsApp.
        let place = place + place / 9_999;
        Self {
            number: NUMBERS + place,
            id: None,
            controls: Controls::clone(&scene.server),
            seen: scene.seen.clone(),
            refused: String::new(),
            friend: FRIENDS + place,
            gateway: scene.gateway.clone(),
            key: scene.key.clone(),
            caller: scene.caller(),
            left: 0,
        }
    }

    /// Closes its caller's connection; another one is made when it is needed.
    pub(super) fn rest(&mut self) {
        self.caller = Caller::new(self.gateway.clone(), &self.key);
    }

    async fn ask(&mut self, method: &str, rest: &str, body: Option<&Value>) -> Result<Answer, Lost> {
        let path = format!("/api/v1/sessions/{}{rest}", self.id.as_deref().unwrap_or_default());
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let answer = self.call(method, &path, bytes, None).await?;
        self.note(method, &path, &answer);
        Ok(answer)
    }

    async fn call(&mut self, method: &str, path: &str, body: Bytes, key: Option<&str>) -> Result<Answer, Lost> {
        let asked = self.caller.ask(method, path, body, key);
        tokio::time::timeout(ANSWER, asked).await.unwrap_or(Err(Lost::Unanswered))
    }

    fn note(&mut self, method: &str, path: &str, answer: &Answer) {
        if answer.status >= 300 {
            self.refused = format!("{method} {path}: {} {}", answer.status, answer.body["error"]);
        }
    }

    /// Makes it, if it is not there; whether it is. However often that is tried, there is only one.
    pub(super) async fn create(&mut self, start: bool) -> Result<bool, Lost> {
        if self.id.is_none() {
            let body = json!({ "label": format!("line {}", self.number), "start": start, "ratePolicy": "unlimited" });
            let (path, key) = ("/api/v1/sessions", format!("create-{}", self.number));
            let answer = self.call("POST", path, Bytes::from(body.to_string()), Some(&key)).await?;
            self.note("POST", path, &answer);
            self.id = answer.body["id"].as_str().filter(|_| answer.status < 300).map(str::to_owned);
        }
        Ok(self.id.is_some())
    }

    /// Its status, as its owner sees it.
    pub(super) async fn status(&mut self) -> Result<String, Lost> {
        let answer = self.ask("GET", "", None).await?;
        Ok(answer.body["status"].as_str().unwrap_or_default().to_owned())
    }

    /// `start`, `stop` and so on; whether that was done.
    pub(super) async fn act(&mut self, action: &str) -> Result<bool, Lost> {
        Ok(self.ask("POST", &format!(":{action}"), None).await?.status < 300)
    }

    /// The device that is linked, has logged in, and was not logged out since.
    pub(super) fn device(&self, state: &State) -> Option<u16> {
        confirmed(state, self.number, self.left)
    }

    /// Expects nothing more of the devices that it has had until now, because they are about to be logged out.
    pub(super) fn let_go(&mut self) {
        let state = self.controls.state();
        let devices = state.account(self.number).map_or(&[][..], |account| &account.devices);
        self.left = devices.iter().map(|device| device.device).max().unwrap_or(self.left);
    }

    /// Whether a device was logged out on purpose, or may have been.
    pub(super) fn has_left(&self, device: u16) -> bool {
        device <= self.left
    }

    /// The QR code that it shows.
    pub(super) async fn qr(&mut self) -> Result<Option<String>, Lost> {
        let answer = self.ask("GET", "/qr", None).await?;
        Ok(answer.body["code"].as_str().filter(|_| answer.status == 200).map(str::to_owned))
    }

    /// Its phone scans that code, or somebody types a code into it; then its device gets some time to log in. What has become of
    /// that, the server says.
    pub(super) async fn link(&mut self, by_code: bool) -> Result<(), Lost> {
        let linked = if by_code {
            let body = json!({ "phone": self.number.to_string() });
            let answer = self.ask("POST", "/pairing-code", Some(&body)).await?;
            let Some(code) = answer.body["code"].as_str().filter(|_| answer.status == 200) else { return Ok(()) };
            let code = code.replace('-', "");
            // The device does not answer any more if the gateway is killed in the middle of this.
            let typed = tokio::time::timeout(TYPED, self.controls.code(self.number, &code)).await;
            typed.is_ok_and(|typed| typed.is_ok())
        } else {
            let Some(code) = self.qr().await? else { return Ok(()) };
            self.controls.scan(self.number, &code).is_ok()
        };
        if linked {
            let (number, left) = (self.number, self.left);
            self.seen.until(LOGIN, move |state| confirmed(state, number, left).is_some()).await;
        }
        Ok(())
    }

    /// Does what brings it on that has this status and is to be connected. Who has a device that is linked needs no scan.
    pub(super) async fn nudge(&mut self, status: &str, by_code: bool) -> Result<(), Lost> {
        let is_linked = self.device(&self.seen.now()).is_some();
        match status {
            "scan_qr_code" if !is_linked => self.link(by_code).await?,
            "logged_out" if is_linked => {}
            "stopped" | "failed" | "logged_out" => {
                let starts = self.act("start").await?;
                if !starts && !is_linked {
                    self.qr().await?;
                }
            }
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// Brings it to where it is connected.
    pub(super) async fn comes_up(&mut self, within: Duration) -> Result<Came, Lost> {
        let (began, mut denied) = (Instant::now(), None);
        loop {
            let status = if self.create(true).await? { self.status().await? } else { String::new() };
            if status == "working" {
                return Ok(Came::Up);
            }
            let is_linked = self.device(&self.seen.now()).is_some();
            if is_linked && ["scan_qr_code", "logged_out"].contains(&status.as_str()) {
                if denied.get_or_insert_with(Instant::now).elapsed() > HESITATION {
                    return Ok(Came::Lost);
                }
            } else {
                denied = None;
            }
            if began.elapsed() > within {
                return Ok(Came::Stuck);
            }
            self.nudge(&status, false).await?;
        }
    }

    /// Texts its friend: WhatsApp's id of the text, if it was sent.
    pub(super) async fn says(&mut self, words: &str) -> Result<Option<String>, Lost> {
        let body = json!({ "type": "text", "to": format!("{}@s.whatsapp.net", self.friend), "text": words });
        let answer = self.ask("POST", "/messages", Some(&body)).await?;
        Ok(answer.body["waMessageId"].as_str().filter(|_| answer.status == 200).map(str::to_owned))
    }

    /// Its friend's phone texts its device, if that is linked: the device, and the id of the text.
    pub(super) fn hears(&self, words: &str) -> Option<(u16, String)> {
        let device = self.device(&self.seen.now())?;
        let id = self.controls.send(self.friend, self.number, Some(device), words).ok()?;
        Some((device, id))
    }
}
