//! A runtime like the gateway's on the author's machine, and one component admitted to it as at an upload.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_core::{OrgId, PluginClass};
use portcullis_policy::{AdmissionError, Admitted, ClassBounds, CodeCache, Compiler, Runtime, RuntimeConfig};

use crate::Failure;

/// How much compiled code is kept between commands.
const CACHE_BYTES: u64 = 512 << 20;
/// How much longer than in a gateway compiling may take: an author's machine does something else meanwhile.
const PATIENCE: u32 = 5;

/// Who compiles, and where compiled code is kept.
#[derive(Debug, Clone)]
pub(super) struct Workshop {
    pub(super) compiler: Compiler,
    pub(super) cache: Option<CodeCache>,
}

/// A component that the gateway would take.
pub(super) struct Offline {
    pub(super) runtime: Arc<Runtime>,
    pub(super) admitted: Admitted,
    /// How much it needs to be allowed to use.
    pub(super) class: PluginClass,
    /// How long it took to compile and to describe itself.
    pub(super) took: Duration,
}

impl Workshop {
    /// This program compiles in a process of its own, as in the gateway, so that a component that compiles here compiles there.
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { compiler: Compiler::Child { executable: std::env::current_exe()? }, cache: None })
    }

    /// The same, and what was compiled once is not compiled again.
    ///
    /// The code lies among the user's own files and never in a project: whoever could put code of theirs there had it run here.
    pub(super) fn with_cache() -> Result<Self, Failure> {
        let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = caches.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
        let cache = caches.and_then(|caches| {
            let directory = caches.join("portcullis");
            // Without a place for it, everything is compiled every time; nothing else is lost.
            let key = cache_key(&directory).ok()?;
            Some(CodeCache { directory: directory.join("code"), key, max_bytes: CACHE_BYTES })
        });
        Ok(Self { cache, ..Self::new()? })
    }
}

/// The key of the user's own cache.
fn cache_key(directory: &Path) -> std::io::Result<[u8; 32]> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let file = directory.join("code-key");
    let mut key = [0; 32];
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file) {
        Ok(mut made) => {
            getrandom::fill(&mut key).map_err(std::io::Error::other)?;
            made.write_all(&key)?;
        }
        Err(_) => std::fs::File::open(&file)?.read_exact(&mut key)?,
    }
    Ok(key)
}

/// Admits a component: as a standard one if that is enough for it, or else as a large one.
pub(super) async fn admit(bytes: Vec<u8>, workshop: Workshop) -> Result<Offline, Failure> {
    let Workshop { compiler, cache } = workshop;
    let mut config = RuntimeConfig { compiler, cache, ..RuntimeConfig::default() };
    config.compile_wall *= PATIENCE;
    config.large.compile_wall *= PATIENCE;
    let runtime = Runtime::new(config)?;
    let admit = async |bytes, class| {
        let began = Instant::now();
        let admitted = runtime.admit(OrgId::PLATFORM, bytes, class).await;
        admitted.map(|admitted| (admitted, class, began.elapsed()))
    };
    let admitted = match admit(bytes.clone(), PluginClass::Standard).await {
        Err(error) if may_be_large(&error) => admit(bytes, PluginClass::Large).await,
        other => other,
    };
    let (admitted, class, took) = admitted.map_err(Refused::from)?;
    Ok(Offline { runtime, admitted, class, took })
}

/// Whether the larger class could make a difference.
fn may_be_large(error: &AdmissionError) -> bool {
    matches!(
        error,
        AdmissionError::TooLarge { .. }
            | AdmissionError::Compile(_)
            | AdmissionError::TooManyResources { .. }
            | AdmissionError::DescribeFailed(_)
    )
}

impl Offline {
    /// What its calls may use.
    pub(super) fn bounds(&self) -> ClassBounds {
        RuntimeConfig::default().bounds(self.class)
    }
}

/// The gateway would not take the component.
#[derive(Debug, thiserror::Error)]
#[error("no gateway takes this component: {code}")]
struct Refused {
    code: &'static str,
    #[source]
    source: AdmissionError,
}

impl From<AdmissionError> for Refused {
    fn from(source: AdmissionError) -> Self {
        Self { code: source.code(), source }
    }
}
