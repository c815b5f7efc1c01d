//! Every route of every dialect against every kind of caller who may not use it.
//!
//! The routes come from the gateway's own table and the requests from [`SAMPLES`]; a route without a sample fails, so none is forgotten.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use portcullis_core::Capability;
use portcullis_http::{Dialect, RouteInfo, route_table};
use serde_json::json;

use crate::client::{Client, Reply};
use crate::gateway::{Gateway, eventually};
use crate::provider::{Flaw, Provider};
use crate::samples::{Owner, SAMPLES, route};
use crate::world::{ALL, text};

/// Every capability but the one that is needed, and those that include it.
fn lacking(needed: Capability) -> Vec<&'static str> {
    let gives = |name: &str| name == needed.name() || needed == Capability::Read && name == "manage";
    ALL.into_iter().filter(|name| !gives(name)).collect()
}

/// Whether a route is about something of an organisation's that is named; the others act in the caller's own.
fn names_something(route: &RouteInfo) -> bool {
    match route.dialect {
        Dialect::Router => true,
        Dialect::Wawp => !route.path.ends_with("/create"),
        Dialect::Evolution => route.path.contains("{instance}"),
    }
}

#[test]
fn every_route_has_a_sample() {
    for route in route_table() {
        let sampled = SAMPLES.iter().any(|(method, path, _)| *method == route.method && *path == route.path);
        assert!(sampled, "{} {} has no sample request", route.method, route.path);
    }
    assert_eq!(SAMPLES.len(), route_table().len());
}

#[tokio::test]
async fn no_route_serves_who_may_not_use_it() {
    let provider = Provider::start().await;
    let gateway = Gateway::start_with(&provider.config()).await;
    let owner = Owner::new(&gateway).await;
    let other = gateway.org("Other").await;
    let plan = json!({ "plan": { "name": "business", "active": true } });
    let operator = gateway.operator();
    operator.patch(&format!("/api/v1/orgs/{}", other.id), &plan).await.expect(200);
    let with = |key: &str| Client::new(gateway.address, Some(key));

    let keys = format!("/api/v1/orgs/{}/keys", owner.org.id);
    let revoked = operator.post(&keys, &json!({ "name": "gone", "capabilities": ALL })).await.expect(201);
    operator.delete(&format!("{keys}/{}", text(&revoked, "id"))).await.expect(204);
    let expired = with(&expired_key(&gateway, &keys).await);
    let sibling =
        json!({ "instanceName": "sibling", "integration": "WHATSAPP-BAILEYS", "token": "A-TOKEN-OF-ANOTHER-INSTANCE" });
    let create = sibling.to_string().into();
    Owner::ask(&owner.org.client, Dialect::Evolution, "POST", "/instance/create", create).await.expect(201);
    let strangers = [
        ("no key", gateway.stranger()),
        ("a garbage key", with("garbage")),
        ("a revoked key", with(&text(&revoked, "key"))),
        ("an expired key", expired),
    ];
    let flawed = Flaw::ALL.map(|flaw| (format!("a token with a wrong {flaw:?}"), provider.flawed(&owner.org.id, flaw)));

    let mut incapable = BTreeMap::new();
    for needed in Capability::ALL {
        incapable.insert(needed, gateway.capable(&owner.org, &lacking(needed)).await);
    }
    for (method, pattern, body) in SAMPLES {
        let route = route(method, pattern);
        let needed = route.operation.row().capability;
        let target = owner.target(method, &route);
        let body = Bytes::from(body.replace("PLUGIN", &owner.plugin));
        let check = async |who: &str, reply: Reply, status: u16| {
            assert_eq!(reply.status, status, "{method} {pattern} with {who}: {reply:?}");
            silent(&owner, &reply, &format!("{method} {pattern} with {who}"));
        };
        let ask = async |client: &Client| Owner::ask(client, route.dialect, method, &target, body.clone()).await;
        for (who, client) in &strangers {
            check(who, ask(client).await, 401).await;
        }
        for (who, token) in &flawed {
            check(who, bearing(&gateway, &route, method, &target, token, &body).await, 401).await;
        }
        check("the token of another instance", ask(&with("A-TOKEN-OF-ANOTHER-INSTANCE")).await, sibling_status(&route))
            .await;
        check("another capability", ask(&incapable[&needed]).await, 403).await;
        // What is the operator's alone is forbidden to everybody, and says nothing about whether a thing is there.
        let foreign = if needed == Capability::Operate { 403 } else { 404 };
        let reply = ask(&other.client).await;
        let status = if names_something(&route) { foreign } else { reply.status };
        check("another organisation", reply, status).await;
    }
}

/// The token of a session opens nothing but that session, in the one dialect that has such tokens.
fn sibling_status(route: &RouteInfo) -> u16 {
    let lists_its_own = route.path == "/instance/fetchInstances";
    if lists_its_own { 200 } else { 401 }
}

/// Asks with a token of a person, in the header that the dialect reads.
async fn bearing(gateway: &Gateway, route: &RouteInfo, method: &str, target: &str, token: &str, body: &Bytes) -> Reply {
    let header = match route.dialect {
        Dialect::Router | Dialect::Wawp => ("authorization".to_owned(), format!("Bearer {token}")),
        Dialect::Evolution => ("apikey".to_owned(), token.to_owned()),
    };
    gateway.stranger().send_with(method, target, vec![header], body.clone()).await
}

/// A key whose time has come.
async fn expired_key(gateway: &Gateway, keys: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "the gateway goes by the system's clock, so the key must, too")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let end = u64::try_from((now + Duration::from_secs(1)).as_millis()).unwrap();
    let key = json!({ "name": "short", "capabilities": ALL, "expiresAt": end });
    let key = text(&gateway.operator().post(keys, &key).await.expect(201), "key");
    let client = Client::new(gateway.address, Some(&key));
    eventually("the key has expired", async || (client.get("/api/v1/sessions").await.status == 401).then_some(()))
        .await;
    key
}

/// The samples would mean nothing if they were refused for what they are.
#[tokio::test]
async fn every_sample_is_served_to_who_may_use_it() {
    let gateway = Gateway::start().await;
    let owner = Owner::new(&gateway).await;
    for (method, pattern, body) in SAMPLES {
        let route = route(method, pattern);
        let needed = route.operation.row().capability;
        let caller = if needed == Capability::Operate { gateway.operator() } else { owner.org.client.clone() };
        let body = Bytes::from(body.replace("PLUGIN", &owner.plugin));
        if (*method, *pattern) == ("DELETE", "/api/v1/plugins/{id}") {
            // The sample of a new binding left one more.
            let bindings = caller.get("/api/v1/bindings").await.expect(200);
            for binding in bindings["data"].as_array().unwrap() {
                caller.delete(&format!("/api/v1/bindings/{}", text(binding, "id"))).await.expect(204);
            }
        }
        let reply = Owner::ask(&caller, route.dialect, method, &owner.target(method, &route), body).await;
        assert!(![401, 403, 405].contains(&reply.status), "{method} {pattern}: {reply:?}");
        let missing = reply.status == 404 && says_missing(&reply);
        assert!(!missing, "{method} {pattern}: {reply:?}");
    }
}

/// Whether the answer says that the thing itself is not there, and not that it has not yet what was asked for.
fn says_missing(reply: &Reply) -> bool {
    let body = reply.json();
    let said =
        |text: Option<&str>| text.is_some_and(|text| text.ends_with(" not found") || text.ends_with("does not exist"));
    said(body["error"]["message"].as_str())
        || said(body["message"].as_str())
        || said(body["response"]["message"][0].as_str())
}

/// The token of a session is a key to that session, and to nothing beside it.
#[tokio::test]
async fn a_sessions_token_serves_its_own_session() {
    let gateway = Gateway::start().await;
    let owner = Owner::new(&gateway).await;
    let bearer = Client::new(gateway.address, Some(&owner.token));
    for (method, pattern, body) in SAMPLES {
        let route = route(method, pattern);
        let own = route.dialect == Dialect::Evolution && route.path.contains("{instance}");
        let expected: &[u16] = match pattern {
            &"/instance/fetchInstances" => &[200],
            _ if own => &[200, 201, 202, 400],
            _ => &[401],
        };
        let body = Bytes::from(body.replace("PLUGIN", &owner.plugin));
        let reply = Owner::ask(&bearer, route.dialect, method, &owner.target(method, &route), body).await;
        assert!(expected.contains(&reply.status), "{method} {pattern}: {reply:?}");
        if pattern == &"/instance/fetchInstances" {
            let listed = reply.json();
            assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
        }
    }
}

fn silent(owner: &Owner, reply: &Reply, asked: &str) {
    let body = String::from_utf8_lossy(&reply.body);
    for secret in owner.secrets() {
        assert!(!body.contains(secret), "{asked} tells {secret}: {body}");
    }
}
