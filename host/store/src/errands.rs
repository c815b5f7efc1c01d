//! Errands inside the writer's transaction: rows, their counts, and the indexes by which the next ones are found and those
//! that go with a session, a binding or a plugin.

use std::collections::BTreeMap;

use portcullis_core::{BindingId, Errand, ErrandBody, ErrandId, OrgId, PluginId, SessionId};

use crate::commit::QuotaKind;
use crate::counts::{self, Counts};
use crate::error::{CommitError, StoreFault};
use crate::step::{Prepared, Step};
use crate::tables::{NO_SESSION, Prefix, Tables, heads, key, part};

/// How many operations a plugin may have asked for in an organisation that are still to be done.
pub const REQUESTS_MAX: u32 = 1_000;

/// Bytes of the head of a row: due, session or zeros, binding, plugin, and what it is.
pub(crate) const HEAD: usize = 8 + 16 + 16 + 16 + 1;
/// Where what it is stands in a head.
const KIND: usize = HEAD - 1;

/// What an errand is, in a byte of its head.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The plugin is to be told of something.
    Telling = 0,
    /// The plugin asks for an operation.
    Request = 1,
}

/// What an errand is.
pub(crate) fn kind(errand: &Errand) -> Kind {
    match errand.body {
        ErrandBody::Tell { .. } | ErrandBody::After(_) => Kind::Telling,
        ErrandBody::Request { .. } => Kind::Request,
    }
}

/// The key of an errand's row.
pub(crate) fn row(org: OrgId, id: ErrandId) -> Vec<u8> {
    key(&[&org.to_bytes(), &id.to_bytes()])
}

/// An errand's places in the indexes.
pub(crate) struct Places {
    pub(crate) due: Vec<u8>,
    pub(crate) of_plugin: Vec<u8>,
    pub(crate) of_session: Option<Vec<u8>>,
    /// The organisation and the plugin for whom it counts as a request, if it is one.
    pub(crate) asker: Option<Vec<u8>>,
}

impl Places {
    /// `None` if the row is too short to be one.
    pub(crate) fn of(row: &[u8], value: &[u8]) -> Option<Self> {
        let (org, id) = row.split_at_checked(16)?;
        let head = value.get(..HEAD)?;
        let (session, binding, plugin) = (&head[8..24], &head[24..40], &head[40..KIND]);
        Some(Self {
            due: key(&[org, &head[..8], id]),
            of_plugin: key(&[org, plugin, binding, id]),
            of_session: (session != NO_SESSION).then(|| key(&[org, session, id])),
            asker: (head[KIND] == Kind::Request as u8).then(|| key(&[org, plugin])),
        })
    }

    fn put(&self, tables: &mut Tables<'_>) -> Result<(), StoreFault> {
        tables.errands_due.insert(&self.due, &[])?;
        tables.errands_of_plugin.insert(&self.of_plugin, &[])?;
        if let Some(of_session) = &self.of_session {
            tables.errands_of_session.insert(of_session, &[])?;
        }
        if let Some(asker) = &self.asker {
            counts::add(&mut tables.request_counts, asker, 1)?;
        }
        Ok(())
    }

    fn remove(&self, tables: &mut Tables<'_>) -> Result<(), StoreFault> {
        tables.errands_due.remove(&self.due)?;
        tables.errands_of_plugin.remove(&self.of_plugin)?;
        if let Some(of_session) = &self.of_session {
            tables.errands_of_session.remove(of_session)?;
        }
        if let Some(asker) = &self.asker {
            counts::add(&mut tables.request_counts, asker, -1)?;
        }
        Ok(())
    }
}

/// Whether no plugin would wait for too many operations. A commit that asks for no more than it ends always holds.
pub(crate) fn check(tables: &Tables<'_>, commit: &Prepared) -> Result<(), CommitError> {
    let mut asker_of: BTreeMap<&[u8], Option<Vec<u8>>> = BTreeMap::new();
    let mut more: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    for step in &commit.steps {
        let (row, after) = match step {
            Step::PutErrand { key, value } => (&key[..], Places::of(key, value).and_then(|places| places.asker)),
            Step::RemoveErrand { key } => (&key[..], None),
            _ => continue,
        };
        let before = match asker_of.insert(row, after.clone()) {
            Some(earlier) => earlier,
            None => tables.errands.get(row)?.and_then(|old| Places::of(row, old.value())?.asker),
        };
        for (asker, by) in [(before, -1), (after, 1)] {
            if let Some(asker) = asker {
                *more.entry(asker).or_default() += by;
            }
        }
    }
    for (asker, more) in more.into_iter().filter(|(_, more)| *more > 0) {
        if i64::from(counts::held(&tables.request_counts, &asker)?) + more > i64::from(REQUESTS_MAX) {
            let plugin = part(&asker, 16).map(PluginId::from_bytes).expect("the key is so long");
            return Err(CommitError::RequestQuota { plugin });
        }
    }
    Ok(())
}

/// Keeps an errand, or moves the one with its id.
pub(crate) fn put(tables: &mut Tables<'_>, counts: &mut Counts, row: &[u8], value: &[u8]) -> Result<(), StoreFault> {
    let old = tables.errands.insert(row, value)?.map(|old| Places::of(row, old.value()));
    counts.add(QuotaKind::Errands, old.is_none());
    if let Some(old) = old.flatten() {
        old.remove(tables)?;
    }
    match Places::of(row, value) {
        Some(places) => places.put(tables),
        None => Ok(()),
    }
}

/// Removes an errand, if it is there.
pub(crate) fn remove(tables: &mut Tables<'_>, counts: &mut Counts, row: &[u8]) -> Result<(), StoreFault> {
    let Some(old) = tables.errands.remove(row)?.map(|old| Places::of(row, old.value())) else { return Ok(()) };
    counts.take(QuotaKind::Errands);
    match old {
        Some(old) => old.remove(tables),
        None => Ok(()),
    }
}

/// Whom errands go with.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    Session(SessionId),
    Binding(PluginId, BindingId),
    Plugin(PluginId),
}

/// Removes the errands of a session, a binding or a plugin, and looks at no others.
pub(crate) fn remove_all(tables: &mut Tables<'_>, counts: &mut Counts, org: OrgId, of: Of) -> Result<(), StoreFault> {
    let org = org.to_bytes();
    let found = match of {
        Of::Session(session) => heads(&tables.errands_of_session, &Prefix::new(&[&org, &session.to_bytes()]), 0)?,
        Of::Binding(plugin, binding) => {
            let own = Prefix::new(&[&org, &plugin.to_bytes(), &binding.to_bytes()]);
            heads(&tables.errands_of_plugin, &own, 0)?
        }
        Of::Plugin(plugin) => heads(&tables.errands_of_plugin, &Prefix::new(&[&org, &plugin.to_bytes()]), 0)?,
    };
    for (place, _) in found {
        let id = &place[place.len() - 16..];
        remove(tables, counts, &key(&[&org, id]))?;
    }
    Ok(())
}
