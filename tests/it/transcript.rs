//! What goldens are made of: requests and responses, with whatever differs from run to run replaced by a name.
//!
//! The first id of a kind becomes `<sess-1>`, the next one `<sess-2>`, wherever they occur; times, secrets, digests and measurements likewise.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use serde_json::Value;

use crate::client::{Client, Reply};

/// The prefixes of ids.
const KINDS: [&str; 10] = ["org", "sess", "plug", "bind", "key", "req", "dec", "evt", "out", "aud"];
/// Fields that are measured, or counted by chance.
const MEASURED: [&str; 8] =
    ["fuel", "generation", "input", "memoryBytes", "micros", "retryAfterSeconds", "size", "waMessageId"];
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
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let line = format!("\n{method} {path} {sent}");
        let reply = client.send(method, path, Bytes::from(sent)).await;
        let line = self.names.replace(line.trim_end_matches(' '));
        self.text.push_str(&line);
        self.text.push('\n');
        self.answer(&reply);
        reply
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
            let is_code = fields.len() == 2 && fields.contains_key("expiresAt");
            for (name, value) in fields {
                if MEASURED.contains(&name.as_str()) || is_code && name == "code" {
                    *value = Value::from(format!("<{name}>"));
                } else {
                    measure(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The names that were given.
#[derive(Default)]
struct Names {
    given: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, u32>,
}

impl Names {
    /// The text with names in it.
    fn replace(&mut self, text: &str) -> String {
        let mut replaced = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let word_len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if word_len == 0 {
                replaced.push(next);
                rest = &rest[next.len_utf8()..];
                continue;
            }
            let (word, after) = rest.split_at(word_len);
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
