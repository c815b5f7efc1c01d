//! The configuration: an annotated default that is also the documentation, a file over it, arguments over that.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portcullis_net::IpNet;
use serde::Deserialize;
use toml::Table;
use toml::Value;

use crate::cli::{EngineKind, Serve};
use crate::master_key::Source;

const DEFAULT: &str = include_str!("config.default.toml");

/// The whole configuration, checked before anything is started.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) engine: EngineKind,
    pub(crate) gateway_id: String,
    pub(crate) public_url: String,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) whatsapp: WhatsAppSection,
    pub(crate) limits: Limits,
    pub(crate) outbound: Outbound,
    pub(crate) deliveries: Deliveries,
    pub(crate) jwt: Jwt,
    pub(crate) plugins: Plugins,
    pub(crate) retention: Retention,
    pub(crate) master_key: MasterKeySection,
}

/// How sessions are connected to WhatsApp.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(feature = "whatsapp"), expect(dead_code, reason = "this build has no engine that reads it"))]
pub(crate) struct WhatsAppSection {
    pub(crate) server: String,
    pub(crate) version: String,
    pub(crate) device_name: String,
    pub(crate) connecting_at_once: usize,
    pub(crate) connect_seconds: u64,
    pub(crate) confirm_seconds: u64,
}

/// Where the master key is, and where the next one will be. In each at most one way is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MasterKeySection {
    file: PathBuf,
    env: String,
    command: Vec<String>,
    next: NextMasterKey,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NextMasterKey {
    file: PathBuf,
    env: String,
    command: Vec<String>,
}

impl MasterKeySection {
    /// The source of the key, and of the next one.
    fn sources(&self) -> [Result<Option<Source>, ConfigError>; 2] {
        let NextMasterKey { file, env, command } = &self.next;
        [source("master_key", &self.file, &self.env, &self.command), source("master_key.next", file, env, command)]
    }

    /// Where the key is; the store has its own if there is none.
    pub(crate) fn source(&self) -> Option<Source> {
        self.sources()[0].as_ref().ok().cloned().flatten()
    }

    /// Where the next one is.
    pub(crate) fn next(&self) -> Option<Source> {
        self.sources()[1].as_ref().ok().cloned().flatten()
    }
}

fn source(setting: &'static str, file: &Path, env: &str, command: &[String]) -> Result<Option<Source>, ConfigError> {
    match (file.as_os_str().is_empty(), env, command) {
        (true, "", []) => Ok(None),
        (false, "", []) => Ok(Some(Source::File(file.to_owned()))),
        (true, env, []) => Ok(Some(Source::Env(env.to_owned()))),
        (true, "", command) => Ok(Some(Source::Command(command.to_owned()))),
        _ => Err(ConfigError::Unfit { setting, must: "one of file, env and command, or none of them" }),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retention {
    pub(crate) decisions_days: u32,
    pub(crate) events_days: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deliveries {
    pub(crate) retry_scale: f64,
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) operations: u32,
    pub(crate) connections: usize,
    pub(crate) json_bytes: usize,
    pub(crate) component_bytes: usize,
    pub(crate) send_patience_ms: u64,
    pub(crate) unread_ms: u64,
    pub(crate) backup_minutes: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outbound {
    pub(crate) allow: Vec<IpNet>,
    pub(crate) ports: Vec<u16>,
    pub(crate) dns: Vec<SocketAddr>,
    pub(crate) roots: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwt {
    pub(crate) jwks_url: String,
    pub(crate) issuer: String,
    pub(crate) audience: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plugins {
    pub(crate) require_signature: bool,
    pub(crate) gate_wall_ms: u64,
    pub(crate) chain_wall_ms: u64,
    pub(crate) memory_bytes: usize,
    pub(crate) calls_per_org: usize,
    pub(crate) calls_in_all: usize,
    pub(crate) loaded: usize,
    pub(crate) code_cache_mb: u64,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {} is no TOML document", path.display())]
    Syntax { path: PathBuf, source: toml::de::Error },
    #[error("the configuration is not acceptable")]
    Content(#[source] toml::de::Error),
    #[error("the setting {setting} must be at least 1")]
    Zero { setting: &'static str },
    #[error("the setting {setting} must be {must}")]
    Unfit { setting: &'static str, must: &'static str },
}

impl Config {
    /// The configuration of the gateway whose data lies in a directory.
    pub(crate) fn of(data_dir: &Path, config: Option<PathBuf>) -> Result<Self, ConfigError> {
        Self::load(&Serve { data_dir: Some(data_dir.to_owned()), listen: None, engine: None, config })
    }

    /// Reads the file that the arguments name, and lays the arguments over it.
    pub(crate) fn load(arguments: &Serve) -> Result<Self, ConfigError> {
        let mut table: Table = DEFAULT.parse().map_err(ConfigError::Content)?;
        if let Some(path) = &arguments.config {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            let file: Table = text.parse().map_err(|source| ConfigError::Syntax { path: path.clone(), source })?;
            lay_over(&mut table, file);
        }
        let mut config: Config = Value::Table(table).try_into().map_err(ConfigError::Content)?;
        config.data_dir = arguments.data_dir.clone().unwrap_or(config.data_dir);
        config.listen = arguments.listen.unwrap_or(config.listen);
        config.engine = arguments.engine.unwrap_or(config.engine);
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let unfit = |setting, must| Err(ConfigError::Unfit { setting, must });
        let is_url = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        if !self.public_url.is_empty() && (!is_url(&self.public_url) || self.public_url.ends_with('/')) {
            return unfit("public_url", "a URL that begins with https:// or http:// and does not end with a slash");
        }
        if self.cors_origins.iter().any(|origin| !is_url(origin) || origin.matches('/').count() != 2) {
            return unfit("cors_origins", "origins such as https://app.example.com, without a path");
        }
        if !(0.000_1..=1_000.0).contains(&self.deliveries.retry_scale) {
            return unfit("deliveries.retry_scale", "a number from 0.0001 to 1000");
        }
        if self.outbound.ports.contains(&0) {
            return unfit("outbound.ports", "ports from 1 to 65535");
        }
        // The answer has to come within the bound on answers, whatever a send waits for.
        if self.limits.send_patience_ms > 50_000 {
            return unfit("limits.send_patience_ms", "at most 50000");
        }
        // A start has ten minutes in all, waiting for its turn included; the answer to a send has its bound, as above.
        if !(1..=300).contains(&self.whatsapp.connect_seconds) {
            return unfit("whatsapp.connect_seconds", "from 1 to 300");
        }
        if !(1..=50).contains(&self.whatsapp.confirm_seconds) {
            return unfit("whatsapp.confirm_seconds", "from 1 to 50");
        }
        let Jwt { jwks_url, issuer, audience } = &self.jwt;
        if !jwks_url.is_empty() && (!is_url(jwks_url) || issuer.is_empty() || audience.is_empty()) {
            return unfit(
                "jwt",
                "a jwks_url that begins with https:// or http://, with an issuer and an audience, or else empty",
            );
        }
        let [source, next] = self.master_key.sources();
        if source?.is_none() && next?.is_some() {
            return unfit("master_key.next", "empty where the gateway keeps the master key itself");
        }
        let numbers = [
            ("limits.backup_minutes", self.limits.backup_minutes),
            ("limits.operations", u64::from(self.limits.operations)),
            ("limits.connections", self.limits.connections as u64),
            ("limits.json_bytes", self.limits.json_bytes as u64),
            ("limits.component_bytes", self.limits.component_bytes as u64),
            ("deliveries.timeout_ms", self.deliveries.timeout_ms),
            ("limits.unread_ms", self.limits.unread_ms),
            ("plugins.gate_wall_ms", self.plugins.gate_wall_ms),
            ("plugins.chain_wall_ms", self.plugins.chain_wall_ms),
            ("plugins.memory_bytes", self.plugins.memory_bytes as u64),
            ("plugins.calls_per_org", self.plugins.calls_per_org as u64),
            ("plugins.calls_in_all", self.plugins.calls_in_all as u64),
        ];
        match numbers.into_iter().find(|(_, number)| *number == 0) {
            Some((setting, _)) => Err(ConfigError::Zero { setting }),
            None => Ok(()),
        }
    }
}

/// What the file sets replaces what stands there; tables are laid over each other key by key.
fn lay_over(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => drop(below.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn load(file: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        Config::load(&Serve { data_dir: None, listen: None, engine: None, config: Some(path) })
    }

    #[test]
    fn the_defaults_are_complete_and_on_loopback() {
        let config = load("").unwrap();
        assert!(config.listen.ip().is_loopback());
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let config = load("gateway_id = \"gw-1\"\n[limits]\noperations = 7\n").unwrap();
        assert_eq!(
            (config.gateway_id.as_str(), config.limits.operations, config.limits.connections),
            ("gw-1", 7, 4096)
        );
    }

    #[test]
    fn unknown_settings_and_zeros_are_refused() {
        assert!(matches!(load("lisen = \"127.0.0.1:1\""), Err(ConfigError::Content(_))));
        assert!(matches!(load("[limits]\noperations = 0"), Err(ConfigError::Zero { setting: "limits.operations" })));
        assert!(matches!(load("= 3"), Err(ConfigError::Syntax { .. })));
    }

    #[test]
    fn whatsapp_is_waited_for_and_not_for_ever() {
        let setting = |name: &str, value: u64| match load(&format!("[whatsapp]\n{name} = {value}")) {
            Ok(_) => None,
            Err(ConfigError::Unfit { setting, .. }) => Some(setting),
            Err(error) => panic!("{error}"),
        };
        for (name, unfit, most) in
            [("connect_seconds", "whatsapp.connect_seconds", 300), ("confirm_seconds", "whatsapp.confirm_seconds", 50)]
        {
            assert_eq!((setting(name, 1), setting(name, most)), (None, None));
            for value in [0, most + 1, i64::MAX.cast_unsigned()] {
                assert_eq!(setting(name, value), Some(unfit), "{value}");
            }
        }
    }

    #[test]
    fn the_master_key_comes_from_one_place() {
        let source = |file: &str| load(file).map(|config| (config.master_key.source(), config.master_key.next()));
        assert_eq!(source("").unwrap(), (None, None));
        let file = Source::File("/run/secrets/key".into());
        assert_eq!(source("[master_key]\nfile = \"/run/secrets/key\"").unwrap(), (Some(file), None));
        let both = "[master_key]\nenv = \"KEY\"\n[master_key.next]\ncommand = [\"vault\", \"read\"]";
        let command = Source::Command(vec!["vault".into(), "read".into()]);
        assert_eq!(source(both).unwrap(), (Some(Source::Env("KEY".into())), Some(command)));
        for bad in ["[master_key]\nenv = \"A\"\nfile = \"b\"", "[master_key.next]\nenv = \"A\""] {
            assert!(matches!(load(bad), Err(ConfigError::Unfit { .. })), "{bad}");
        }
    }

    #[test]
    fn what_goes_out_is_widened_by_whole_networks_and_plain_ports() {
        let config = load("[outbound]\nallow = [\"10.0.0.0/8\", \"fd12::/16\"]\nports = [9443]\n").unwrap();
        assert_eq!((config.outbound.allow.len(), config.outbound.ports), (2, vec![9443]));
        for bad in ["allow = [\"10.0.0.1\"]", "allow = [\"intranet\"]", "ports = [65536]", "dns = [\"127.0.0.1\"]"] {
            assert!(matches!(load(&format!("[outbound]\n{bad}")), Err(ConfigError::Content(_))), "{bad}");
        }
        assert!(matches!(load("[outbound]\nports = [0]"), Err(ConfigError::Unfit { setting: "outbound.ports", .. })));
    }
}
