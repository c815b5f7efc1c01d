//! Sessions of the engine that speaks to WhatsApp: the gateway as a process, asked over HTTP only, and a server with phones beside it.
//!
//! The server is simulated, as its crate says; everything between it and the caller is what customers get.

mod bad_input;
mod ends;
mod kills;
mod story;

use portcullis_whatsapp_server::{Controls, Server, ServerConfig, State, Text};
use serde_json::{Value, json};

use crate::gateway::{Gateway, eventually};
use crate::live::listener::Listener;
use crate::world::{Org, text};

/// The account that is linked.
const ACCOUNT: u64 = 628_123_456_789;
/// Somebody who texts with it.
const FRIEND: u64 = 491_511_234_567;

/// A gateway, a server, and an organisation with nothing.
struct Scene {
    server: Server,
    gateway: Gateway,
    org: Org,
}

impl Scene {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With more in the section `[whatsapp]` of the configuration, and after it.
    async fn with(more: &str) -> Self {
        let server = Server::start(ServerConfig::default()).await.unwrap();
        let gateway = Gateway::on_whatsapp(&server.url(), more).await;
        Self::of(server, gateway).await
    }

    /// The same, with everything in its log that there is to log.
    async fn loud() -> Self {
        let server = Server::start(ServerConfig::default()).await.unwrap();
        let gateway = Gateway::loud_on_whatsapp(&server.url()).await;
        Self::of(server, gateway).await
    }

    async fn of(server: Server, gateway: Gateway) -> Self {
        let org = gateway.org("Acme").await;
        let plan = json!({ "plan": { "name": "business", "active": true } });
        gateway.operator().patch(&format!("/api/v1/orgs/{}", org.id), &plan).await.expect(200);
        Self { server, gateway, org }
    }

    fn controls(&self) -> &Controls {
        &self.server
    }

    /// The organisation's client, wherever the gateway listens by now.
    fn org(&self) -> Org {
        self.org.at(&self.gateway)
    }

    /// A session that shows a code.
    async fn pairing(&self) -> String {
        let body = json!({ "label": "Sales line", "start": true });
        let session = text(&self.org().client.post("/api/v1/sessions", &body).await.expect(201), "id");
        // How fast it may send is tested elsewhere.
        let path = format!("/api/v1/sessions/{session}/rate-policy");
        self.org().client.put(&path, &json!({ "policy": "unlimited" })).await.expect(200);
        session
    }

    /// What the session shows to be scanned.
    async fn qr(&self, session: &str) -> String {
        let path = format!("/api/v1/sessions/{session}/qr");
        eventually("a QR code", async || {
            let reply = self.org().client.get(&path).await;
            let code = serde_json::from_slice::<Value>(&reply.body).ok()?["code"].as_str().map(str::to_owned)?;
            (reply.status == 200).then_some(code)
        })
        .await
    }

    /// A session that is linked to the account and connected, and its device.
    async fn working(&self) -> (String, u16) {
        let session = self.pairing().await;
        let device = self.controls().scan(ACCOUNT, &self.qr(&session).await).unwrap();
        self.org().reaches(&session, "working").await;
        (session, device)
    }

    /// The session, as anybody sees it.
    async fn look(&self, session: &str) -> Value {
        self.org().client.get(&format!("/api/v1/sessions/{session}")).await.expect(200)
    }

    /// The session as soon as it is so.
    async fn becomes(&self, session: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || Some(self.look(session).await).filter(&is_so)).await
    }

    async fn act(&self, session: &str, action: &str) -> Value {
        self.org().client.act(&format!("/api/v1/sessions/{session}:{action}")).await.expect(200)
    }

    /// Deletes the session; the signed receipt.
    async fn deletes(&self, session: &str) -> Value {
        let gone = self.org().client.delete(&format!("/api/v1/sessions/{session}")).await;
        assert!([204, 202].contains(&gone.status), "{gone:?}");
        eventually("the receipt", async || {
            let receipt = self.org().client.get(&format!("/api/v1/receipts/{session}")).await;
            (receipt.status == 200).then(|| receipt.expect(200))
        })
        .await
    }

    /// Sends a text to the friend, who must get it; WhatsApp's id of it.
    async fn sends(&self, session: &str, words: &str) -> String {
        let body = json!({ "type": "text", "to": format!("{FRIEND}@s.whatsapp.net"), "text": words });
        let path = format!("/api/v1/sessions/{session}/messages");
        let id = text(&self.org().client.post(&path, &body).await.expect(200), "waMessageId");
        let is_read = |state: &State| state.text(&id).is_some_and(|seen| seen.text.as_deref() == Some(words));
        let state = self.controls().wait_until(is_read).await;
        assert_eq!(state.text(&id).unwrap().decrypted, 1);
        id
    }

    /// The friend texts the account, and the organisation is told.
    async fn hears(&self, session: &str, words: &str) {
        let mut listener = Listener::connect(&self.org().client, "events=message").await;
        let id = self.controls().send(FRIEND, ACCOUNT, None, words).unwrap();
        let told = listener.expect("message").await;
        assert_eq!((&told["session"], &told["payload"]["body"]), (&json!(session), &json!(words)));
        assert_eq!(told["payload"]["waMessageId"], id.as_str());
        // Only what is recorded is acknowledged, so that nothing is lost.
        self.controls().wait_until(|state| state.text(&id).is_some_and(is_acknowledged)).await;
    }
}

fn is_acknowledged(text: &Text) -> bool {
    text.copies.iter().any(|copy| copy.receipt.is_some())
}

/// How often a device that is linked has logged in.
fn logins(state: &State, device: u16) -> u32 {
    let logins = &state.device(ACCOUNT, device).unwrap().logins;
    logins.xx + logins.ik + logins.fallback
}
