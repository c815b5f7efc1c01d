//! Which plugins are asked: the bindings of the platform, then those of the organisation, by their order.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use portcullis_core::{Binding, Hook, Labels, Mode, OperationKind, OrgId, PluginVersion};
use portcullis_policy::Link;
use portcullis_store::{ReadError, Snapshot};

/// The bindings that work for each organisation, as of their last change.
#[derive(Default)]
pub(crate) struct Chains {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Counts changes, so that a chain read before a change is not kept after it.
    epoch: u64,
    by_org: HashMap<OrgId, Arc<Vec<Link>>>,
}

impl Chains {
    /// How many changes there were so far. Read it before the snapshot that [`Chains::of`] is to read from:
    /// the chain of a snapshot that was taken before a change must not be kept after it.
    pub(crate) fn epoch(&self) -> u64 {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).epoch
    }

    /// The whole chain of an organisation, in order, plugins that are off left out.
    pub(crate) fn of(&self, org: OrgId, snapshot: &Snapshot, epoch: u64) -> Result<Arc<Vec<Link>>, ReadError> {
        {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(chain) = inner.by_org.get(&org) {
                return Ok(Arc::clone(chain));
            }
        }
        let chain = Arc::new(read(org, snapshot)?);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.epoch == epoch {
            inner.by_org.insert(org, Arc::clone(&chain));
        }
        Ok(chain)
    }

    /// Forgets what a change of `owner`'s bindings may have made wrong.
    pub(crate) fn changed(&self, owner: OrgId) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.epoch += 1;
        if owner == OrgId::PLATFORM {
            inner.by_org.clear();
        } else {
            inner.by_org.remove(&owner);
        }
    }
}

fn read(org: OrgId, snapshot: &Snapshot) -> Result<Vec<Link>, ReadError> {
    let mut links: Vec<Link> = Vec::new();
    let owners = if org == OrgId::PLATFORM { vec![org] } else { vec![OrgId::PLATFORM, org] };
    for owner in owners {
        let mut bindings: Vec<Binding> =
            snapshot.bindings(owner)?.into_iter().filter(|binding| binding.mode != Mode::Off).collect();
        // Ids sort by birth: among equals the older binding is asked first.
        bindings.sort_by_key(|binding| (binding.order, binding.id));
        for binding in bindings {
            let Some(version) = snapshot.plugin(owner, binding.plugin, binding.version)? else { continue };
            let position = u32::try_from(links.len()).unwrap_or(u32::MAX);
            links.push(Link { position, binding: Arc::new(binding), version: Arc::new(version) });
        }
    }
    Ok(links)
}

/// The links that are asked at `hook` about an operation on a session with these labels.
pub(crate) fn asked(chain: &[Link], hook: Hook, kind: OperationKind, labels: &Labels) -> Vec<Link> {
    chain.iter().filter(|link| is_asked(&link.binding, &link.version, hook, kind, labels)).cloned().collect()
}

fn is_asked(binding: &Binding, version: &PluginVersion, hook: Hook, kind: OperationKind, labels: &Labels) -> bool {
    let hooks = if binding.hooks.is_empty() { &version.hooks } else { &binding.hooks };
    version.exports.iter().any(|export| export == hook.interface())
        // Pacing is asked about a session, not about an operation, so hooks do not choose there.
        && (hook == Hook::Pace || hooks.is_empty() || hooks.contains(&kind))
        && binding.selector.chooses(labels)
}
