//! Reads: what callers can look at, each behind its permit.

use std::sync::Arc;

use portcullis_core::{ApiKey, Denial, OperationKind, Org, OrgId, Permit, PluginId, PluginVersion, Session, SessionId};

use crate::{Service, ServiceError};

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Whether there are more after them.
    pub more: bool,
}

impl<T> Page<T> {
    /// A page of at most `limit` of the `limit + 1` entries that were asked for.
    pub(crate) fn cut(mut entries: Vec<T>, limit: usize) -> Self {
        let more = entries.len() > limit;
        entries.truncate(limit);
        Self { entries, more }
    }
}

impl Service {
    /// One session, as of its last commit.
    ///
    /// # Errors
    /// If there is no such session.
    pub fn session(&self, permit: &Permit) -> Result<Arc<Session>, ServiceError> {
        debug_assert!(
            !permit.kind().row().mutates || permit.target().session.is_some(),
            "a read of one session names it"
        );
        let target = permit.target();
        target.session.and_then(|id| self.views.get(target.org, id)).ok_or(ServiceError::NotFound("session"))
    }

    /// Sessions of an organisation, newest first. A principal bound to one session sees that one.
    #[must_use]
    pub fn sessions(&self, permit: &Permit, before: Option<SessionId>, limit: usize) -> Page<Arc<Session>> {
        Page::cut(self.views.newest(permit.target().org, before, limit + 1), limit)
    }

    /// Sessions of all organisations, newest first: the operator's own listing across them.
    ///
    /// # Errors
    /// If the permit is for something else.
    pub fn all_sessions(
        &self,
        permit: &Permit,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Page<Arc<Session>>, ServiceError> {
        expect(permit, OperationKind::AllSessionsRead)?;
        let mut all = self.views.all();
        all.retain(|session| before.is_none_or(|before| session.id < before));
        all.sort_by_key(|session| std::cmp::Reverse(session.id));
        all.truncate(limit + 1);
        Ok(Page::cut(all, limit))
    }

    /// How many sessions an organisation has.
    #[must_use]
    pub fn session_count(&self, permit: &Permit) -> usize {
        self.views.count(permit.target().org)
    }

    /// One organisation.
    ///
    /// # Errors
    /// If there is none.
    pub fn read_org(&self, permit: &Permit) -> Result<Arc<Org>, ServiceError> {
        expect(permit, OperationKind::OrgRead)?;
        self.org(permit.target().org).ok_or(ServiceError::NotFound("organisation"))
    }

    /// All organisations, oldest first: the operator's own listing across them.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn list_orgs(&self, permit: &Permit, after: Option<OrgId>, limit: usize) -> Result<Page<Org>, ServiceError> {
        expect(permit, OperationKind::OrgRead)?;
        let orgs = self.store.snapshot()?.orgs(after, limit + 1)?;
        Ok(Page::cut(orgs, limit))
    }

    /// All keys of an organisation.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn list_keys(&self, permit: &Permit) -> Result<Vec<ApiKey>, ServiceError> {
        expect(permit, OperationKind::KeyRead)?;
        Ok(self.store.snapshot()?.keys(permit.target().org)?)
    }

    /// The newest version of every plugin.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn list_plugins(&self, permit: &Permit) -> Result<Vec<PluginVersion>, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        let mut newest: Vec<PluginVersion> = Vec::new();
        for version in self.store.snapshot()?.plugins(permit.target().org)? {
            match newest.iter_mut().find(|known| known.plugin == version.plugin) {
                Some(known) if known.version < version.version => *known = version,
                Some(_) => {}
                None => newest.push(version),
            }
        }
        Ok(newest)
    }

    /// All versions of a plugin, oldest first.
    ///
    /// # Errors
    /// If there is no such plugin, or the store cannot be read.
    pub fn plugin_versions(&self, permit: &Permit, plugin: PluginId) -> Result<Vec<PluginVersion>, ServiceError> {
        expect(permit, OperationKind::PluginRead)?;
        let mut versions = self.store.snapshot()?.plugin_versions(permit.target().org, plugin)?;
        versions.sort_by_key(|version| version.version);
        if versions.is_empty() { Err(ServiceError::NotFound("plugin")) } else { Ok(versions) }
    }
}

/// A permit for something else permits nothing here; whoever passes one has a bug, and still learns nothing.
pub(crate) fn expect(permit: &Permit, kind: OperationKind) -> Result<(), ServiceError> {
    if permit.kind() == kind { Ok(()) } else { Err(Denial::Hidden.into()) }
}
