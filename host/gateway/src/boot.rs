//! Boot: data, engine, policy runtime, service and front, put together once; and the drain at the end.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::{Clock, DeviceStore};
use portcullis_engine::{Engine, Simulated};
use portcullis_http::{Front, HttpConfig};
use portcullis_net::{GuardConfig, Jwks, JwksConfig, Outbound, OutboundConfig};
use portcullis_policy::{CodeCache, Compiler, Runtime, RuntimeConfig};
use portcullis_service::{DeliveryConfig, NewKey, Service, ServiceConfig, SystemClock};
use portcullis_store::{Store, StoreOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::cli::{EngineKind, OperatorKey, Serve};
use crate::config::{self, Config, Jwt};
use crate::{Failure, catalogue, damage, master_key, terminal, whatsapp};

/// The name of the file that holds the operator's key, in the data directory.
const OPERATOR_KEY: &str = "operator-key";

/// The name of the directory that holds compiled plugins, in the data directory. What is in it can be deleted at any time.
const CODE_CACHE: &str = "compiled-plugins";

/// Runs the gateway until a signal ends it.
pub(crate) async fn serve(arguments: Serve) -> Result<(), Failure> {
    start_log();
    let mut config = Config::load(&arguments)?;
    // The address comes first: a gateway that cannot be reached must not leave data behind.
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    if config.public_url.is_empty() {
        config.public_url = format!("http://{}", listener.local_addr()?);
    }
    let gateway = Gateway::open(&config, Arc::new(SystemClock::default())).await?;
    gateway.recover().await;
    if let Some(new) = gateway.service.new_operator_key() {
        gateway.keep_operator_key(&config.data_dir, &new).await?;
    }
    if !config.listen.ip().is_loopback() {
        tracing::warn!(listen = %config.listen, "listening beyond loopback; let a reverse proxy end TLS in front of it");
    }
    tracing::info!(engine = gateway.service.engine_name(), "the WhatsApp engine of this gateway");
    if gateway.service.is_simulated() {
        tracing::warn!("the engine is simulated: nothing reaches WhatsApp, and its QR codes link nothing");
    }
    let (end, ended) = watch::channel(false);
    let stopped = stopped()?;
    tokio::spawn(async move {
        stopped.await;
        let _ = end.send(true);
    });
    terminal::say(&format!("listening on http://{}", listener.local_addr()?));
    gateway.run(listener, ended).await
}

/// Makes a new operator key for a gateway that does not run.
pub(crate) async fn replace_operator_key(arguments: OperatorKey) -> Result<(), Failure> {
    start_log_quietly();
    if !arguments.data_dir.join("portcullis.redb").is_file() {
        return Err(format!("there is no data in {}", arguments.data_dir.display()).into());
    }
    let config = Config::of(&arguments.data_dir, arguments.config)?;
    let gateway = Gateway::open(&config, Arc::new(SystemClock::default())).await?;
    gateway.keep_operator_key(&config.data_dir, &gateway.service.another_operator_key()).await
}

/// Everything of one gateway.
pub(crate) struct Gateway {
    pub(crate) service: Arc<Service>,
    front: Arc<Front>,
}

impl Gateway {
    /// Opens the data and puts everything together. Nothing is connected yet.
    pub(crate) async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir)?;
        let keys = master_key::keys(&config.master_key).await?;
        let _starting = damage::Starting::begin();
        let store = {
            let (dir, options) = (config.data_dir.clone(), StoreOptions::default());
            let open = move || damage::looking(&dir, || Store::open_under(&dir, options, &keys));
            tokio::task::spawn_blocking(open).await??
        };
        let cache = (config.plugins.code_cache_mb > 0).then(|| CodeCache {
            directory: config.data_dir.join(CODE_CACHE),
            key: store.derive_key("compiled plugins"),
            max_bytes: config.plugins.code_cache_mb << 20,
        });
        let defaults = RuntimeConfig::default();
        let largest = config.limits.component_bytes.max(defaults.large.component_bytes);
        let runtime = Runtime::new(RuntimeConfig {
            compiler: Compiler::Child { executable: std::env::current_exe()? },
            cache,
            loaded_plugins: config.plugins.loaded,
            gate_wall: Duration::from_millis(config.plugins.gate_wall_ms),
            chain_wall: Duration::from_millis(config.plugins.chain_wall_ms),
            memory_bytes: config.plugins.memory_bytes,
            component_bytes: config.limits.component_bytes,
            calls_per_org: config.plugins.calls_per_org,
            calls_in_all: config.plugins.calls_in_all,
            ..defaults
        })?;
        let devices: Arc<dyn DeviceStore> = Arc::new(store.clone());
        let outbound = way_out(&config.outbound)?;
        let engine: Arc<dyn Engine> = match config.engine {
            EngineKind::Simulated => Arc::new(Simulated::new(devices)),
            EngineKind::WhatsApp => whatsapp::engine(&config.whatsapp, devices, &outbound)?,
        };
        let public_url = (!config.public_url.is_empty()).then(|| config.public_url.clone());
        let bounds = ServiceConfig {
            operations_in_all: config.limits.operations,
            send_patience: Duration::from_millis(config.limits.send_patience_ms),
            decisions_kept: (config.retention.decisions_days > 0).then(|| days(config.retention.decisions_days)),
            next_master_key: master_key::next(&config.master_key),
            require_signature: config.plugins.require_signature,
            events_kept: days(config.retention.events_days),
            deliveries: Some(DeliveryConfig {
                outbound: outbound.clone(),
                server_url: public_url.clone(),
                retry_scale: config.deliveries.retry_scale,
                timeout: Duration::from_millis(config.deliveries.timeout_ms),
            }),
        };
        let service = Service::open(store, runtime, engine, clock, &bounds)?;
        let http = HttpConfig {
            gateway_id: config.gateway_id.clone(),
            public_url,
            cors_origins: config.cors_origins.clone(),
            json_bytes: config.limits.json_bytes,
            component_bytes: largest,
            connections: config.limits.connections,
            backup_timeout: Duration::from_secs(config.limits.backup_minutes.saturating_mul(60)),
            unread_timeout: Duration::from_millis(config.limits.unread_ms),
            ..HttpConfig::default()
        };
        let users = match &config.jwt {
            Jwt { jwks_url, .. } if jwks_url.is_empty() => None,
            Jwt { jwks_url, issuer, audience } => {
                let config = JwksConfig { url: jwks_url.clone(), issuer: issuer.clone(), audience: audience.clone() };
                let users = Jwks::new(config, outbound);
                Some(users.map_err(|error| format!("cannot use jwt.jwks_url: {error} (see outbound.allow)"))?)
            }
        };
        let front = Front::new(Arc::clone(&service), http, &catalogue::CATALOGUE, users);
        Ok(Self { service, front })
    }

    /// Makes good what a crash left behind: nobody may ask for anything before what was under way is under way again.
    pub(crate) async fn recover(&self) {
        self.service.recover().await;
    }

    /// Leaves the operator's key in a file that only its owner reads, lets it open the gateway, and prints it once.
    async fn keep_operator_key(&self, data_dir: &Path, new: &NewKey) -> Result<(), Failure> {
        let path = data_dir.join(OPERATOR_KEY);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", new.text)?;
        file.sync_all()?;
        self.service.keep_operator_key(new).await?;
        terminal::warn(&format!("operator key (shown once, kept in {}): {}", path.display(), new.text));
        Ok(())
    }

    /// Drives the service and serves until `ended` says so, then drains.
    pub(crate) async fn run(self, listener: TcpListener, ended: watch::Receiver<bool>) -> Result<(), Failure> {
        let until = |mut ended: watch::Receiver<bool>| async move {
            // A sender that is gone can never say it, and nothing would end the gateway then; it counts as said.
            let _ = ended.wait_for(|ended| *ended).await;
        };
        // The service is driven until the last request has its answer.
        let (idle, idled) = watch::channel(false);
        let driver = tokio::spawn(Arc::clone(&self.service).run(until(idled)));
        let memory = tokio::spawn(crate::memory::give_back());
        let served = portcullis_http::serve(self.front, listener, until(ended)).await;
        let _ = idle.send(true);
        driver.await?;
        self.service.close_engine().await;
        memory.abort();
        tracing::info!("drained");
        served.map_err(Failure::from)
    }
}

/// The one way out, with what the operator allows.
fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 24 * 60 * 60)
}

fn way_out(config: &config::Outbound) -> Result<Outbound, Failure> {
    let config::Outbound { allow, ports, dns, roots } = config;
    let extra_roots = match roots {
        none if none.as_os_str().is_empty() => None,
        path => Some(
            std::fs::read(path).map_err(|error| format!("cannot read outbound.roots, {}: {error}", path.display()))?,
        ),
    };
    let guard = GuardConfig { allow: allow.clone(), ports: ports.clone() };
    Ok(Outbound::new(OutboundConfig { guard: Some(guard), dns: dns.clone(), extra_roots })?)
}

/// Completes when the process is asked to end. Signals are taken from this call on: one that comes early must not end it the hard way.
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The log goes to stderr; `RUST_LOG` says how much of it.
pub(crate) fn start_log() {
    log("info");
}

/// As [`start_log`], but only with what needs looking at unless more is asked for.
pub(crate) fn start_log_quietly() {
    log("warn");
}

fn log(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Somebody else's log, in a test, is as good as this one.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
