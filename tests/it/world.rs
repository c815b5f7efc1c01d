//! An organisation in a gateway, with a key that may do everything that an organisation can.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, eventually};

/// Everything that a key can be capable of.
pub(crate) const ALL: [&str; 6] = ["read", "send", "manage", "events", "plugins", "audit"];

/// An organisation.
#[derive(Clone)]
pub(crate) struct Org {
    pub(crate) id: String,
    pub(crate) client: Client,
}

/// The text of an answer's field.
#[track_caller]
pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

impl Gateway {
    /// A new organisation.
    pub(crate) async fn org(&self, name: &str) -> Org {
        let operator = self.operator();
        let id = text(&operator.post("/api/v1/orgs", &json!({ "name": name })).await.expect(201), "id");
        let key = self.key(&id, &json!({ "name": "all", "capabilities": ALL })).await;
        Org { id, client: Client::new(self.address, Some(&key)) }
    }

    /// A new key of an organisation's; its text.
    pub(crate) async fn key(&self, org: &str, key: &Value) -> String {
        text(&self.operator().post(&format!("/api/v1/orgs/{org}/keys"), key).await.expect(201), "key")
    }

    /// A client with a key that can only do this.
    pub(crate) async fn capable(&self, org: &Org, capabilities: &[&str]) -> Client {
        let key = self.key(&org.id, &json!({ "name": "some", "capabilities": capabilities })).await;
        Client::new(self.address, Some(&key))
    }
}

impl Org {
    /// The same organisation in a gateway that was started again.
    pub(crate) fn at(&self, gateway: &Gateway) -> Self {
        Self { id: self.id.clone(), client: Client::new(gateway.address, self.client.key.as_deref()) }
    }

    /// A new session, stopped and not linked.
    pub(crate) async fn session(&self) -> String {
        text(&self.client.post("/api/v1/sessions", &json!({})).await.expect(201), "id")
    }

    /// A new session that is linked and connected.
    pub(crate) async fn working(&self) -> String {
        let created = self.client.post("/api/v1/sessions", &json!({ "start": true })).await.expect(201);
        let id = text(&created, "id");
        self.link(&id).await;
        id
    }

    /// Scans the session's code and waits until it is connected.
    pub(crate) async fn link(&self, id: &str) {
        let path = format!("/api/v1/sessions/{id}");
        self.client.get(&format!("{path}/qr")).await.expect(200);
        let phone = json!({ "phone": "628123456789" });
        self.client.post(&format!("{path}/simulator:scan"), &phone).await.expect(204);
        self.reaches(id, "working").await;
    }

    /// Waits until the session has this status.
    pub(crate) async fn reaches(&self, id: &str, status: &str) -> Value {
        eventually(&format!("{id} is {status}"), async || {
            let session = self.client.get(&format!("/api/v1/sessions/{id}")).await.expect(200);
            (session["status"] == status).then_some(session)
        })
        .await
    }

    /// Waits until the session does not exist any more.
    pub(crate) async fn gone(&self, id: &str) {
        eventually(&format!("{id} is gone"), async || {
            let reply = self.client.get(&format!("/api/v1/sessions/{id}")).await;
            (reply.status == 404).then_some(())
        })
        .await;
    }

    /// Uploads a component; the plugin's id.
    pub(crate) async fn upload(&self, component: Vec<u8>) -> String {
        text(&self.client.send("POST", "/api/v1/plugins", Bytes::from(component)).await.expect(201), "id")
    }

    /// Uploads a plugin of the catalogue; its id.
    pub(crate) async fn catalogue(&self, name: &str) -> String {
        text(&self.client.post("/api/v1/plugins", &json!({ "catalog": name })).await.expect(201), "id")
    }

    /// Binds a plugin; the binding's id.
    pub(crate) async fn bind(&self, plugin: &str, settings: Value) -> String {
        let binding = json!({ "plugin": plugin, "settings": settings });
        text(&self.client.post("/api/v1/bindings", &binding).await.expect(201), "id")
    }
}
