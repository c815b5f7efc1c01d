//! How many plugins the machine has room for, found out before it is full.
//!
//! A plugin at hand keeps a file open, and each one takes memory maps. A process that runs out of maps does not fail where it asked for too much:
//! its next allocation fails, wherever that is, and the process aborts. So the number is bounded beforehand.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{RuntimeConfig, machine};

/// Maps of one plugin at hand: three of its code, and two of its own when its first instance is made.
const MAPS_OF_PLUGIN: u64 = 5;
/// Maps of one instance, for each of its memories, tables and stacks.
const MAPS_OF_SLOT: u64 = 2;
/// Maps that the rest of the process may need: libraries, threads, the store and the allocator.
const OTHER_MAPS: u64 = 16_384;
/// With fewer plugins than this at hand a gateway would do nothing but load them.
const FEWEST: u64 = 16;

/// How many plugins the machine has room for, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    /// How many files the process can have open; none if there is no limit.
    pub open_files: Option<u64>,
    /// How many memory maps the process can have; none if it is not known.
    pub memory_maps: Option<u64>,
    /// How many plugins were to be at hand.
    pub wanted: usize,
    /// How many are.
    pub plugins: usize,
}

/// Why the machine has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WallsError {
    /// Too few files can be open.
    #[error(
        "the process can have {limit} files open, which leaves room for {plugins} plugins, and {FEWEST} are the fewest; raise its limit of open files (LimitNOFILE, ulimit -n)"
    )]
    OpenFiles {
        /// The limit.
        limit: u64,
        /// What it leaves.
        plugins: u64,
    },
    /// There can be too few maps.
    #[error(
        "the process can have {limit} memory maps, which leaves room for {plugins} plugins, and {FEWEST} are the fewest; raise vm.max_map_count"
    )]
    MemoryMaps {
        /// The limit.
        limit: u64,
        /// What it leaves.
        plugins: u64,
    },
}

impl Walls {
    /// Looks at this machine, after raising the soft limit of open files to the hard one.
    pub(crate) fn measure(config: &RuntimeConfig) -> Result<Self, WallsError> {
        let walls = Self::between(raise_open_files(), memory_maps(), config)?;
        if walls.plugins < walls.wanted {
            let Self { wanted, plugins, open_files, memory_maps } = walls;
            tracing::warn!(
                wanted,
                plugins,
                open_files,
                memory_maps,
                "fewer plugins are kept at hand than were asked for; raise the limit of open files (LimitNOFILE) and vm.max_map_count"
            );
        }
        Ok(walls)
    }

    /// What fits between these limits.
    fn between(open_files: Option<u64>, memory_maps: Option<u64>, config: &RuntimeConfig) -> Result<Self, WallsError> {
        let calls = u64::try_from(config.calls_in_all).unwrap_or(u64::MAX);
        let slots = u64::from(machine::MEMORIES + machine::TABLES) + 1;
        let of_instances = calls.saturating_mul(slots).saturating_mul(MAPS_OF_SLOT);
        let by_files = open_files.map(|limit| limit.saturating_sub(config.other_files));
        let by_maps =
            memory_maps.map(|limit| limit.saturating_sub(OTHER_MAPS).saturating_sub(of_instances) / MAPS_OF_PLUGIN);
        if let (Some(limit), Some(plugins)) = (open_files, by_files)
            && plugins < FEWEST
        {
            return Err(WallsError::OpenFiles { limit, plugins });
        }
        if let (Some(limit), Some(plugins)) = (memory_maps, by_maps)
            && plugins < FEWEST
        {
            return Err(WallsError::MemoryMaps { limit, plugins });
        }
        let fit = by_files.unwrap_or(u64::MAX).min(by_maps.unwrap_or(u64::MAX));
        let plugins = config.loaded_plugins.min(usize::try_from(fit).unwrap_or(usize::MAX));
        Ok(Self { open_files, memory_maps, wanted: config.loaded_plugins, plugins })
    }
}

/// How many files may be open now.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            current
        }
    }
}

fn memory_maps() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod test {
    use super::*;

    fn between(open_files: Option<u64>, memory_maps: Option<u64>) -> Result<usize, WallsError> {
        let config =
            RuntimeConfig { loaded_plugins: 1_000, calls_in_all: 64, other_files: 500, ..RuntimeConfig::default() };
        Walls::between(open_files, memory_maps, &config).map(|walls| walls.plugins)
    }

    #[test]
    fn as_many_plugins_are_kept_as_fit() {
        // 64 calls of 9 slots take 1,152 maps, and the rest of the process 16,384.
        let base = 16_384 + 1_152;
        let cases = [
            (None, None, Ok(1_000)),
            (Some(20_000), Some(65_530), Ok(1_000)),
            (Some(1_500), None, Ok(1_000)),
            (Some(1_499), None, Ok(999)),
            (Some(516), None, Ok(16)),
            (Some(515), None, Err(WallsError::OpenFiles { limit: 515, plugins: 15 })),
            (Some(0), None, Err(WallsError::OpenFiles { limit: 0, plugins: 0 })),
            (None, Some(base + 5_000), Ok(1_000)),
            (None, Some(base + 4_999), Ok(999)),
            (None, Some(base + 80), Ok(16)),
            (None, Some(base + 79), Err(WallsError::MemoryMaps { limit: base + 79, plugins: 15 })),
            (Some(600), Some(base + 100), Ok(20)),
            (Some(520), Some(base + 1_000), Ok(20)),
        ];
        for (files, maps, expected) in cases {
            assert_eq!(between(files, maps), expected, "{files:?} files and {maps:?} maps");
        }
    }

    #[test]
    fn few_plugins_are_kept_if_few_are_wanted() {
        let config = RuntimeConfig { loaded_plugins: 2, ..RuntimeConfig::default() };
        assert_eq!(Walls::between(Some(20_000), Some(65_530), &config).unwrap().plugins, 2);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
        let raised = raise_open_files();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!((current, raised), (maximum, maximum));
    }
}
