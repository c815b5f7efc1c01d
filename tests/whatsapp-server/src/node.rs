//! Small words for reading and building binary nodes, so that handlers say only what is particular to them.

use whatsapp_rust::wacore;
use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node, NodeRef};

/// Where everything comes from that no account has sent.
pub(crate) const SERVER: &str = "s.whatsapp.net";

/// Seconds since 1970, as stanzas carry them.
pub(crate) fn now() -> u64 {
    wacore::time::now_utc().timestamp().unsigned_abs()
}

/// An attribute as text; empty where there is none.
pub(crate) fn attr(node: &NodeRef<'_>, key: &str) -> String {
    node.get_attr(key).map(|value| value.as_str().into_owned()).unwrap_or_default()
}

/// An attribute as an address.
pub(crate) fn jid(node: &NodeRef<'_>, key: &str) -> Option<Jid> {
    node.attrs().optional_jid(key)
}

/// The bytes in the child of that tag.
pub(crate) fn bytes<'n>(node: &'n NodeRef<'_>, tag: &str) -> Option<&'n [u8]> {
    node.get_optional_child(tag).and_then(|child| child.content_bytes())
}

/// A child that holds nothing but bytes.
pub(crate) fn holding(tag: &'static str, bytes: impl Into<Vec<u8>>) -> Node {
    NodeBuilder::new(tag).bytes(bytes).build()
}

/// The answer to the question of that id, still without content.
pub(crate) fn result(id: &str) -> NodeBuilder {
    NodeBuilder::new("iq")
        .attr("from", SERVER)
        .attr("id", id.to_owned())
        .attr("type", "result")
        .attr("t", now().to_string())
}

/// The refusal of the question of that id.
pub(crate) fn error(id: &str, code: u16, text: &'static str) -> Node {
    let error = NodeBuilder::new("error").attr("code", code.to_string()).attr("text", text).build();
    NodeBuilder::new("iq")
        .attr("from", SERVER)
        .attr("id", id.to_owned())
        .attr("type", "error")
        .children([error])
        .build()
}

/// A stream error with a code and nothing else.
pub(crate) fn stream_error(code: u16) -> Node {
    NodeBuilder::new("stream:error").attr("code", code.to_string()).build()
}

/// The stream error of a device that is linked no more.
pub(crate) fn device_removed() -> Node {
    let conflict = NodeBuilder::new("conflict").attr("type", "device_removed").build();
    NodeBuilder::new("stream:error").attr("code", "401").children([conflict]).build()
}

/// The stream error of a connection whose place another one has taken.
pub(crate) fn replaced() -> Node {
    let conflict = NodeBuilder::new("conflict").attr("type", "replaced").build();
    NodeBuilder::new("stream:error").children([conflict]).build()
}
