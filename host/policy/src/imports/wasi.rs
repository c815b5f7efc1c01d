//! WASI 0.2 for guests whose language needs it, leading nowhere: no files, no sockets, no environment, no arguments.
//!
//! Its clocks stand still at the context's time, its random bytes come from the context's seed, and what is written to stdout and stderr goes to the plugin's log.
//! Waiting for time to pass ends at once, because no time passes within a call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use portcullis_core::Timestamp;
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::clocks::{WasiClocksCtxView, WasiClocksView};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use super::log::Log;
use crate::LogLevel;
use crate::call::CallState;

/// The most bytes of output that are kept of one call.
const OUTPUT_BYTES: usize = 64 << 10;
/// How much a guest may write at a time.
const WRITE_BYTES: usize = 16 << 10;
/// How many random bytes a guest may ask for at a time.
const RANDOM_BYTES: u64 = 64 << 10;
/// After how many words the guest's random bytes begin anew.
const RANDOM_WORDS: usize = 64;

/// The WASI side of one call.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    stdout: Output,
    stderr: Output,
}

impl Wasi {
    fn new(now: Timestamp, seed: u64) -> Self {
        let (stdout, stderr) = (Output::default(), Output::default());
        let ctx = WasiCtx::builder()
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .wall_clock(Still(now))
            .monotonic_clock(Still(now))
            .secure_random(random(seed))
            .insecure_random(random(!seed))
            .insecure_random_seed(seed.into())
            .max_random_size(RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        Self { ctx, table: ResourceTable::new(), stdout, stderr }
    }

    /// Moves what the guest wrote to its log, line by line.
    pub(crate) fn drain(&self, log: &mut Log) {
        for (output, level) in [(&self.stdout, LogLevel::Info), (&self.stderr, LogLevel::Warn)] {
            let written = std::mem::take(&mut *output.lock());
            for line in String::from_utf8_lossy(&written.kept).lines() {
                log.write(level, line);
            }
            log.drop_lines(written.dropped_lines);
        }
    }
}

/// Adds WASI 0.2 to the linker, with time standing still.
pub(crate) fn add_to_linker(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    // WASI's own implementation would sleep for real.
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<_, StillClocks>(linker, |state| Stopped(state.clocks()))?;
    linker.allow_shadowing(false);
    Ok(())
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (now, seed) = (self.now, self.seed);
        let wasi = self.wasi.get_or_insert_with(|| Box::new(Wasi::new(now, seed)));
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

/// Bytes that depend on the seed alone (SplitMix64).
fn random(seed: u64) -> Deterministic {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(RANDOM_WORDS * 8);
    for _ in 0..RANDOM_WORDS {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend((word ^ (word >> 31)).to_le_bytes());
    }
    Deterministic::new(bytes)
}

/// A clock that stands still.
struct Still(Timestamp);

impl HostWallClock for Still {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.as_millis())
    }
}

impl HostMonotonicClock for Still {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

/// The monotonic clock, on which every wait is over.
struct Stopped<'a>(WasiClocksCtxView<'a>);

struct StillClocks;

impl HasData for StillClocks {
    type Data<'a> = Stopped<'a>;
}

impl monotonic_clock::Host for Stopped<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        monotonic_clock::Host::now(&mut self.0)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        monotonic_clock::Host::resolution(&mut self.0)
    }

    fn subscribe_instant(&mut self, _when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        monotonic_clock::Host::subscribe_duration(&mut self.0, 0)
    }

    fn subscribe_duration(&mut self, _duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        monotonic_clock::Host::subscribe_duration(&mut self.0, 0)
    }
}

/// Where stdout or stderr goes: kept up to a bound, then dropped without an error, because a full log is not the guest's failure.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    kept: Vec<u8>,
    dropped_lines: usize,
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 would ask for this one.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut written = self.lock();
        let room = OUTPUT_BYTES - written.kept.len();
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        written.kept.extend_from_slice(kept);
        written.dropped_lines += dropped.iter().filter(|byte| **byte == b'\n').count();
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}
