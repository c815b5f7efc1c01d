//! Where a request goes: the parts of an `http` or `https` address that a connection and a request need.
//!
//! Credentials in an address are refused, because they would end in logs and in error messages.

use hyper::Uri;

use crate::NetError;

/// A parsed address.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// Whether the server must prove who it is.
    pub(crate) secure: bool,
    /// The name or the IP address, the latter with the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The path with its query.
    pub(crate) target: String,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, NetError> {
        let refused = || NetError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused()),
        };
        let authority = uri.authority().ok_or_else(refused)?;
        let host = authority.host();
        // The parser takes an odd port for none and leaves out credentials, so that both are looked for here.
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => default_port(secure),
            Some(rest) => rest.strip_prefix(':').and_then(port_number).ok_or_else(refused)?,
            None => return Err(refused()),
        };
        if host.is_empty() {
            return Err(refused());
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self { secure, host: host.to_owned(), port, target: target.to_owned() })
    }

    /// What is connected to, as errors name it.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The `Host` header. Some servers do not know themselves by a name with the usual port.
    pub(crate) fn host_header(&self) -> String {
        if self.port == default_port(self.secure) { self.host.clone() } else { self.endpoint() }
    }

    /// The host as a certificate names it.
    pub(crate) fn certified_name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

#[cfg(test)]
mod test {
    use super::*;

    #[track_caller]
    fn check(text: &str, endpoint: &str, host_header: &str, target: &str) {
        let address = Address::parse(text).unwrap();
        let found = (address.endpoint(), address.host_header(), address.target);
        assert_eq!(found, (endpoint.to_owned(), host_header.to_owned(), target.to_owned()), "{text}");
    }

    #[test]
    fn an_address_says_where_to_connect_and_what_to_ask_for() {
        check("http://gateway", "gateway:80", "gateway", "/");
        check("https://id.example", "id.example:443", "id.example", "/");
        check("https://id.example:443/jwks", "id.example:443", "id.example", "/jwks");
        check("https://id.example:8443/a/jwks?v=1", "id.example:8443", "id.example:8443", "/a/jwks?v=1");
        check("http://id.example:443/", "id.example:443", "id.example:443", "/");
        check("https://[::1]:80", "[::1]:80", "[::1]:80", "/");
    }

    #[test]
    fn a_certificate_names_ipv6_without_brackets() {
        assert_eq!(Address::parse("https://[::1]").unwrap().certified_name(), "::1");
        assert_eq!(Address::parse("https://id.example").unwrap().certified_name(), "id.example");
    }

    #[test]
    fn other_addresses_are_refused() {
        for bad in [
            "127.0.0.1:80",
            "id.example",
            "/jwks",
            "ftp://x",
            "http://",
            "https://",
            "http://u:p@x",
            "http://x:1@x",
            "http://x@x",
            "http://x:",
            "http://x:0",
            "http://x:70000",
        ] {
            assert!(matches!(Address::parse(bad), Err(NetError::Address(_))), "{bad} was taken");
        }
    }
}
