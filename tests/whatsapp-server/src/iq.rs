//! Questions and their answers. A question that nobody has taught the server gets an empty result, which is what
//! clients make the least of.

use whatsapp_rust::wacore_binary::builder::NodeBuilder;
use whatsapp_rust::wacore_binary::{Node, NodeRef};

use crate::connection::Out;
use crate::keys::{self, KeyBundle};
use crate::node;
use crate::registry::{DeviceId, Registry};
use crate::seen::{Unlink, UnlinkedBy};

/// What everybody may see of an account that has not said otherwise.
const PRIVACY: [&str; 7] = ["readreceipts", "profile", "status", "online", "last", "groupadd", "calladd"];

impl Registry {
    pub(crate) fn iq(&mut self, connection: u64, me: Option<DeviceId>, iq: &NodeRef<'_>) {
        let (id, kind, space) = (node::attr(iq, "id"), node::attr(iq, "type"), node::attr(iq, "xmlns"));
        match kind.as_str() {
            "result" => return self.answered(connection, iq),
            "error" => return,
            _ => {}
        }
        let child = iq.children().and_then(<[_]>::first);
        let tag = child.map_or("", |child| child.tag.as_ref());
        if self.faulty(connection, me, &id, &space, tag) {
            return;
        }
        match (space.as_str(), tag, child, me) {
            ("md", "link_code_companion_reg", Some(child), None) => match node::attr(child, "stage").as_str() {
                "companion_hello" => self.code_shown(connection, &id, child),
                _ => self.code_answered(connection, &id, child),
            },
            ("md", "remove-companion-device", Some(child), Some(me)) => self.leaves(me, connection, &id, child),
            ("passive", "active", _, Some(me)) => {
                self.reply(connection, &id, Vec::new());
                self.active(me);
            }
            ("w:p", _, _, Some(me)) => {
                if let Some(device) = self.device(me) {
                    device.pings += 1;
                }
                self.reply(connection, &id, Vec::new());
            }
            ("encrypt", "count", _, Some(me)) => {
                let count = self.device(me).map_or(0, |device| device.once.len()).to_string();
                self.reply(connection, &id, vec![NodeBuilder::new("count").attr("value", count).build()]);
            }
            // The digest is a hash that this server does not compute; clients take this answer for a bad moment.
            ("encrypt", "digest", _, _) => {
                self.put(connection, Out::Stanza(node::error(&id, 503, "service-unavailable")));
            }
            ("encrypt", "rotate", Some(child), Some(me)) => {
                let signed = child.get_optional_child("skey");
                if let (Some(device), Some(signed)) = (self.device(me), signed) {
                    device.keys.rotate(signed);
                }
                self.reply(connection, &id, Vec::new());
            }
            ("encrypt", "key", Some(child), _) => {
                let users = self.keys_of(child);
                self.reply(connection, &id, vec![NodeBuilder::new("list").children(users).build()]);
            }
            ("encrypt", _, _, Some(me)) if kind == "set" => self.uploaded(me, connection, &id, iq),
            ("w:sync:app:state", "sync", Some(child), _) => {
                self.reply(connection, &id, vec![collections(child)]);
            }
            ("w:g2", "query", _, Some(me)) => self.group_asked(me, connection, &id, iq),
            ("usync", "usync", Some(child), Some(me)) => {
                let answer = self.usync(me, child);
                self.reply(connection, &id, vec![answer]);
            }
            ("privacy", _, _, _) => {
                let category =
                    |name: &&'static str| NodeBuilder::new("category").attr("name", *name).attr("value", "all").build();
                let all = NodeBuilder::new("privacy").children(PRIVACY.iter().map(category)).build();
                self.reply(connection, &id, vec![all]);
            }
            ("abt", _, _, _) => {
                let props = NodeBuilder::new("props").attr("protocol", "1").attr("hash", "1");
                let props = props.attr("refresh", "86400").attr("refresh_id", "1").attr("ab_key", "none").build();
                self.reply(connection, &id, vec![props]);
            }
            _ => self.reply(connection, &id, Vec::new()),
        }
    }

    pub(crate) fn reply(&mut self, connection: u64, id: &str, children: Vec<Node>) {
        let result = node::result(id);
        let result = if children.is_empty() { result } else { result.children(children) };
        self.put(connection, Out::Stanza(result.build()));
    }

    /// Whether a fault has taken care of the question.
    fn faulty(&mut self, connection: u64, me: Option<DeviceId>, id: &str, space: &str, tag: &str) -> bool {
        if me.is_some_and(|me| !self.faults.concern(me.number)) {
            return false;
        }
        let exact = format!("{space}:{tag}");
        let code = self.faults.errors.get(&exact).or_else(|| self.faults.errors.get(space)).copied();
        match code {
            Some(code) => self.put(connection, Out::Stanza(node::error(id, code, "fault"))),
            None if self.faults.unanswered.contains(&exact) || self.faults.unanswered.contains(space) => {
                self.seen.totals.unanswered += 1;
            }
            None => return false,
        }
        if let (Some(me), "remove-companion-device") = (me, tag) {
            let by = UnlinkedBy::Device;
            self.seen.unlinks.push(Unlink { number: me.number, device: me.device, by, confirmed: false });
        }
        true
    }

    /// A device ends its own link. No other is its to end.
    fn leaves(&mut self, me: DeviceId, connection: u64, id: &str, child: &NodeRef<'_>) {
        if node::jid(child, "jid").and_then(|jid| self.whose(&jid)) != Some(me) {
            self.put(connection, Out::Stanza(node::error(id, 403, "forbidden")));
            return;
        }
        self.reply(connection, id, Vec::new());
        let wait = self.config.unlink_delay;
        // The device is linked, or it could not have asked.
        let _ = self.unlink(me, UnlinkedBy::Device, wait);
    }

    /// A device leaves its keys. The first time, its phone has something for it.
    fn uploaded(&mut self, me: DeviceId, connection: u64, id: &str, iq: &NodeRef<'_>) {
        let registration = node::bytes(iq, "registration").unwrap_or_default();
        let Some(bundle) = KeyBundle::uploaded(iq, registration) else {
            self.put(connection, Out::Stanza(node::error(id, 406, "not-acceptable")));
            return;
        };
        let withhold = self.faults.withhold_key;
        let Some(device) = self.device(me) else { return };
        device.keys = bundle;
        device.once.extend(keys::one_time(iq));
        device.uploads += 1;
        let first = !std::mem::replace(&mut device.key_shared, true);
        self.reply(connection, id, Vec::new());
        if first && !withhold {
            // It has just left the keys that this needs.
            let _ = self.share_key(me);
        }
    }

    /// The keys of the devices that somebody wants to write to.
    fn keys_of(&mut self, asked: &NodeRef<'_>) -> Vec<Node> {
        let users: Vec<_> = asked.get_children_by_tag("user").filter_map(|user| node::jid(user, "jid")).collect();
        let mut answers = Vec::new();
        for jid in users {
            let of = self.whose(&jid);
            let phone = of.filter(|id| id.device == 0).and_then(|id| self.account(id.number));
            let answer = if let Some(account) = phone {
                account.phone.bundle.user(&jid, None, None)
            } else if let Some((of, (keys, once))) = of.and_then(|id| Some((id, self.take_keys(id)?))) {
                let identity = self.device(of).and_then(|device| device.identity.clone());
                keys.user(&jid, once, identity.as_deref())
            } else {
                let error = NodeBuilder::new("error").attr("code", "406").attr("text", "not-acceptable").build();
                NodeBuilder::new("user").attr("jid", jid).children([error]).build()
            };
            answers.push(answer);
        }
        answers
    }
}

/// An account's settings, of which there are none.
fn collections(sync: &NodeRef<'_>) -> Node {
    let empty = |asked: &NodeRef<'_>| {
        let collection = NodeBuilder::new("collection").attr("name", node::attr(asked, "name"));
        collection.attr("version", "0").attr("type", "result").build()
    };
    NodeBuilder::new("sync").children(sync.get_children_by_tag("collection").map(empty)).build()
}
