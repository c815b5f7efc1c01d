//! Which plugins are asked: the bindings of the platform, then those of the organisation, by their order.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use portcullis_core::{Binding, BindingId, Hook, Labels, Mode, OperationKind, OrgId, PluginVersion};
use portcullis_policy::Link;
use portcullis_store::{ReadError, Snapshot};
use sha2::{Digest, Sha256};

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
    let suspensions = snapshot.suspensions(org)?;
    let is_suspended =
        |binding: &Binding, candidate| suspensions.iter().any(|found| found.holds_for(binding, candidate));
    // The operator's ceiling holds for every plugin that works for the organisation.
    let ceiling = snapshot.org(org)?.and_then(|org| org.plugin_rules.ceiling);
    let owners = if org == OrgId::PLATFORM { vec![org] } else { vec![OrgId::PLATFORM, org] };
    for owner in owners {
        let mut bindings: Vec<Binding> =
            snapshot.bindings(owner)?.into_iter().filter(|binding| binding.mode != Mode::Off).collect();
        // Ids sort by birth: among equals the older binding is asked first.
        bindings.sort_by_key(|binding| (binding.order, binding.id));
        for mut binding in bindings {
            if let Some(ceiling) = &ceiling {
                binding.grants.retain(|grant| ceiling.contains(grant));
            }
            // From here on the binding is as it works in this organisation, which is less than what is kept of it.
            let Some(version) = snapshot.plugin(owner, binding.plugin, binding.version)? else { continue };
            let suspended = is_suspended(&binding, false);
            let candidate = match is_suspended(&binding, true) {
                true => None,
                false => candidate_of(&binding, snapshot)?,
            };
            if candidate.is_none() {
                // Nobody takes the bound version's place; its share of the sessions is that version's again.
                binding.candidate = None;
            }
            binding.grants.retain(|grant| version.asks_for(*grant));
            let place = |links: &Vec<Link>| u32::try_from(links.len()).unwrap_or(u32::MAX);
            let bound = Link::new(place(&links), Arc::new(binding), Arc::new(version));
            links.push(Link { suspended, ..bound });
            if let Some((binding, version)) = candidate {
                let tried = Link::new(place(&links), Arc::new(binding), Arc::new(version));
                links.push(Link { candidate: true, shadow: true, ..tried });
            }
        }
    }
    Ok(links)
}

/// A binding as its candidate would have it, and the candidate's version.
fn candidate_of(binding: &Binding, snapshot: &Snapshot) -> Result<Option<(Binding, PluginVersion)>, ReadError> {
    let Some(candidate) = &binding.candidate else { return Ok(None) };
    let Some(version) = snapshot.plugin(binding.org, binding.plugin, candidate.version)? else { return Ok(None) };
    let settings = candidate.settings.as_ref().unwrap_or(&binding.settings).clone();
    let mut tried = Binding { version: candidate.version, settings, ..binding.clone() };
    tried.grants.retain(|grant| version.asks_for(*grant));
    Ok(Some((tried, version)))
}

/// Whether the candidate decides in the place of the bound version about what has this id.
/// The same session is always on the same side, and different bindings choose different sessions.
fn candidate_decides(binding: &Binding, id: [u8; 16]) -> bool {
    let Some(candidate) = &binding.candidate else { return false };
    let mut hash = Sha256::new();
    hash.update(binding.id.to_bytes());
    hash.update(id);
    let digest = hash.finalize();
    // 16 bits are enough to cut a hundred into hundredths.
    u32::from(u16::from_be_bytes([digest[0], digest[1]])) * 100 / 65_536 < u32::from(candidate.percent)
}

/// The link of a binding that decides about what has this id: its candidate, or the version that is bound.
pub(crate) fn deciding(chain: &[Link], binding: BindingId, id: [u8; 16]) -> Option<Link> {
    let candidate = chain.iter().find(|link| link.binding.id == binding && link.candidate);
    match candidate.filter(|link| candidate_decides(&link.binding, id)) {
        Some(link) => Some(Link { shadow: false, ..link.clone() }),
        None => chain.iter().find(|link| link.binding.id == binding && !link.candidate).cloned(),
    }
}

/// Has candidates decide that are to, and takes out who is only asked by gates if `hook` is another one.
fn cast(links: Vec<Link>, hook: Hook, id: [u8; 16]) -> Vec<Link> {
    let cast = links.into_iter().map(|link| match candidate_decides(&link.binding, id) {
        true => Link { shadow: !link.shadow, ..link },
        false => link,
    });
    cast.filter(|link| hook == Hook::Gate || !link.shadow).collect()
}

/// The links that are asked at `hook` about an operation on what has this id and these labels.
pub(crate) fn asked(chain: &[Link], hook: Hook, kind: OperationKind, labels: &Labels, id: [u8; 16]) -> Vec<Link> {
    let asked = chain.iter().filter(|link| is_asked(&link.binding, &link.version, hook, kind, labels));
    cast(asked.cloned().collect(), hook, id)
}

fn is_asked(binding: &Binding, version: &PluginVersion, hook: Hook, kind: OperationKind, labels: &Labels) -> bool {
    let hooks = if binding.hooks.is_empty() { &version.hooks } else { &binding.hooks };
    if kind.is_about_plugins() && binding.org != OrgId::PLATFORM {
        return false;
    }
    version.exports.iter().any(|export| export == hook.interface())
        // Pacing is asked about a session, not about an operation, so hooks do not choose there.
        && (hook == Hook::Pace || hooks.is_empty() || hooks.contains(&kind))
        && binding.selector.chooses(labels)
}
