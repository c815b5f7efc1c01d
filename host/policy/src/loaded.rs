//! Plugins that are ready to be asked, and how many of them are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};

use crate::call::CallState;

/// A linked component and where its functions are.
pub(crate) struct Plugin {
    pub(crate) pre: InstancePre<CallState>,
    pub(crate) describe: Option<ComponentExportIndex>,
    pub(crate) validate: Option<ComponentExportIndex>,
    pub(crate) before: Option<ComponentExportIndex>,
    pub(crate) after: Option<ComponentExportIndex>,
    pub(crate) on_event: Option<ComponentExportIndex>,
    pub(crate) fired: Option<ComponentExportIndex>,
    pub(crate) limits: Option<ComponentExportIndex>,
}

impl Plugin {
    /// Links `component`; fails if an import's type is not the contract's, or an interface that it exports lacks a function.
    pub(crate) fn link(linker: &Linker<CallState>, component: &Component) -> wasmtime::Result<Self> {
        // An interface whose function is missing must not pass for one that is not there: a gate would silently never be asked.
        let find = |interface: &str, function: &str| {
            let name = format!("portcullis:policy/{interface}@{}", crate::CONTRACT);
            let Some(found) = component.get_export_index(None, &name) else { return Ok(None) };
            match component.get_export_index(Some(&found), function) {
                Some(index) => Ok(Some(index)),
                None => Err(wasmtime::Error::msg(format!("{interface}.{function} is not exported"))),
            }
        };
        Ok(Self {
            pre: linker.instantiate_pre(component)?,
            describe: find("describe", "describe")?,
            validate: find("settings", "validate")?,
            before: find("gate", "before")?,
            after: find("observer", "after")?,
            on_event: find("observer", "on-event")?,
            fired: find("timer", "fired")?,
            limits: find("pace", "limits")?,
        })
    }
}

/// The plugins at hand, by digest; the least recently asked goes first when there are too many.
///
/// Each costs a file descriptor and a few memory maps, and a process that runs out of maps aborts: so the number is bounded.
pub(crate) struct Shelf {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    clock: u64,
    plugins: HashMap<[u8; 32], (u64, Arc<Plugin>)>,
}

impl Shelf {
    /// A shelf for at most `most` plugins.
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), inner: Mutex::default() }
    }

    /// The plugin with this digest, if it is at hand.
    pub(crate) fn get(&self, digest: &[u8; 32]) -> Option<Arc<Plugin>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        let (used, plugin) = inner.plugins.get_mut(digest)?;
        *used = now;
        Some(Arc::clone(plugin))
    }

    /// Puts a plugin at hand.
    pub(crate) fn put(&self, digest: [u8; 32], plugin: Arc<Plugin>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let now = inner.clock;
        inner.plugins.insert(digest, (now, plugin));
        while inner.plugins.len() > self.most {
            let Some(oldest) = inner.plugins.iter().min_by_key(|(_, (used, _))| *used).map(|(digest, _)| *digest)
            else {
                break;
            };
            inner.plugins.remove(&oldest);
        }
    }
}
