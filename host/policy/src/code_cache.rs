//! Compiled code on disk, so that a restart compiles nothing.
//!
//! Compiled code is machine code that the gateway will run, so a file of it is believed only with its seal: a MAC over the file's name and content, under a key of the gateway's own.
//! The name says which component it is and for which engine, so that a file is never taken for another one.
//! What does not fit its seal is deleted and compiled anew. A disk that is full or read-only costs the cache and nothing else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compile::{Code, instantiable};
use crate::hex;

/// How names of files that hold code end.
const SUFFIX: &str = ".code";
/// How names of files that are being written begin.
const UNFINISHED: &str = ".unfinished-";
const MAC_BYTES: usize = 32;

/// Where compiled components are kept.
#[derive(Clone)]
pub struct CodeCache {
    /// A directory of its own; it is made if it is not there.
    pub directory: PathBuf,
    /// The key of the seals. Whoever has it can have the gateway run machine code of their own.
    pub key: [u8; 32],
    /// How many bytes of files are kept. What was used longest ago goes first.
    pub max_bytes: u64,
}

impl std::fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { directory, key: _, max_bytes } = self;
        f.debug_struct("CodeCache").field("directory", directory).field("max_bytes", max_bytes).finish_non_exhaustive()
    }
}

/// How often compiled code was made, found and refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CodeStats {
    /// Components that were compiled.
    pub compiled: u64,
    /// Components whose code was found on disk.
    pub found: u64,
    /// Files that did not fit their seal.
    pub refused: u64,
}

/// The code that is kept, and the counters.
#[derive(Default)]
pub(crate) struct Codes {
    shelf: Option<Arc<Shelf>>,
    compiled: AtomicU64,
    found: AtomicU64,
    refused: Arc<AtomicU64>,
}

impl Codes {
    /// With a cache, if there is one and its directory can be used.
    pub(crate) fn new(cache: Option<&CodeCache>, engine: &Engine) -> Self {
        let refused = Arc::new(AtomicU64::new(0));
        let shelf = cache.and_then(|cache| match prepare(&cache.directory) {
            Ok(()) => {
                Some(Arc::new(Shelf { cache: cache.clone(), engine: fitting(engine), refused: Arc::clone(&refused) }))
            }
            Err(error) => {
                let directory = cache.directory.display();
                tracing::warn!(%error, %directory, "compiled plugins cannot be kept; they are compiled after every restart");
                None
            }
        });
        Self { shelf, refused, ..Self::default() }
    }

    pub(crate) fn stats(&self) -> CodeStats {
        CodeStats {
            compiled: self.compiled.load(Ordering::Relaxed),
            found: self.found.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Counts a component that was compiled.
    pub(crate) fn compiled(&self) {
        self.compiled.fetch_add(1, Ordering::Relaxed);
    }

    /// The component with this digest, from code that was kept.
    pub(crate) async fn find(&self, engine: &Engine, digest: [u8; 32]) -> Option<Component> {
        let shelf = Arc::clone(self.shelf.as_ref()?);
        let code = tokio::task::spawn_blocking(move || shelf.read(&digest)).await.ok()??;
        // The seal fits, so what does not load is of an engine that calls itself the same and is not. It is compiled anew and replaced.
        let component = instantiable(engine, Arc::new(code)).await.ok()?;
        self.found.fetch_add(1, Ordering::Relaxed);
        Some(component)
    }

    /// Keeps the code of the component with this digest, if it can.
    pub(crate) async fn keep(&self, digest: [u8; 32], code: Arc<Code>) {
        let Some(shelf) = self.shelf.clone() else { return };
        let kept = tokio::task::spawn_blocking(move || shelf.write(&digest, code.bytes())).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "a compiled plugin could not be kept; it is compiled again after a restart");
        }
    }
}

/// Makes the directory, for nobody else to see, and takes out what a crash left in it.
fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What the engine must have in common with the one that the code was compiled for, as a word: its version, its settings and the machine.
fn fitting(engine: &Engine) -> String {
    struct Digesting(Sha256);
    impl Hasher for Digesting {
        fn finish(&self) -> u64 {
            let digest = self.0.clone().finalize();
            digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    // The standard library's hasher may change with its version; this one does not.
    let mut hasher = Digesting(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The directory of code files. Every method blocks.
struct Shelf {
    cache: CodeCache,
    engine: String,
    refused: Arc<AtomicU64>,
}

impl Shelf {
    fn name(&self, digest: &[u8; 32]) -> String {
        format!("{}-{}{SUFFIX}", hex(digest), self.engine)
    }

    fn seal(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.cache.key).expect("HMAC takes keys of any length");
        // All names have the same length, so that nothing of one can pass for the other.
        mac.update(name.as_bytes());
        mac.update(code);
        mac
    }

    fn read(&self, digest: &[u8; 32]) -> Option<Code> {
        let name = self.name(digest);
        let path = self.cache.directory.join(&name);
        let mut file = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        if let Err(error) = file.read_to_end(&mut bytes) {
            tracing::warn!(%error, file = name, "a compiled plugin could not be read");
            return None;
        }
        let fits = bytes
            .split_at_checked(MAC_BYTES)
            .is_some_and(|(seal, code)| self.seal(&name, code).verify_slice(seal).is_ok());
        if !fits {
            self.refused.fetch_add(1, Ordering::Relaxed);
            tracing::error!(file = name, "a compiled plugin does not fit its seal; it is deleted and compiled anew");
            let _ = fs::remove_file(&path);
            return None;
        }
        // For the order in which files go; where it cannot be written, the order is that of their making.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let _ = futimens(&file, &Timestamps { last_access: omit, last_modification: now });
        Some(Code::kept(bytes.split_off(MAC_BYTES)))
    }

    fn write(&self, digest: &[u8; 32], code: &[u8]) -> io::Result<()> {
        let size = u64::try_from(code.len() + MAC_BYTES).unwrap_or(u64::MAX);
        if size > self.cache.max_bytes {
            return Ok(());
        }
        let name = self.name(digest);
        self.make_room(size, &name)?;
        let unfinished = self.cache.directory.join(format!("{UNFINISHED}{name}"));
        let written = self.write_to(&unfinished, &name, code);
        let kept = written.and_then(|()| fs::rename(&unfinished, self.cache.directory.join(&name)));
        if kept.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        kept
    }

    fn write_to(&self, path: &Path, name: &str, code: &[u8]) -> io::Result<()> {
        let _ = fs::remove_file(path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&self.seal(name, code).finalize().into_bytes())?;
        file.write_all(code)?;
        file.sync_all()
    }

    /// Deletes what was used longest ago until `size` more bytes fit.
    fn make_room(&self, size: u64, name: &str) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.cache.directory)? {
            let entry = entry?;
            let known = entry.file_name();
            let known = known.to_string_lossy();
            // The file that is about to be replaced takes no room beside its successor.
            if known.ends_with(SUFFIX) && !known.starts_with('.') && known != name {
                let about = entry.metadata()?;
                files.push((about.modified()?, about.len(), entry.path()));
            }
        }
        files.sort();
        let mut held: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, freed, path) in files {
            if held.saturating_add(size) <= self.cache.max_bytes {
                break;
            }
            fs::remove_file(path)?;
            held = held.saturating_sub(freed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::{RuntimeConfig, machine};

    #[test]
    fn code_is_named_for_the_engine_that_it_fits() {
        let running = machine::running_engine(&RuntimeConfig::default()).unwrap();
        let compiling = machine::compiling_engine().unwrap();
        assert_eq!(fitting(&running), fitting(&compiling), "what the child compiles runs here");
        let other = Engine::new(machine::tunables().consume_fuel(false)).unwrap();
        assert_ne!(fitting(&running), fitting(&other));
        let mut later = machine::tunables();
        later.module_version(wasmtime::ModuleVersionStrategy::Custom("99.0.0".to_owned())).unwrap();
        assert_ne!(
            fitting(&running),
            fitting(&Engine::new(&later).unwrap()),
            "a version of its own has files of its own"
        );
    }

    #[test]
    fn the_key_is_not_printed() {
        let cache = CodeCache { directory: PathBuf::from("here"), key: [77; 32], max_bytes: 1 };
        assert_eq!(format!("{cache:?}"), "CodeCache { directory: \"here\", max_bytes: 1, .. }");
    }
}
