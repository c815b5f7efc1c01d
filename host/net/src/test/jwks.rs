//! Which tokens are believed.

use serde_json::{Value, json};

use super::outbound::local;
use super::server::Server;
use super::signer::{Signer, encode, set, signed};
use crate::{Claims, Jwks, JwksConfig, JwtError, KeySetError, NetError, Outbound, OutboundConfig};

/// Some time, in milliseconds.
pub(super) const NOW: u64 = 1_790_000_000_000;
/// The same time, in seconds, as tokens have it.
const NOW_S: u64 = NOW / 1000;

/// The frontend of the tests.
const FRONTEND: &str = "https://app.example";

/// An identity provider with these keys, and who believes it.
pub(super) async fn world(signers: &[&Signer]) -> (Server, Jwks) {
    let server = Server::plain().await;
    server.answer("200 OK", &set(signers));
    let jwks = Jwks::new(config(&server.url("/jwks")), local()).unwrap();
    (server, jwks)
}

fn config(url: &str) -> JwksConfig {
    JwksConfig { url: url.to_owned(), issuer: FRONTEND.to_owned(), audience: FRONTEND.to_owned() }
}

/// The claims of a good token.
pub(super) fn claims() -> Value {
    json!({
        "iss": FRONTEND,
        "aud": FRONTEND,
        "sub": "user_1",
        "iat": NOW_S,
        "exp": NOW_S + 300,
        "activeOrganizationId": "organization_1",
        "orgRole": "admin",
        "role": null,
    })
}

/// The variant of an error, without what is in it.
pub(super) fn name(result: Result<Claims, JwtError>) -> String {
    match result {
        Ok(_) => "good".to_owned(),
        Err(JwtError::Keys(_)) => "Keys".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::test]
async fn a_token_of_every_accepted_algorithm_is_believed() {
    let signers = [Signer::ed("ed"), Signer::ec("ec"), Signer::rsa("rsa")];
    let (server, jwks) = world(&signers.each_ref()).await;
    for signer in &signers {
        let expected = Claims {
            subject: "user_1".to_owned(),
            organization: Some("organization_1".to_owned()),
            org_role: Some("admin".to_owned()),
            role: None,
            expires_at_ms: NOW + 300_000,
        };
        assert_eq!(jwks.verify(&signer.token(&claims()), NOW).await.unwrap(), expected, "{}", signer.algorithm());
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn claims_must_hold_here_and_now() {
    let signer = Signer::ed("ed");
    let (_server, jwks) = world(&[&signer]).await;
    let gone = || Value::Null;
    let cases = [
        ("iss", json!("https://evil.example"), "Issuer"),
        ("iss", json!("https://app.example/"), "Issuer"),
        ("iss", gone(), "Issuer"),
        ("aud", json!("https://evil.example"), "Audience"),
        ("aud", json!([]), "Audience"),
        ("aud", gone(), "Audience"),
        ("aud", json!(["https://other.example", FRONTEND]), "good"),
        ("sub", json!(""), "Subject"),
        ("sub", gone(), "Subject"),
        ("sub", json!(7), "Malformed"),
        ("exp", gone(), "NoExpiry"),
        ("exp", json!("never"), "Malformed"),
        ("exp", json!(-1), "Expired"),
        ("exp", json!(NOW_S - 30), "Expired"),
        ("exp", json!(NOW_S - 29), "good"),
        ("exp", json!(NOW_S as f64 - 29.5), "good"),
        ("exp", json!(1e300), "good"),
        ("nbf", json!(NOW_S + 31), "NotYetValid"),
        ("nbf", json!(NOW_S + 30), "good"),
        ("nbf", json!("soon"), "Malformed"),
        ("activeOrganizationId", gone(), "good"),
        ("role", json!("super_admin"), "good"),
        ("orgRole", json!(["owner"]), "Malformed"),
        ("something", json!({ "else": [1, 2, 3] }), "good"),
    ];
    for (claim, value, expected) in cases {
        let mut claims = claims();
        claims[claim] = value.clone();
        let found = name(jwks.verify(&signer.token(&claims), NOW).await);
        assert_eq!(found, expected, "{claim}: {value}");
    }
}

#[tokio::test]
async fn escapes_in_claims_are_read() {
    let signer = Signer::ed("ed");
    let (_server, jwks) = world(&[&signer]).await;
    let header = encode(r#"{"alg":"Ed\u0044SA","kid":"\u0065d"}"#);
    let payload = encode(claims().to_string().replace('/', r"\/"));
    let token = signer.sealed(&format!("{header}.{payload}"));
    assert_eq!(name(jwks.verify(&token, NOW).await), "good");
}

#[tokio::test]
async fn the_algorithm_is_the_one_of_the_key() {
    let (ed, ec, rsa) = (Signer::ed("ed"), Signer::ec("ec"), Signer::rsa("rsa"));
    let (server, jwks) = world(&[&ed, &ec, &rsa]).await;
    let unsigned = |alg: &str| format!("{}.", signed(&json!({ "alg": alg, "kid": "ed" }), &claims()));
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let cases = [
        ("no algorithm", unsigned("none"), "Algorithm"),
        ("no algorithm, in other letters", unsigned("nOnE"), "Algorithm"),
        ("no signature", unsigned("EdDSA"), "Signature"),
        ("HS256 with a public key", rsa.forgery(&claims()), "Algorithm"),
        ("HS256 with a public key", ec.forgery(&claims()), "Algorithm"),
        ("HS256 with a public key", ed.forgery(&claims()), "Algorithm"),
        ("another key's algorithm", ed.token_with(&header("ES256", "ed"), &claims()), "Algorithm"),
        ("another key", ed.token_with(&header("ES256", "ec"), &claims()), "Signature"),
        ("another key and algorithm", ed.token_with(&header("EdDSA", "rsa"), &claims()), "Algorithm"),
        ("another hash", rsa.token_with(&header("RS512", "rsa"), &claims()), "Algorithm"),
        ("another padding", rsa.token_with(&header("PS256", "rsa"), &claims()), "Algorithm"),
        ("a stranger with a known id", Signer::ed("ed").token(&claims()), "Signature"),
        ("EdDSA by its new name", ed.token_with(&header("Ed25519", "ed"), &claims()), "good"),
    ];
    for (what, token, expected) in cases {
        assert_eq!(name(jwks.verify(&token, NOW).await), expected, "{what}");
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_token_that_brings_its_own_key_is_not_believed() {
    let (good, evil) = (Signer::ed("good"), Signer::ed("good"));
    let (_server, jwks) = world(&[&good]).await;
    let header = json!({ "alg": "EdDSA", "kid": "good", "jwk": evil.jwk(), "jku": "https://evil.example/jwks" });
    assert_eq!(name(jwks.verify(&evil.token_with(&header, &claims()), NOW).await), "Signature");
}

#[tokio::test]
async fn a_changed_token_is_not_believed() {
    let signer = Signer::ed("ed");
    let (_server, jwks) = world(&[&signer]).await;
    let token = signer.token(&claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let mut promoted = claims();
    promoted["role"] = "super_admin".into();
    let promoted = encode(promoted.to_string());
    let cases = [
        (format!("{header}.{promoted}.{signature}"), "Signature"),
        (format!("{header}.{payload}.{}", &signature[1..]), "Malformed"),
        (format!("{header}.{payload}.{}", &signature[2..]), "Signature"),
        (format!("{header}.{payload}.{signature}="), "Malformed"),
        (format!("{header}.{payload}.{payload}.{signature}"), "Signature"),
        (format!("{header}.{payload}"), "Malformed"),
        (format!("{header}=.{payload}.{signature}"), "Malformed"),
        (format!(".{payload}.{signature}"), "Malformed"),
        (format!(" {token}"), "Malformed"),
        ("..".to_owned(), "Malformed"),
        (String::new(), "Malformed"),
        ("é.é.é".to_owned(), "Malformed"),
        (format!("{}.{payload}.{signature}", encode(r#"{"alg":"EdDSA","alg":"none"}"#)), "Malformed"),
        (format!("{}.{payload}.{signature}", encode(r#"{"kid":"ed"}"#)), "Malformed"),
        (format!("{}.{payload}.{signature}", encode(r#"{"alg":"EdDSA","crit":["exp"]}"#)), "Critical"),
    ];
    for (token, expected) in cases {
        assert_eq!(name(jwks.verify(&token, NOW).await), expected, "{token}");
    }
    let payloads = [
        ("four parts", format!("{header}.{payload}.{payload}")),
        ("no JSON", format!("{header}.{}", encode("hello"))),
        ("two subjects", format!("{header}.{}", encode(r#"{"sub":"a","sub":"b"}"#))),
    ];
    for (what, signed) in payloads {
        assert_eq!(name(jwks.verify(&signer.sealed(&signed), NOW).await), "Malformed", "{what}, but signed");
    }
}

#[tokio::test]
async fn a_long_token_is_not_looked_at() {
    let signer = Signer::ed("ed");
    let (server, jwks) = world(&[&signer]).await;
    assert_eq!(name(jwks.verify(&"x".repeat(8 * 1024 + 1), NOW).await), "TooLong");
    assert_eq!(name(jwks.verify(&"x".repeat(8 * 1024), NOW).await), "Malformed");
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_token_must_name_its_key_among_several() {
    let (one, two) = (Signer::ed("one"), Signer::ed("two"));
    let nameless = one.token_with(&json!({ "alg": "EdDSA" }), &claims());
    let (_server, jwks) = world(&[&one, &two]).await;
    assert_eq!(name(jwks.verify(&nameless, NOW).await), "NoKeyId");
    let (_server, jwks) = world(&[&one]).await;
    assert_eq!(name(jwks.verify(&nameless, NOW).await), "good");
}

#[tokio::test]
async fn a_set_that_is_none_or_too_large_is_not_used() {
    let signer = Signer::ed("ed");
    let token = signer.token(&claims());
    let bare = set(&[&signer]);
    let padded = |size: usize| format!("{bare}{}", " ".repeat(size - bare.len()));
    let many: Vec<Value> = vec![signer.jwk(); 33];
    let cases = [
        ("200 OK", padded(64 * 1024), "good"),
        ("200 OK", padded(64 * 1024 + 1), "too large"),
        ("200 OK", json!({ "keys": many[1..] }).to_string(), "good"),
        ("200 OK", json!({ "keys": many }).to_string(), "too many"),
        ("200 OK", "<html>".to_owned(), "no set"),
        ("302 Found", set(&[&signer]), "status"),
        ("500 Internal Server Error", set(&[&signer]), "status"),
    ];
    for (status, body, expected) in cases {
        let (server, jwks) = world(&[]).await;
        server.answer(status, &body);
        let found = match jwks.verify(&token, NOW).await {
            Ok(_) => "good",
            Err(JwtError::Keys(error)) => match &*error {
                KeySetError::Fetch(NetError::TooLarge(_)) => "too large",
                KeySetError::Fetch(_) => "fetch",
                KeySetError::Status(_) => "status",
                KeySetError::Parse(_) => "no set",
                KeySetError::TooMany(_) => "too many",
            },
            Err(_) => "the token's fault",
        };
        assert_eq!(found, expected, "{status}, {} bytes", body.len());
    }
}

#[test]
fn a_url_that_cannot_be_fetched_is_found_at_once() {
    let guarded = || Outbound::new(OutboundConfig::default()).unwrap();
    for (url, code) in [
        ("app.example/jwks", "invalid_url"),
        ("https://127.0.0.1/jwks", "refused_address"),
        ("https://app.example:22/jwks", "refused_port"),
    ] {
        assert_eq!(Jwks::new(config(url), guarded()).map(drop).map_err(|error| error.code()), Err(code), "{url}");
    }
    assert!(Jwks::new(config("https://app.example/jwks"), guarded()).is_ok());
}
