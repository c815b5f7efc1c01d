//! The part of the lock file that a package depends on.
//!
//! Only what is reachable from the package counts: other members of the workspace may change their dependencies without touching it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::ManifestError;

/// A lock file.
#[derive(Debug, Deserialize)]
pub(crate) struct Lock {
    #[serde(rename = "package")]
    packages: Vec<Locked>,
}

/// A package in the lock file.
#[derive(Debug, Deserialize)]
pub(crate) struct Locked {
    /// Its name.
    pub(crate) name: String,
    version: String,
    checksum: Option<String>,
    /// `name`, or `name version` and `name version (source)` where the name alone is ambiguous.
    #[serde(default)]
    dependencies: Vec<String>,
}

impl Locked {
    /// What identifies the package's bytes. Members of the workspace have no checksum.
    pub(crate) fn identity(&self) -> String {
        format!("{} {} {}", self.name, self.version, self.checksum.as_deref().unwrap_or("-"))
    }
}

impl Lock {
    /// All packages that are reachable from a package, itself included, in order.
    pub(crate) fn closure(&self, package: &str) -> Result<Vec<&Locked>, ManifestError> {
        let mut by_name = BTreeMap::<&str, Vec<usize>>::new();
        for (index, locked) in self.packages.iter().enumerate() {
            by_name.entry(&locked.name).or_default().push(index);
        }
        let find = |wanted: &str| {
            let mut words = wanted.split(' ');
            let name = words.next().unwrap_or_default();
            let version = words.next();
            by_name
                .get(name)
                .into_iter()
                .flatten()
                .copied()
                .find(|index| version.is_none_or(|version| self.packages[*index].version == version))
                .ok_or_else(|| ManifestError::NotLocked { package: wanted.to_owned() })
        };

        let mut reached = BTreeSet::new();
        let mut next = vec![find(package)?];
        while let Some(index) = next.pop() {
            if reached.insert(index) {
                for dependency in &self.packages[index].dependencies {
                    next.push(find(dependency)?);
                }
            }
        }
        let mut closure = reached.into_iter().map(|index| &self.packages[index]).collect::<Vec<_>>();
        closure.sort_by_key(|locked| locked.identity());
        Ok(closure)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const LOCK: &str = r#"
        version = 4

        [[package]]
        name = "plugin"
        version = "0.1.0"
        dependencies = ["serde", "syn 2.0.0"]

        [[package]]
        name = "gateway"
        version = "0.1.0"
        dependencies = ["syn 3.0.0", "plugin"]

        [[package]]
        name = "serde"
        version = "1.0.0"
        checksum = "aa"
        dependencies = ["syn 2.0.0"]

        [[package]]
        name = "syn"
        version = "2.0.0"
        checksum = "bb"

        [[package]]
        name = "syn"
        version = "3.0.0"
        checksum = "cc"
    "#;

    fn identities(package: &str) -> Vec<String> {
        let lock = toml::from_str::<Lock>(LOCK).expect("a lock file");
        lock.closure(package).expect("a locked package").into_iter().map(Locked::identity).collect()
    }

    #[test]
    fn the_closure_is_what_is_reachable() {
        assert_eq!(identities("plugin"), ["plugin 0.1.0 -", "serde 1.0.0 aa", "syn 2.0.0 bb"]);
        assert_eq!(identities("gateway").len(), 5);
    }

    #[test]
    fn a_package_that_is_not_locked_is_named() {
        let lock = toml::from_str::<Lock>(LOCK).expect("a lock file");
        let error = lock.closure("tokio").expect_err("no such package");
        assert_eq!(error.to_string(), "the lock file has no package tokio");
    }
}
