//! How uploaded bytes become a plugin, and every way in which they do not.
//!
//! In this order, cheapest first: size, one component, contract version, imports, compilation in a process of its own, the resources it needs, its types, and what it says of itself.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use portcullis_core::{Grant, OperationKind, OrgId, PluginClass, PluginFailure, Want};
use sha2::{Digest, Sha256};

use crate::bindings::portcullis::policy::describe::Description;
use crate::call::{Asked, Budget, Reply};
use crate::compile::CompileError;
use crate::schema::Unjudged;
use crate::{Runtime, schema, shape};

/// The most kinds of events of which a plugin can be told.
const MAX_EVENTS: usize = 64;

/// A component that can be bound, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// SHA-256 of its bytes.
    pub digest: [u8; 32],
    /// How many bytes it has.
    pub size: u64,
    /// The version of the contract that it was built for.
    pub contract: String,
    /// The interfaces that it exports, by their names in the contract.
    pub exports: Vec<String>,
    /// The name it gives itself.
    pub name: String,
    /// The version it gives itself, for people.
    pub declared_version: String,
    /// What it says it does.
    pub description: String,
    /// The JSON Schema of its settings, if it has one.
    pub settings_schema: Option<String>,
    /// The operations for which it wants to be asked; empty means all that are hookable.
    pub hooks: Vec<OperationKind>,
    /// The events of which it wants to be told.
    pub events: Vec<String>,
    /// What it asks to be granted, and why.
    pub wants: Vec<Want>,
    /// The component itself.
    pub bytes: Vec<u8>,
}

/// Why a component was not admitted, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// It is larger than the gateway takes.
    #[error("the component has {size} bytes and {max} are allowed; build it in release mode and strip it")]
    TooLarge {
        /// What came.
        size: u64,
        /// What is allowed.
        max: u64,
    },
    /// It is something else.
    #[error("this is {what}, not a component; make one with `wasm-tools component new` or the plugin SDK")]
    NotAComponent {
        /// What it is.
        what: &'static str,
    },
    /// It breaks the format.
    #[error("this is not a well-formed component: {why}")]
    Malformed {
        /// How, in the parser's words.
        why: String,
    },
    /// It was built for a contract version that is not served.
    #[error(
        "the component was built for portcullis:policy@{found} and this gateway serves {served}; rebuild it with a matching SDK"
    )]
    UnknownContract {
        /// What it was built for.
        found: String,
        /// What is served.
        served: &'static str,
    },
    /// It imports what no plugin can have.
    #[error(
        "the component imports {name}, which no plugin can have; plugins may import log, kv, sessions and secrets of portcullis:policy, and WASI 0.2 without network and files"
    )]
    UnknownImport {
        /// What it imports.
        name: String,
    },
    /// It exports nothing of the contract.
    #[error(
        "the component exports none of describe, settings, gate, observer, timer and pace; export at least describe and one to be asked"
    )]
    NoExports,
    /// It does not describe itself.
    #[error("the component does not export describe; every plugin must say what it is")]
    NoDescribe,
    /// An interface that it imports or exports has other types than the contract's.
    #[error("an interface of the component differs from the contract: {why}; rebuild it against the released WIT")]
    Mismatched {
        /// Which and how, in the linker's words.
        why: String,
    },
    /// It could not be compiled.
    #[error("the component could not be compiled; {}", .0.advice())]
    Compile(#[source] CompileError),
    /// It would take more of the machine than a plugin gets.
    #[error("the component needs too much: {what}")]
    TooManyResources {
        /// Too much of what.
        what: String,
    },
    /// It failed when asked what it is.
    #[error("describe failed; it must answer without any settings, grants or input")]
    DescribeFailed(#[source] PluginFailure),
    /// What it said of itself breaks the contract.
    #[error("the field {field} of its description is not acceptable: {why}")]
    BadDescription {
        /// Which field.
        field: &'static str,
        /// Why.
        why: String,
    },
    /// Another upload of the organisation is being compiled.
    #[error("the organisation {org} has an upload under way; try again when it is done")]
    Busy {
        /// The organisation.
        org: OrgId,
    },
}

impl AdmissionError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "payload_too_large",
            Self::NotAComponent { .. } => "not_a_component",
            Self::Malformed { .. } => "malformed_component",
            Self::UnknownContract { .. } => "unknown_contract_version",
            Self::UnknownImport { .. } => "unknown_import",
            Self::NoExports => "no_exports",
            Self::NoDescribe => "no_describe",
            Self::Mismatched { .. } => "contract_mismatch",
            Self::Compile(error) => error.code(),
            Self::TooManyResources { .. } => "too_many_resources",
            Self::DescribeFailed(_) => "describe_failed",
            Self::BadDescription { .. } => "bad_description",
            Self::Busy { .. } => "upload_in_progress",
        }
    }
}

/// The organisations that have an upload under way.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<HashSet<OrgId>>);

impl Uploads {
    fn begin(&self, org: OrgId) -> Result<Upload<'_>, AdmissionError> {
        let began = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(org);
        if began { Ok(Upload { uploads: self, org }) } else { Err(AdmissionError::Busy { org }) }
    }
}

/// One upload under way; ends when dropped, also when its caller goes away.
struct Upload<'a> {
    uploads: &'a Uploads,
    org: OrgId,
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.uploads.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.org);
    }
}

impl Runtime {
    /// Makes a plugin of uploaded bytes, within the bounds of its class, which also makes it ready to be asked.
    ///
    /// # Errors
    /// Says what is wrong with the component, or that the organisation is uploading already.
    pub async fn admit(&self, org: OrgId, bytes: Vec<u8>, class: PluginClass) -> Result<Admitted, AdmissionError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let bounds = self.config().bounds(class);
        let max = u64::try_from(bounds.component_bytes).unwrap_or(u64::MAX);
        if size > max {
            return Err(AdmissionError::TooLarge { size, max });
        }
        let shape = shape::read(&bytes)?;
        let _upload = self.uploads().begin(org)?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let (plugin, bytes) = self.make(digest, class, bytes).await?;

        let Some(permit) = self.permits().take(org).await else {
            return Err(AdmissionError::DescribeFailed(PluginFailure::Overloaded));
        };
        let state = self.bare_state(class);
        let called = self.call(&permit, &plugin, state, Budget::background(&bounds), Asked::Describe).await;
        if let Some(why) = called.mismatch {
            return Err(AdmissionError::Mismatched { why });
        }
        let description = match called.result {
            Ok(Reply::Described(description)) => {
                if let Some(settings) = &description.settings_schema {
                    let judged = schema::judge(&self.config().compiler, settings, None).await;
                    judged.map_err(|Unjudged(why)| AdmissionError::BadDescription { field: "settings-schema", why })?;
                }
                check(description)?
            }
            Ok(_) => return Err(AdmissionError::DescribeFailed(PluginFailure::BadOutput)),
            Err(failure) => return Err(AdmissionError::DescribeFailed(failure)),
        };
        self.keep(digest, plugin);
        let Described { name, declared_version, description, settings_schema, hooks, events, wants } = description;
        Ok(Admitted {
            digest,
            size,
            contract: shape.contract,
            exports: shape.exports,
            name,
            declared_version,
            description,
            settings_schema,
            hooks,
            events,
            wants,
            bytes,
        })
    }
}

struct Described {
    name: String,
    declared_version: String,
    description: String,
    settings_schema: Option<String>,
    hooks: Vec<OperationKind>,
    events: Vec<String>,
    wants: Vec<Want>,
}

fn check(given: Description) -> Result<Described, AdmissionError> {
    let bad = |field, why: &str| AdmissionError::BadDescription { field, why: why.to_owned() };
    let in_alphabet = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    let name = given.name;
    if name.is_empty() || name.len() > 64 || !name.chars().all(in_alphabet) {
        return Err(bad("name", "it must be 1 to 64 characters of a-z, 0-9 and '-'"));
    }
    let printable = |text: &str| !text.chars().any(char::is_control);
    if given.version.is_empty() || given.version.len() > 64 || !printable(&given.version) {
        return Err(bad("version", "it must be 1 to 64 printable bytes"));
    }
    if given.description.len() > 1024 || !printable(&given.description) {
        return Err(bad("description", "it must be at most 1024 printable bytes"));
    }
    let mut hooks = Vec::new();
    for hook in &given.hooks {
        match OperationKind::from_name(hook).filter(|kind| kind.row().hookable) {
            Some(kind) if hooks.contains(&kind) => {}
            Some(kind) => hooks.push(kind),
            None => {
                let known: Vec<_> = OperationKind::ALL.iter().filter(|kind| kind.row().hookable).collect();
                let known = known.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
                return Err(AdmissionError::BadDescription {
                    field: "hooks",
                    why: format!("there is no hook {hook:.64}; the hooks are {known}"),
                });
            }
        }
    }
    let of_event = |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_');
    let is_event = |name: &String| {
        let name = name.strip_suffix('*').unwrap_or(name);
        name.len() <= 128 && name.chars().all(of_event)
    };
    if given.events.len() > MAX_EVENTS || given.events.iter().any(|event| event.is_empty() || !is_event(event)) {
        return Err(AdmissionError::BadDescription {
            field: "events",
            why: format!(
                "at most {MAX_EVENTS} names of 1 to 128 characters of a-z, A-Z, 0-9, '.', '-' and '_', of which the last may be '*'"
            ),
        });
    }
    let mut wants: Vec<Want> = Vec::new();
    for want in given.wants {
        match Grant::from_name(&want.grant) {
            Some(_) if want.why.len() > 1024 || !printable(&want.why) => {
                return Err(bad("wants", "a reason must be at most 1024 printable bytes"));
            }
            Some(grant) if wants.iter().any(|known| known.grant == grant) => {}
            Some(grant) => wants.push(Want { grant, why: want.why }),
            None => {
                return Err(AdmissionError::BadDescription {
                    field: "wants",
                    why: format!(
                        "there is no grant {:.64}; the grants are kv, sessions, secrets, http and lifecycle",
                        want.grant
                    ),
                });
            }
        }
    }
    Ok(Described {
        name,
        declared_version: given.version,
        description: given.description,
        settings_schema: given.settings_schema,
        hooks,
        events: given.events,
        wants,
    })
}
