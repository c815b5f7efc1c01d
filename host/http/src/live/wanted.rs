//! What a stream is to tell, known before any event is opened.

use std::collections::HashMap;

use portcullis_core::{Capabilities, Capability, EventFormat, EventKind};
use portcullis_webhook::parts;

/// Which parts of which kinds of events a stream tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    parts: HashMap<EventKind, Vec<u8>>,
}

impl Wanted {
    /// What goes under these names, of which `*` is all. Codes open a session, so they are only told to who may manage it.
    pub(super) fn new(names: &[String], capabilities: Capabilities) -> Self {
        let is_wanted = |name: &str| names.iter().any(|wanted| wanted == "*" || wanted == name);
        let may_see =
            |kind| !matches!(kind, EventKind::Qr | EventKind::PairingCode) || capabilities.allow(Capability::Manage);
        let parts = EventKind::ALL.iter().copied().filter(|kind| may_see(*kind)).filter_map(|kind| {
            let named = (0..).zip(parts(EventFormat::Router, kind)).filter(|(_, name)| is_wanted(name));
            let parts: Vec<u8> = named.map(|(part, _)| part).collect();
            (!parts.is_empty()).then_some((kind, parts))
        });
        Self { parts: parts.collect() }
    }

    /// The parts of a kind of event that are told, in order.
    pub(super) fn of(&self, kind: EventKind) -> &[u8] {
        self.parts.get(&kind).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(names: &[&str], capability: Capability, kind: EventKind, expected: &[u8]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = Wanted::new(&names, [capability].into_iter().collect());
        assert_eq!(wanted.of(kind), expected, "{names:?} {capability} {kind:?}");
    }

    #[test]
    fn only_what_was_named_is_told() {
        check(&["*"], Capability::Manage, EventKind::StatusChanged, &[0]);
        check(&["message", "session.status"], Capability::Events, EventKind::StatusChanged, &[0]);
        check(&["message"], Capability::Events, EventKind::StatusChanged, &[]);
        check(&["*"], Capability::Events, EventKind::Linked, &[0, 1]);
        check(&["auth.code"], Capability::Events, EventKind::Linked, &[1]);
    }

    #[test]
    fn codes_are_told_to_managers_only() {
        check(&["*"], Capability::Manage, EventKind::Qr, &[0]);
        check(&["auth.qr"], Capability::Events, EventKind::Qr, &[]);
        check(&["auth.code"], Capability::Events, EventKind::PairingCode, &[]);
    }
}
