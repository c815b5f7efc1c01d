//! People who come with tokens of an identity provider: what their roles let them do, and that everybody else stays outside.

use serde_json::json;

use crate::client::{Client, Reply};
use crate::gateway::Gateway;
use crate::provider::{Flaw, Provider};
use crate::world::{Org, text};

struct World {
    provider: Provider,
    gateway: Gateway,
    org: Org,
    session: String,
}

impl World {
    async fn new() -> Self {
        let provider = Provider::start().await;
        let gateway = Gateway::start_with(&provider.config()).await;
        let org = gateway.org("Acme").await;
        let session = org.session().await;
        Self { provider, gateway, org, session }
    }

    async fn ask(&self, method: &str, path: &str, token: &str) -> Reply {
        let headers = vec![("authorization".to_owned(), format!("Bearer {token}"))];
        Client::new(self.gateway.address, None).send_with(method, path, headers, "".into()).await
    }

    async fn check(&self, who: &str, token: &str, method: &str, path: &str, status: u16) {
        let reply = self.ask(method, path, token).await;
        assert_eq!(reply.status, status, "{who} {method} {path}: {}", String::from_utf8_lossy(&reply.body));
    }
}

#[tokio::test]
async fn a_role_says_what_a_person_may_do() {
    let world = World::new().await;
    let other = world.gateway.org("Other").await;
    let foreign = format!("/api/v1/sessions/{}", other.session().await);
    let own = format!("/api/v1/sessions/{}", world.session);
    let start = format!("{own}:stop");
    for role in ["owner", "admin"] {
        let token = world.provider.token(&world.org.id, role);
        world.check(role, &token, "GET", &own, 200).await;
        world.check(role, &token, "POST", &start, 200).await;
        world.check(role, &token, "GET", "/api/v1/audit", 200).await;
        world.check(role, &token, "GET", "/api/v1/orgs", 403).await;
        world.check(role, &token, "GET", &foreign, 404).await;
    }
    let member = world.provider.token(&world.org.id, "member");
    world.check("member", &member, "GET", &own, 200).await;
    world.check("member", &member, "POST", &start, 403).await;
    world.check("member", &member, "POST", "/api/v1/realtime/ticket", 201).await;
    world.check("member", &member, "GET", "/api/v1/audit", 403).await;
    let operator = world.provider.token_with(&world.org.id, "", &json!({ "role": "super_admin" }));
    world.check("operator", &operator, "GET", "/api/v1/orgs", 200).await;
    world.check("operator", &operator, "GET", "/api/v1/admin/sessions", 200).await;
    world.check("operator", &operator, "GET", &format!("{foreign}?org={}", other.id), 200).await;
}

#[tokio::test]
async fn what_a_person_did_stands_in_the_audit_under_their_name() {
    let world = World::new().await;
    let token = world.provider.token(&world.org.id, "owner");
    world.check("owner", &token, "DELETE", &format!("/api/v1/sessions/{}", world.session), 204).await;
    let audit = world.org.client.get("/api/v1/audit").await.expect(200);
    let deleted = audit["data"].as_array().unwrap().iter().any(|entry| {
        entry["operation"] == "session.delete" && entry["actor"] == json!({ "kind": "user", "subject": "usr_1" })
    });
    assert!(deleted, "{audit}");
}

#[tokio::test]
async fn a_person_without_a_place_is_told_so() {
    let world = World::new().await;
    for (org, role) in
        [("org_nonsense", "owner"), ("", "owner"), (world.org.id.as_str(), "guest"), (world.org.id.as_str(), "")]
    {
        let reply = world.ask("GET", "/api/v1/sessions", &world.provider.token(org, role)).await;
        assert_eq!(text(&reply.refused(403, "forbidden"), "message"), "no active organization", "{org} {role}");
    }
    let erased = world.gateway.org("Erased").await;
    let token = world.provider.token(&erased.id, "owner");
    world.check("owner", &token, "GET", "/api/v1/sessions", 200).await;
    world.gateway.operator().delete(&format!("/api/v1/orgs/{}", erased.id)).await.expect(204);
    world.check("owner of nothing", &token, "GET", "/api/v1/sessions", 403).await;
}

#[tokio::test]
async fn a_flawed_token_opens_nothing_and_is_never_tried_as_a_key() {
    let world = World::new().await;
    for flaw in Flaw::ALL {
        let token = world.provider.flawed(&world.org.id, flaw);
        world.check(&format!("{flaw:?}"), &token, "GET", "/api/v1/sessions", 401).await;
    }
    // A gateway without a provider believes nobody's tokens.
    let gateway = Gateway::start().await;
    let headers =
        vec![("authorization".to_owned(), format!("Bearer {}", world.provider.token(&world.org.id, "owner")))];
    let reply = gateway.stranger().send_with("GET", "/api/v1/sessions", headers, "".into()).await;
    reply.refused(401, "unauthorized");
}
