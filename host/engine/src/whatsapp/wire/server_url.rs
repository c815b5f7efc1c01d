//! Where WhatsApp's server is: its own address, unless an operator tests against a server of his own.
//!
//! Without TLS a connection may lead to a loopback address and to no other, and not to a name either, because a name leads
//! wherever somebody says. (What goes over it is encrypted once more by the client; who one talks to would be visible, though.)

use std::fmt;
use std::str::FromStr;

use portcullis_net::{NetError, StreamServer};
use whatsapp_rust::wacore::net::WHATSAPP_WEB_WS_URL;

/// The URL of a server that speaks as WhatsApp does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    server: StreamServer,
    url: String,
}

/// What is wrong with the URL of a server.
#[derive(Debug, thiserror::Error)]
pub enum ServerUrlFlaw {
    /// It is no URL of a WebSocket.
    #[error("must be a URL such as {WHATSAPP_WEB_WS_URL}")]
    Malformed(#[source] NetError),
    /// It is without TLS, and leads away from this machine.
    #[error("must begin with wss://, unless it names a loopback address")]
    Plain,
}

// === impl ServerUrl ===

impl ServerUrl {
    /// The URL, with its host and its path as they are asked for.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    pub(super) fn server(&self) -> &StreamServer {
        &self.server
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlFlaw;

    fn from_str(text: &str) -> Result<Self, ServerUrlFlaw> {
        let (server, target) = StreamServer::of_web_socket(text).map_err(ServerUrlFlaw::Malformed)?;
        if !server.is_secure() && !server.is_loopback() {
            return Err(ServerUrlFlaw::Plain);
        }
        let scheme = if server.is_secure() { "wss" } else { "ws" };
        let url = format!("{scheme}://{}{target}", server.authority());
        Ok(Self { server, url })
    }
}

impl Default for ServerUrl {
    fn default() -> Self {
        WHATSAPP_WEB_WS_URL.parse().expect("the address of WhatsApp's server is in order")
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.url)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_default_is_whatsapps_own() {
        let url = ServerUrl::default();
        assert_eq!(url.as_str(), "wss://web.whatsapp.com/ws/chat");
        assert!(url.server().is_secure());
    }

    #[test]
    fn a_url_is_written_in_one_way() {
        for (text, url) in [
            ("WSS://Chat.example:443/ws?x=1", "wss://chat.example/ws?x=1"),
            ("wss://chat.example:8443", "wss://chat.example:8443/"),
            ("wss://10.0.0.1/ws", "wss://10.0.0.1/ws"),
            ("ws://127.0.0.1:4000/ws/chat", "ws://127.0.0.1:4000/ws/chat"),
            ("ws://127.1.2.3:80/", "ws://127.1.2.3/"),
            ("ws://[::1]:4000/ws/chat", "ws://[::1]:4000/ws/chat"),
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for text in [
            "ws://web.whatsapp.com/ws/chat",
            "ws://localhost:4000/",
            "ws://10.0.0.1/",
            "ws://0.0.0.0/",
            "ws://[::]/",
            "ws://[::ffff:127.0.0.1]:4000/",
        ] {
            assert!(matches!(text.parse::<ServerUrl>(), Err(ServerUrlFlaw::Plain)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_urls_of_servers() {
        for text in [
            "",
            "web.whatsapp.com",
            "https://web.whatsapp.com/ws/chat",
            "wss://",
            "wss://user:secret@web.whatsapp.com/",
            "wss://web.whatsapp.com/#x",
            "ws://127.1:4000/",
            "wss://x:0/",
        ] {
            let flaw = text.parse::<ServerUrl>().unwrap_err();
            assert!(matches!(flaw, ServerUrlFlaw::Malformed(_)), "{text}");
            assert!(!flaw.to_string().contains("secret"), "{flaw}");
        }
    }
}
