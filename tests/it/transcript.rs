//! What goldens are made of: requests and responses, with whatever differs from run to run replaced by a name.
//!
//! The first id of a kind becomes `<sess-1>`, the next one `<sess-2>`, wherever they occur; times, secrets, digests and measurements likewise.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use serde_json::Value;

use crate::client::{Client, Reply};

/// The prefixes of ids.
const KINDS: [&str; 13] = ["dlv", "pub", "wh", "org", "sess", "plug", "bind", "key", "req", "dec", "evt", "out", "aud"];
/// Fields that are measured, or counted by chance.
const MEASURED: [&str; 11] = [
    "fuel",
    "generation",
    "input",
    "memoryBytes",
    "micros",
    "retryAfterSeconds",
    "size",
    "tookMs",
    "waMessageId",
    "expires_in",
    "retry_after",
];
/// Headers that are the same in every response, or as long as it is by chance.
const DULL: [&str; 3] = ["content-length", "date", "x-request-id"];

/// A transcript in the making.
#[derive(Default)]
pub(crate) struct Transcript {
    text: String,
    names: Names,
}

impl Transcript {
    /// A line about what comes next.
    pub(crate) fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        writeln!(self.text, "=== {title} ===").unwrap();
    }

    /// Asks and writes down both sides. A body that is null is none.
    pub(crate) async fn ask(&mut self, client: &Client, method: &str, path: &str, body: Value) -> Reply {
        self.ask_with(client, method, path, Vec::new(), body).await
    }

    /// The same with more headers.
    pub(crate) async fn ask_with(
        &mut self,
        client: &Client,
        method: &str,
        path: &str,
        headers: Vec<(String, String)>,
        body: Value,
    ) -> Reply {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let said: String = headers.iter().map(|(name, value)| format!("{name}: {value} ")).collect();
        let line = format!("\n{method} {path} {said}{sent}");
        let reply = client.send_with(method, path, headers, Bytes::from(sent)).await;
        self.exchange(line.trim_end_matches(' '), &reply);
        reply
    }

    /// Writes down a request in the caller's words, and its response.
    pub(crate) fn exchange(&mut self, line: &str, reply: &Reply) {
        self.names.learn_instances(line);
        let line = self.names.replace(line);
        self.text.push_str(&line);
        self.text.push('\n');
        self.answer(reply);
    }

    fn answer(&mut self, reply: &Reply) {
        write!(self.text, "{}", reply.status).unwrap();
        for (name, value) in &reply.headers {
            let value = if name == "retry-after" { "<seconds>" } else { value };
            if !DULL.contains(&name.as_str()) && value != "application/json" {
                let value = self.names.replace(value);
                write!(self.text, " {name}: {value}").unwrap();
            }
        }
        self.text.push('\n');
        if !reply.body.is_empty() {
            let mut body = reply.json();
            self.names.learn(&body);
            measure(&mut body);
            let body = self.names.replace(&serde_json::to_string_pretty(&body).unwrap());
            self.text.push_str(&body);
            self.text.push('\n');
        }
    }

    /// The transcript.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Takes out what is measured, and the codes that are credentials.
fn measure(value: &mut Value) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(measure),
        Value::Object(fields) => {
            let is_code = fields.len() == 1
                || fields.contains_key("pairingCode")
                || fields.len() == 2 && fields.contains_key("expiresAt");
            let is_document = fields.contains_key("mimetype");
            for (name, value) in fields {
                let is_shown = is_code && (name == "code" || name == "pairingCode") && value.is_string()
                    || is_document && name == "data";
                if MEASURED.contains(&name.as_str()) || is_shown {
                    *value = Value::from(format!("<{name}>"));
                } else {
                    measure(value);
                }
            }
        }
        Value::String(text) if text.starts_with("data:image/png;base64,") => "<picture>".clone_into(text),
        Value::String(text) if is_date(text) => "<date>".clone_into(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a text is a point in time as ISO 8601.
fn is_date(text: &str) -> bool {
    let is_form = |c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | 'T' | 'Z');
    text.len() >= 20 && text.ends_with('Z') && text.chars().all(is_form)
}

/// Whether a text is a UUID.
fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split('-').map(str::len).eq(lengths) && text.split('-').all(is_hex)
}

/// The names that were given.
#[derive(Default)]
struct Names {
    given: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, u32>,
}

impl Names {
    /// Gives names to the instances that a request names.
    fn learn_instances(&mut self, line: &str) {
        for after in line.split("instance_id").skip(1) {
            let id = after.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
            let id = id.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            if id.len() == 12 {
                self.give("instance", id);
            }
        }
    }

    /// Gives names to those of Wawp's that only their fields tell from other words.
    fn learn(&mut self, value: &Value) {
        match value {
            Value::Array(entries) => entries.iter().for_each(|entry| self.learn(entry)),
            Value::Object(fields) => {
                let text = |field: &str| fields.get(field).and_then(Value::as_str);
                if let Some(id) = text("instance_id").or_else(|| text("instanceId")).filter(|id| id.len() == 12) {
                    self.give("instance", id);
                }
                let name = text("name").or_else(|| text("instanceName"));
                if let Some(number) = name.and_then(|name| name.strip_prefix("wawp-")) {
                    self.give("number", number);
                }
                fields.values().for_each(|value| self.learn(value));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The text with names in it.
    fn replace(&mut self, text: &str) -> String {
        let mut replaced = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let Some(uuid) = rest.get(..36).filter(|text| is_uuid(text)) {
                replaced.push_str(&self.give("uuid", uuid));
                rest = &rest[36..];
                continue;
            }
            if let Some(date) = rest.get(..24).filter(|text| is_date(text)) {
                replaced.push_str("<date>");
                rest = &rest[date.len()..];
                continue;
            }
            let word_len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if word_len == 0 {
                replaced.push(next);
                rest = &rest[next.len_utf8()..];
                continue;
            }
            let (word, after) = rest.split_at(word_len);
            if after.starts_with('…') && word.len() == 12 {
                replaced.push_str("<digest>");
                rest = after;
                continue;
            }
            match self.name(word) {
                Some(name) => replaced.push_str(&name),
                None => replaced.push_str(word),
            }
            rest = after;
        }
        replaced
    }

    fn name(&mut self, word: &str) -> Option<String> {
        let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if word.len() == 13 && word.starts_with('1') && word.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some("<time>".to_owned());
        }
        if let Some(given) = self.given.get(word) {
            return Some(given.clone());
        }
        if word.len() == 10 && word.starts_with('1') && word.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some("<seconds>".to_owned());
        }
        let is_message = |text: &str| {
            text.len() == 20 && text.starts_with("3EB0") && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if is_message(word) {
            return Some(self.give("message", word));
        }
        if let Some((before, id)) = word.rsplit_once('_').filter(|(_, id)| is_message(id)) {
            return Some(format!("{before}_{}", self.give("message", id)));
        }
        if word.strip_prefix("wa_").is_some_and(is_hex) {
            return Some(self.give("secret", word));
        }
        if is_hex(word) {
            return Some(self.give("digest", word));
        }
        let (prefix, id) = word.split_once('_')?;
        let kind = KINDS.into_iter().find(|kind| *kind == prefix).filter(|_| id.len() == 26)?;
        Some(self.give(kind, word))
    }

    fn give(&mut self, kind: &'static str, word: &str) -> String {
        if let Some(name) = self.given.get(word) {
            return name.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let name = format!("<{kind}-{count}>");
        self.given.insert(word.to_owned(), name.clone());
        name
    }
}
