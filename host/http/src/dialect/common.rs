//! What more than one dialect checks of its requests. Texts of errors are complete sentences without a dialect's envelope.

use std::collections::BTreeMap;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use portcullis_core::Secret;
use portcullis_core::webhook::{MASKED, MAX_HEADERS, MAX_URL};
use portcullis_webhook::{is_reserved, promises_json};

use crate::exchange::Incoming;

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 255;
/// The longest name of a webhook's header, in bytes.
const MAX_HEADER_NAME: usize = 64;
/// The longest value of a webhook's header, in bytes.
const MAX_HEADER_VALUE: usize = 1024;
/// The longest secret of a webhook, in bytes.
pub(crate) const MAX_SECRET: usize = 256;

/// Whether a text can be a webhook's URL. Where it leads is looked at when something is delivered, because names change their addresses.
pub(crate) fn webhook_url(text: &str) -> Result<(), String> {
    let wrong =
        || Err(format!("url must be an http or https URL of at most {MAX_URL} bytes, without credentials in it"));
    if text.len() > MAX_URL {
        return wrong();
    }
    let Ok(uri) = text.parse::<Uri>() else { return wrong() };
    let authority =
        uri.authority().filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    if authority.is_some() && matches!(uri.scheme_str(), Some("http" | "https")) { Ok(()) } else { wrong() }
}

/// What a webhook's deliveries are signed with; nothing if it is empty.
pub(crate) fn webhook_secret(given: Option<String>) -> Result<Option<Secret>, String> {
    match given.filter(|text| !text.is_empty()) {
        Some(text) if text.len() > MAX_SECRET => Err(format!("secret must be at most {MAX_SECRET} bytes")),
        given => Ok(given.map(Secret::new)),
    }
}

/// The headers that a webhook sends besides: names and values as HTTP allows them, and none that is the gateway's.
pub(crate) fn webhook_headers(given: BTreeMap<String, String>) -> Result<BTreeMap<String, Secret>, String> {
    if given.len() > MAX_HEADERS {
        return Err(format!("at most {MAX_HEADERS} headers can be sent"));
    }
    let check = |(name, value): (String, String)| {
        let fits = name.len() <= MAX_HEADER_NAME
            && name.parse::<HeaderName>().is_ok()
            && value.len() <= MAX_HEADER_VALUE
            && HeaderValue::from_str(&value).is_ok();
        if !fits {
            return Err(format!("the header {name:?} is not one that can be sent"));
        }
        // Many clients promise JSON, which is what is sent anyway. What is masked was taken before.
        let is_harmless = promises_json(&name, &value) || (value == MASKED && promises_json(&name, "application/json"));
        if is_reserved(&name) && !is_harmless {
            return Err(format!("the header {name:?} is the gateway's to send"));
        }
        Ok((name, Secret::new(value)))
    };
    let mut names: Vec<String> = given.keys().map(|name| name.to_ascii_lowercase()).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("the header {:?} stands there twice", twice[0]));
    }
    given.into_iter().map(check).collect()
}

/// The caller's `Idempotency-Key`. One that is sent empty, or two of them, are a mistake, because the caller believes to be safe.
pub(crate) fn idempotency_key(incoming: &Incoming) -> Result<Option<String>, String> {
    let mut given = incoming.headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    let plain = |key: &&str| key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY).filter(plain);
    match (key, given.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(format!("Idempotency-Key must be one value of 1 to {MAX_KEY} printable ASCII characters")),
    }
}

/// Whether a text can be a proxy's host: a name or an address, without a scheme or a port.
pub(crate) fn proxy_host(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name = !text.is_empty() && text.len() <= 253 && text.chars().all(plain);
    if name || text.parse::<std::net::Ipv6Addr>().is_ok() {
        Ok(())
    } else {
        Err("host must be a host name or an address, without a scheme or a port".to_owned())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_webhook_url_is_an_absolute_one_without_credentials() {
        let check = |text: &str, fits: bool| assert_eq!(webhook_url(text).is_ok(), fits, "{text}");
        check("https://example.com/hook?x=1", true);
        check("http://127.0.0.1:9000", true);
        check("HTTPS://EXAMPLE.COM", true);
        check("ftp://example.com", false);
        check("https://", false);
        check("https:///path", false);
        check("/hook", false);
        check("example.com/hook", false);
        check("https://user:password@example.com/", false);
        check("https://exam ple.com/", false);
        check(&format!("https://example.com/{}", "a".repeat(MAX_URL)), false);
    }

    #[test]
    fn a_secret_is_bounded() {
        let check = |text: &str, expected: Result<bool, ()>| {
            let found = webhook_secret(Some(text.to_owned())).map(|secret| secret.is_some());
            assert_eq!(found.map_err(drop), expected, "{text}");
        };
        check("", Ok(false));
        check(&"x".repeat(MAX_SECRET), Ok(true));
        check(&"x".repeat(MAX_SECRET + 1), Err(()));
        assert_eq!(webhook_secret(None), Ok(None));
    }

    #[test]
    fn headers_are_bounded_and_clean() {
        let check = |name: &str, value: &str, fits: bool| {
            let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(webhook_headers(given).is_ok(), fits, "{name}: {value}");
        };
        let twice = [("X-Token", "a"), ("x-token", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert!(webhook_headers(twice.into()).is_err(), "receivers keep one of them, and nobody knows which");
        check("X-Token", "abc", true);
        check("jwt_key", "abc", true);
        check("bad name", "abc", false);
        check("X-Token", "a\r\nEvil: 1", false);
        check("X-Token", &"a".repeat(MAX_HEADER_VALUE + 1), false);
        check(&"a".repeat(MAX_HEADER_NAME + 1), "abc", false);
        check("Content-Type", "application/json", true);
        check("Content-Type", MASKED, true);
        check("Content-Type", "text/plain", false);
        check("Host", "elsewhere", false);
        check("Host", MASKED, false);
        check("webhook-signature", "v1,forged", false);
    }
}
