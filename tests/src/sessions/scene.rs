//! Where a run takes place: a WhatsApp server with phones, simulated, a gateway that has it for its own, and an organisation in that.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_whatsapp_server::{Controls, Server, ServerConfig, State};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::calls::{Caller, Gateway};
use crate::process::Process;
use crate::program::RunError;

/// How often is looked at what changes.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// How often the server's state is taken, which is the longer the more was sent.
const TAKEN: Duration = Duration::from_millis(50);
/// How long a gateway may take until it listens. It is long because machines are slow.
const BOOT: Duration = Duration::from_secs(120);

/// What the server has seen, taken for everybody at once, and a little late.
#[derive(Clone)]
pub(super) struct Watched(watch::Receiver<Arc<State>>);

impl Watched {
    fn begin(controls: Controls) -> Self {
        let (tell, told) = watch::channel(Arc::new(controls.state()));
        tokio::spawn(async move {
            while !tell.is_closed() {
                tokio::time::sleep(TAKEN).await;
                tell.send_replace(Arc::new(controls.state()));
            }
        });
        Self(told)
    }

    pub(super) fn now(&self) -> Arc<State> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits until the state is as wanted; false if that takes too long.
    pub(super) async fn until(&self, within: Duration, wanted: impl Fn(&State) -> bool) -> bool {
        let end = Instant::now() + within;
        while !wanted(&self.now()) {
            if Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(TAKEN).await;
        }
        true
    }
}

/// Where a run takes place.
pub(super) struct Scene {
    pub(super) server: Server,
    pub(super) process: Process,
    pub(super) gateway: Gateway,
    pub(super) org: String,
    pub(super) key: String,
    pub(super) seen: Watched,
    /// How long its last start took.
    pub(super) start: Duration,
    address: watch::Sender<SocketAddr>,
}

impl Scene {
    pub(super) async fn new(program: &Path) -> Result<Self, RunError> {
        let server = Server::start(ServerConfig::default()).await;
        let server = server.map_err(|error| RunError::Prepare(error.to_string()))?;
        let config = format!("[whatsapp]\nserver = \"{}\"\nversion = \"2.3000.1026131876\"\n", server.url());
        let mut process = Process::new(program, &config)?.with_engine("whatsapp");
        let began = Instant::now();
        let (address, told) = watch::channel(boot(&mut process).await?);
        let start = began.elapsed();
        let gateway = Gateway::new(told);
        let (org, key) = organisation(&gateway, &process.operator_key()?).await?;
        let seen = Watched::begin(Controls::clone(&server));
        Ok(Self { server, process, gateway, org, key, seen, start, address })
    }

    /// Starts the gateway again, wherever it listens then.
    pub(super) async fn come_up(&mut self) -> Result<(), RunError> {
        let began = Instant::now();
        self.address.send_replace(boot(&mut self.process).await?);
        self.start = began.elapsed();
        Ok(())
    }

    /// Somebody who may do everything in the organisation.
    pub(super) fn caller(&self) -> Caller {
        Caller::new(self.gateway.clone(), &self.key)
    }

    /// How many devices have logged in, of all that were ever linked.
    pub(super) fn pairings(&self) -> usize {
        let state = self.server.state();
        let devices = state.accounts.iter().flat_map(|account| &account.devices);
        devices.filter(|device| super::line::logins(device) > 0).count()
    }
}

/// Starts the gateway and waits until it listens, or has had the time for it.
async fn boot(process: &mut Process) -> Result<SocketAddr, RunError> {
    let listens = tokio::time::timeout(BOOT, process.start()).await;
    Ok(listens.map_err(|_late| RunError::Prepare("the gateway does not come to listen".to_owned()))??)
}

/// An organisation that is not the bottleneck, and its key.
async fn organisation(gateway: &Gateway, operator: &str) -> Result<(String, String), RunError> {
    let mut caller = Caller::new(gateway.clone(), operator);
    let mut make = async |path: &str, body: Value, field: &str| {
        let made = caller.call("POST", path, &body).await;
        let made = made.ok_or_else(|| RunError::Prepare(format!("POST {path} was not answered")))?;
        let text = made.body[field].as_str().map(str::to_owned);
        text.ok_or_else(|| RunError::Prepare(format!("POST {path}: {} {}", made.status, made.body["error"])))
    };
    let org = json!({
        "name": "run",
        "plan": { "name": "business", "active": true },
        "quotas": { "sessions": 10_000, "concurrency": 1_000 },
    });
    let org = make("/api/v1/orgs", org, "id").await?;
    let key = json!({ "name": "run", "capabilities": ["read", "send", "manage", "events"] });
    let key = make(&format!("/api/v1/orgs/{org}/keys"), key, "key").await?;
    Ok((org, key))
}
