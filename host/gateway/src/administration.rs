//! Administration over HTTP against a running gateway.

use bytes::Bytes;
use portcullis_net::{Client, Download, Method, Response};
use serde_json::{Value, json};

use crate::cli::{Decision, Key, MasterKey, Org, Remote, Session};
use crate::{Failure, terminal};

pub(crate) async fn org(remote: Remote, command: Org) -> Result<(), Failure> {
    let gateway = Api::new(&remote)?;
    match command {
        Org::Create { name } => {
            let org = gateway.call(Method::POST, "/api/v1/orgs", None, &json!({ "name": name })).await?;
            terminal::say(text(&org, "id"));
        }
        Org::List => {
            gateway.list("/api/v1/orgs", None, |org| format!("{}  {}", text(org, "id"), text(org, "name"))).await?;
        }
    }
    Ok(())
}

pub(crate) async fn key(remote: Remote, command: Key) -> Result<(), Failure> {
    let gateway = Api::new(&remote)?;
    match command {
        Key::Create { org, capability, name } => {
            let body = json!({ "name": name, "capabilities": capability });
            let key = gateway.call(Method::POST, &format!("/api/v1/orgs/{org}/keys"), None, &body).await?;
            terminal::say(text(&key, "key"));
        }
    }
    Ok(())
}

pub(crate) async fn master_key(remote: Remote, command: MasterKey) -> Result<(), Failure> {
    let gateway = Api::new(&remote)?;
    match command {
        MasterKey::Rotate => {
            let rotated = gateway.send(Method::POST, "/api/v1/admin/master-key:rotate", None, Vec::new()).await?;
            terminal::say(&format!("the master key was changed, {} keys were sealed anew", rotated["keys"]));
            terminal::say("take a new copy of the key file: older ones do not open under the new master key");
        }
    }
    Ok(())
}

pub(crate) async fn session(remote: Remote, command: Session) -> Result<(), Failure> {
    let gateway = Api::new(&remote)?;
    match command {
        Session::List { org } => {
            let line = |session: &Value| {
                let (id, status, label) = (text(session, "id"), text(session, "status"), text(session, "label"));
                format!("{id}  {status:<13}{label}")
            };
            gateway.list("/api/v1/sessions", org.as_deref(), line).await?;
        }
        Session::Create { label, start, org } => {
            let mut body = json!({ "start": start });
            if let Some(label) = label {
                body["label"] = json!(label);
            }
            let session = gateway.call(Method::POST, "/api/v1/sessions", org.as_deref(), &body).await?;
            terminal::say(text(&session, "id"));
        }
        Session::Qr { id, org } => {
            let path = format!("/api/v1/sessions/{id}/qr");
            let code = gateway.send(Method::GET, &path, org.as_deref(), Vec::new()).await?;
            terminal::say(&terminal::draw_qr(text(&code, "code"))?);
        }
        Session::Delete { id, confirmation, answer, org } => {
            let path = format!("/api/v1/sessions/{id}");
            let headers = [("portcullis-confirmation", confirmation), ("portcullis-answer", answer)];
            let gateway = headers.into_iter().fold(gateway, |gateway, (name, value)| match value {
                Some(value) => gateway.with(name, &value),
                None => gateway,
            });
            let deleted = gateway.send(Method::DELETE, &path, org.as_deref(), Vec::new()).await;
            if let Err(failure) = &deleted {
                say_question(failure);
            }
            let answer = deleted?;
            match answer.get("deleteAt") {
                Some(at) => terminal::say(&format!(
                    "deletion scheduled for {at} (ms since the epoch): {}",
                    text(&answer, "deleteReason")
                )),
                None if answer.is_null() => terminal::say("deleted"),
                None => terminal::say("deletion in progress"),
            }
        }
    }
    Ok(())
}

/// Says what a policy asks before it lets an operation through, and how to answer it.
fn say_question(failure: &Failure) {
    let asked = failure.downcast_ref::<Refused>().map(|refused| &refused.body["error"]["details"]["confirmation"]);
    let Some(asked) = asked.filter(|asked| asked["token"].is_string()) else { return };
    terminal::say(text(asked, "prompt"));
    let answer = if asked["answer_required"] == true { " --answer TEXT" } else { "" };
    terminal::say(&format!("to confirm, say the same again with --confirmation {}{answer}", text(asked, "token")));
}

pub(crate) async fn decision(remote: Remote, command: Decision) -> Result<(), Failure> {
    let gateway = Api::new(&remote)?;
    match command {
        Decision::List { session, limit, org } => {
            let about = session.map(|session| format!("&session={session}")).unwrap_or_default();
            let path = format!("/api/v1/decisions?limit={limit}{about}");
            let page = gateway.send(Method::GET, &path, org.as_deref(), Vec::new()).await?;
            for decision in page["data"].as_array().into_iter().flatten() {
                let (id, operation) = (text(decision, "id"), text(decision, "operation"));
                terminal::say(&format!("{id}  {operation:<20}  {}", text(&decision["verdict"], "is")));
                for sentence in decision["why"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    terminal::say(&format!("  {sentence}"));
                }
            }
        }
        Decision::Show { id, org } => {
            let path = format!("/api/v1/decisions/{id}");
            let decision = gateway.send(Method::GET, &path, org.as_deref(), Vec::new()).await?;
            terminal::say(&format!("{decision:#}"));
        }
    }
    Ok(())
}

/// The router dialect of one gateway.
pub(crate) struct Api {
    client: Client,
}

/// The gateway said no.
#[derive(Debug, thiserror::Error)]
#[error("the gateway answered {status}: {message}")]
pub(crate) struct Refused {
    pub(crate) status: u16,
    message: String,
    /// The whole answer.
    pub(crate) body: Value,
}

impl Api {
    pub(crate) fn new(remote: &Remote) -> Result<Self, Failure> {
        if remote.key.is_empty() {
            return Err("no key: set PORTCULLIS_KEY or use --key".into());
        }
        Ok(Self { client: Client::new(&remote.url, &remote.key)? })
    }

    /// For the gateway at `url`, with a key.
    pub(crate) fn at(url: &str, key: &str) -> Result<Self, Failure> {
        Ok(Self { client: Client::new(url, key)? })
    }

    /// The same, with one more header on every request.
    pub(crate) fn with(self, header: &'static str, value: &str) -> Self {
        Self { client: self.client.with_header(header, value) }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        org: Option<&str>,
        body: &Value,
    ) -> Result<Value, Failure> {
        self.send(method, path, org, body.to_string().into_bytes()).await
    }

    /// Answers the body of a success, which is null if there is none.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        org: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Value, Failure> {
        let body = self.ask(method, path, org, body).await?;
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Answers the bytes of a success.
    pub(crate) async fn fetch(&self, path: &str, org: Option<&str>) -> Result<Vec<u8>, Failure> {
        Ok(self.ask(Method::GET, path, org, Vec::new()).await?.to_vec())
    }

    async fn ask(&self, method: Method, path: &str, org: Option<&str>, body: Vec<u8>) -> Result<Bytes, Failure> {
        let target = match org {
            Some(org) => format!("{path}{}org={org}", if path.contains('?') { '&' } else { '?' }),
            None => path.to_owned(),
        };
        let Response { status, body, .. } = self.client.send(method, &target, body).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(Self::refused(status.as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Begins to take what is too long to be held; a refusal is an error.
    pub(crate) async fn download(&self, path: &str) -> Result<Download, Failure> {
        let mut answer = self.client.download(path).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.next().await? {
            body.extend_from_slice(&piece);
        }
        Err(Self::refused(answer.status.as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    fn refused(status: u16, body: Value) -> Failure {
        let message = body["error"]["message"].as_str().unwrap_or("no message").to_owned();
        Refused { status, message, body }.into()
    }

    /// Prints every entry of a list.
    pub(crate) async fn list(
        &self,
        path: &str,
        org: Option<&str>,
        line: impl Fn(&Value) -> String,
    ) -> Result<(), Failure> {
        for entry in self.all(path, org).await? {
            terminal::say(&line(&entry));
        }
        Ok(())
    }

    /// Every entry of a list, page by page.
    pub(crate) async fn all(&self, path: &str, org: Option<&str>) -> Result<Vec<Value>, Failure> {
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = match &cursor {
                Some(cursor) => format!("{path}?cursor={cursor}"),
                None => path.to_owned(),
            };
            let mut page = self.send(Method::GET, &page, org, Vec::new()).await?;
            if let Value::Array(more) = page["data"].take() {
                entries.extend(more);
            }
            match page["nextCursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(entries),
            }
        }
    }
}

/// The text of a field; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
