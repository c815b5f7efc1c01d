//! What more than one dialect checks of its requests. Texts of errors are complete sentences without a dialect's envelope.

use std::collections::BTreeMap;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use portcullis_core::Secret;
use portcullis_core::webhook::{MAX_HEADERS, MAX_URL};

use crate::exchange::Incoming;

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 255;
/// The longest value of a webhook's header, in bytes.
const MAX_HEADER_VALUE: usize = 1024;

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

/// The headers that a webhook sends besides: names and values as HTTP allows them.
pub(crate) fn webhook_headers(given: BTreeMap<String, String>) -> Result<BTreeMap<String, Secret>, String> {
    if given.len() > MAX_HEADERS {
        return Err(format!("at most {MAX_HEADERS} headers can be sent"));
    }
    let check = |(name, value): (String, String)| {
        let fits = name.parse::<HeaderName>().is_ok()
            && value.len() <= MAX_HEADER_VALUE
            && HeaderValue::from_str(&value).is_ok();
        if fits {
            Ok((name, Secret::new(value)))
        } else {
            Err(format!("the header {name:?} is not one that can be sent"))
        }
    };
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
    fn headers_are_bounded_and_clean() {
        let check = |name: &str, value: &str, fits: bool| {
            let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(webhook_headers(given).is_ok(), fits, "{name}: {value}");
        };
        check("X-Token", "abc", true);
        check("jwt_key", "abc", true);
        check("bad name", "abc", false);
        check("X-Token", "a\r\nEvil: 1", false);
        check("X-Token", &"a".repeat(MAX_HEADER_VALUE + 1), false);
    }
}
