//! Where a request goes: the parts of an `http` or `https` URL that a connection and a request need.
//!
//! There is one way to write an address here. The many others (numbers in other bases, escapes, dots at the end, scopes)
//! are read differently by different programs, and are refused rather than understood.
//! Credentials are refused, because they would end in logs; they belong in a header.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use hyper::http::uri::PathAndQuery;

use crate::NetError;

/// The longest URL, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// The longest name and the longest part of one, in bytes, as DNS has it.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// What is wrong with a URL. The words go behind "the URL".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlFlaw {
    /// It says neither `http` nor `https`.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// It has a user or a password.
    #[error("must not have credentials")]
    Credentials,
    /// It has something behind a `#`.
    #[error("must not have a fragment")]
    Fragment,
    /// Its host is neither a plain name nor a plain IP address.
    #[error("must name its host by a plain name or a plain IP address")]
    Host,
    /// Its port is no plain number from 1 to 65535.
    #[error("must have a plain number as its port, or none")]
    Port,
    /// It has spaces, backslashes, or anything that is not ASCII.
    #[error("must consist of visible ASCII characters without backslashes; names of other scripts are written as xn--")]
    Characters,
    /// It is longer than anybody needs.
    #[error("must not be longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// It has a path where only a server is named.
    #[error("must name a server and no path")]
    Path,
}

/// A parsed URL.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) server: Server,
    /// The path with its query.
    pub(crate) target: PathAndQuery,
}

/// Who is connected to, and how. Requests to the same server can go over the same connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    /// Whether the server must prove who it is.
    pub(crate) secure: bool,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A machine, as somebody named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// A name in small letters.
    Name(String),
}

// === impl Address ===

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, NetError> {
        Self::read(text).map_err(NetError::Url)
    }

    fn read(text: &str) -> Result<Self, UrlFlaw> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlFlaw::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(UrlFlaw::Characters);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlFlaw::Scheme)?;
        let secure = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ => return Err(UrlFlaw::Scheme),
        };
        if rest.contains('#') {
            return Err(UrlFlaw::Fragment);
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlFlaw::Credentials);
        }
        let (host, port) = split_port(authority)?;
        let host = Host::read(host).ok_or(UrlFlaw::Host)?;
        let port = port.unwrap_or_else(|| default_port(secure));
        let target = match target {
            "" => PathAndQuery::from_static("/"),
            path if path.starts_with('/') => path.parse().map_err(|_| UrlFlaw::Characters)?,
            query => format!("/{query}").parse().map_err(|_| UrlFlaw::Characters)?,
        };
        Ok(Self { server: Server { secure, host, port }, target })
    }
}

// === impl Server ===

impl Server {
    /// The `Host` header. Some servers do not know themselves by a name with the usual port.
    pub(crate) fn host_header(&self) -> String {
        if self.port == default_port(self.secure) { self.host.to_string() } else { self.to_string() }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

// === impl Host ===

impl Host {
    /// The machine that is named on its own and not in a URL, where IPv6 needs no brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, NetError> {
        let bare = text.parse::<Ipv6Addr>().ok().map(|ip| Self::Ip(ip.into()));
        bare.or_else(|| Self::read(text)).ok_or(NetError::Url(UrlFlaw::Host))
    }

    /// Whether this is a name that never leads anywhere but to the machine that uses it.
    pub(crate) fn is_localhost(&self) -> bool {
        matches!(self, Self::Name(name) if name == "localhost" || name.ends_with(".localhost"))
    }

    fn read(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            return rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|ip| Self::Ip(ip.into()));
        }
        // Four decimal numbers without zeros in front are the one way to write IPv4.
        if let Ok(ip) = text.parse() {
            return Some(Self::Ip(IpAddr::V4(ip)));
        }
        let is_name = text.len() <= MAX_NAME_BYTES && text.split('.').all(is_label) && !ends_as_number(text);
        is_name.then(|| Self::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(out, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => write!(out, "{ip}"),
            Self::Name(name) => out.write_str(name),
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), UrlFlaw> {
    // The colons of IPv6 stand in brackets, and a port never ends with one.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => return Ok((authority, None)),
    };
    let is_plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
    let port = port.parse().ok().filter(|_| is_plain).ok_or(UrlFlaw::Port)?;
    Ok((host, Some(port)))
}

fn is_label(label: &str) -> bool {
    let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (1..=MAX_LABEL_BYTES).contains(&label.len()) && is_plain && !label.starts_with('-') && !label.ends_with('-')
}

/// Whether the last part of a name is a number. Then some read an IPv4 address where others read a name.
fn ends_as_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hex = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_hexdigit());
    last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")).is_some_and(is_hex)
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

#[cfg(test)]
mod test {
    use super::*;

    #[track_caller]
    fn check(text: &str, endpoint: &str, host_header: &str, target: &str) {
        let Address { server, target: found } = Address::parse(text).unwrap();
        let found = (server.to_string(), server.host_header(), found.to_string());
        assert_eq!(found, (endpoint.to_owned(), host_header.to_owned(), target.to_owned()), "{text}");
    }

    #[test]
    fn an_address_says_where_to_connect_and_what_to_ask_for() {
        check("http://gateway", "gateway:80", "gateway", "/");
        check("https://id.example", "id.example:443", "id.example", "/");
        check("HTTPS://ID.example:443/Jwks", "id.example:443", "id.example", "/Jwks");
        check("https://id.example:8443/a/jwks?v=1", "id.example:8443", "id.example:8443", "/a/jwks?v=1");
        check("http://id.example:443/", "id.example:443", "id.example:443", "/");
        check("http://id.example?a@b:c", "id.example:80", "id.example", "/?a@b:c");
        check("https://[::1]:80", "[::1]:80", "[::1]:80", "/");
        check("https://[2a00:0:0::1]", "[2a00::1]:443", "[2a00::1]", "/");
        check("http://xn--bcher-kva.example", "xn--bcher-kva.example:80", "xn--bcher-kva.example", "/");
        check("http://1.2.3.4.example", "1.2.3.4.example:80", "1.2.3.4.example", "/");
    }

    #[test]
    fn other_addresses_are_refused() {
        let long_name = format!("http://{}x.example", "a.".repeat(130));
        let long_label = format!("http://{}.example", "a".repeat(64));
        let long_url = format!("http://id.example/{}", "a".repeat(2048));
        for (bad, flaw) in [
            ("127.0.0.1:80", UrlFlaw::Scheme),
            ("id.example", UrlFlaw::Scheme),
            ("/jwks", UrlFlaw::Scheme),
            ("", UrlFlaw::Scheme),
            ("ftp://x", UrlFlaw::Scheme),
            ("file:///etc/passwd", UrlFlaw::Scheme),
            ("javascript://x", UrlFlaw::Scheme),
            ("https:x", UrlFlaw::Scheme),
            ("http://", UrlFlaw::Host),
            ("https://", UrlFlaw::Host),
            ("http:///x", UrlFlaw::Host),
            ("http://?x", UrlFlaw::Host),
            ("http://u:p@x", UrlFlaw::Credentials),
            ("http://x:1@x", UrlFlaw::Credentials),
            ("http://x@x", UrlFlaw::Credentials),
            ("http://@x", UrlFlaw::Credentials),
            ("http://x/#y", UrlFlaw::Fragment),
            ("http://x#@y", UrlFlaw::Fragment),
            ("http://x:", UrlFlaw::Port),
            ("http://x:0", UrlFlaw::Port),
            ("http://x:080", UrlFlaw::Port),
            ("http://x:+80", UrlFlaw::Port),
            ("http://x:70000", UrlFlaw::Port),
            ("http://x:80:80", UrlFlaw::Host),
            ("http://::1", UrlFlaw::Host),
            ("http://[::1", UrlFlaw::Host),
            ("http://[::1]x", UrlFlaw::Port),
            ("http://[::1%25eth0]", UrlFlaw::Host),
            ("http://[fe80::1%eth0]", UrlFlaw::Host),
            ("http://[127.0.0.1]", UrlFlaw::Host),
            ("http://[v1.x]", UrlFlaw::Host),
            ("http://127.1", UrlFlaw::Host),
            ("http://0177.0.0.1", UrlFlaw::Host),
            ("http://127.0.0.1.", UrlFlaw::Host),
            ("http://127.0.0.0x1", UrlFlaw::Host),
            ("http://0x7f000001", UrlFlaw::Host),
            ("http://0x", UrlFlaw::Host),
            ("http://2130706433", UrlFlaw::Host),
            ("http://1.2.3.4.5", UrlFlaw::Host),
            ("http://256.1.1.1", UrlFlaw::Host),
            ("http://localhost.", UrlFlaw::Host),
            ("http://a..b", UrlFlaw::Host),
            ("http://.a", UrlFlaw::Host),
            ("http://a_b.example", UrlFlaw::Host),
            ("http://-a.example", UrlFlaw::Host),
            ("http://a-.example", UrlFlaw::Host),
            ("http://%6c%6f.example", UrlFlaw::Host),
            ("http://x,y", UrlFlaw::Host),
            ("http://bücher.example", UrlFlaw::Characters),
            ("http://①②⑦.0.0.1", UrlFlaw::Characters),
            ("http://x y", UrlFlaw::Characters),
            ("http://x\t", UrlFlaw::Characters),
            ("http://x\r\nhost: y", UrlFlaw::Characters),
            ("http://x\\@y", UrlFlaw::Characters),
            (&long_name, UrlFlaw::Host),
            (&long_label, UrlFlaw::Host),
            (&long_url, UrlFlaw::TooLong),
        ] {
            assert!(
                matches!(Address::parse(bad), Err(NetError::Url(found)) if found == flaw),
                "{bad}: {:?}",
                Address::parse(bad)
            );
        }
    }

    #[test]
    fn a_host_on_its_own_needs_no_brackets() {
        for (text, host) in
            [("::1", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("A.example", "a.example")]
        {
            assert_eq!(Host::parse(text).unwrap().to_string(), host);
        }
        for bad in ["", "127.1", "a.example.", "a b", "u@a", "a:80", "fe80::1%lo", "é"] {
            assert!(Host::parse(bad).is_err(), "{bad} was taken");
        }
    }
}
