//! An identity provider: it signs tokens for people, and serves the keys with which they can be checked.
//! Tokens are put together by hand, so that they can be wrong in any way.

use std::net::SocketAddr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the tokens' `iss` and `aud` are.
pub(crate) const FRONTEND: &str = "https://app.example.com";
/// The end of the year 2100, in seconds.
const FAR: u64 = 4_133_980_799;

/// The provider. Its server ends with the test's runtime.
pub(crate) struct Provider {
    address: SocketAddr,
    key: Ed25519KeyPair,
    another: Ed25519KeyPair,
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    Issuer,
    Audience,
    Key,
    AlgorithmNone,
    Expired,
}

impl Flaw {
    pub(crate) const ALL: [Flaw; 5] = [Self::Issuer, Self::Audience, Self::Key, Self::AlgorithmNone, Self::Expired];
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "kid": "k1",
            "x": encode(key.public_key()),
        });
        let set = json!({ "keys": [jwk] }).to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let set = set.clone();
                tokio::spawn(async move {
                    let mut asked = Vec::new();
                    while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.is_ok_and(|read| read > 0)
                    {
                    }
                    let length = set.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{set}");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { address, key, another: Ed25519KeyPair::generate().unwrap() }
    }

    /// The configuration of a gateway that reaches this provider, which is on the same machine, and believes it.
    pub(crate) fn config(&self) -> String {
        let Self { address, .. } = self;
        let people =
            format!("jwks_url = \"http://{address}/jwks.json\"\nissuer = \"{FRONTEND}\"\naudience = \"{FRONTEND}\"\n");
        format!("[outbound]\nallow = [\"127.0.0.0/8\"]\n\n[jwt]\n{people}")
    }

    /// A good token of somebody with a role in an organisation.
    pub(crate) fn token(&self, org: &str, role: &str) -> String {
        self.sign(&self.key, "EdDSA", &claims(org, role))
    }

    /// A good token with these claims besides, which may take others' places.
    pub(crate) fn token_with(&self, org: &str, role: &str, more: &Value) -> String {
        let mut claims = claims(org, role);
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.sign(&self.key, "EdDSA", &claims)
    }

    /// A token of an owner that would be good but for one thing.
    pub(crate) fn flawed(&self, org: &str, flaw: Flaw) -> String {
        let mut claims = claims(org, "owner");
        match flaw {
            Flaw::Issuer => claims["iss"] = json!("https://evil.example.com"),
            Flaw::Audience => claims["aud"] = json!("https://another.example.com"),
            Flaw::Expired => claims["exp"] = json!(1_700_000_000),
            Flaw::Key => return self.sign(&self.another, "EdDSA", &claims),
            Flaw::AlgorithmNone => {
                let header = json!({ "alg": "none", "kid": "k1" });
                return format!("{}.{}.{}", encode(header.to_string()), encode(claims.to_string()), encode("none"));
            }
        }
        self.sign(&self.key, "EdDSA", &claims)
    }

    fn sign(&self, key: &Ed25519KeyPair, algorithm: &str, claims: &Value) -> String {
        let header = json!({ "alg": algorithm, "kid": "k1" });
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        format!("{signed}.{}", encode(key.sign(signed.as_bytes())))
    }
}

fn claims(org: &str, role: &str) -> Value {
    json!({
        "iss": FRONTEND,
        "aud": FRONTEND,
        "sub": "usr_1",
        "exp": FAR,
        "activeOrganizationId": org,
        "orgRole": role,
    })
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
