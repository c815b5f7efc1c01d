//! The main job, played step by step over HTTP against a gateway of its own.
//!
//! The gateway is the real one, with the simulated engine, a temporary data directory, and a clock that the demo moves:
//! it runs with the time of day, and jumps when the grace period has to pass. `serve` has no such control.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_core::Clock;
use portcullis_net::Method;
use portcullis_service::{SteppedClock, SystemClock};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Failure;
use crate::administration::{Api, Refused};
use crate::boot::{self, Gateway};
use crate::cli::{Demo, EngineKind, Serve};
use crate::config::Config;
use crate::terminal::{draw_qr, say};

/// The grace period that the demo's policy gives.
const GRACE: Duration = Duration::from_secs(72 * 60 * 60);
/// How often the demo's clock follows the time of day.
const FOLLOW: Duration = Duration::from_millis(20);
/// How often the demo looks whether something has become so.
const LOOK: Duration = Duration::from_millis(50);
/// How often it looks before it gives up.
const LOOKS: usize = 600;

/// Plays the main job; then stays up unless told otherwise or nobody is there to see it.
pub(crate) async fn play(arguments: Demo) -> Result<(), Failure> {
    boot::start_log_quietly();
    let directory = tempfile::Builder::new().prefix("portcullis-demo-").tempdir()?;
    let serve = Serve {
        data_dir: Some(directory.path().to_owned()),
        listen: Some(([127, 0, 0, 1], 0).into()),
        engine: Some(EngineKind::Simulated),
        config: None,
    };
    let clock = Arc::new(SteppedClock::new(SystemClock::default().now()));
    let gateway = Gateway::open(&Config::load(&serve)?, Arc::clone(&clock) as Arc<dyn Clock>).await?;
    let operator = gateway.service.new_operator_key().ok_or("the demo's directory is not new")?;
    gateway.service.keep_operator_key(&operator).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (end, ended) = watch::channel(false);
    let following = tokio::spawn(follow(Arc::clone(&clock)));
    let running = tokio::spawn(gateway.run(listener, ended));

    say("Portcullis demo: a session's life under a WebAssembly policy.");
    say(&format!("A gateway with the simulated WhatsApp engine answers at {url}; nothing here reaches WhatsApp."));
    let played = Play { clock, url: url.clone(), operator: operator.text, steps: 0 }.all().await;
    if let Ok(key) = &played
        && !arguments.exit
        && std::io::stdout().is_terminal()
    {
        say(&format!(
            "\nThe gateway stays up at {url} until you press Ctrl-C. The organisation's key is {key}\nTry:\n  curl -H 'X-Api-Key: {key}' {url}/api/v1/audit"
        ));
        tokio::signal::ctrl_c().await?;
    }
    let _ = end.send(true);
    running.await??;
    following.abort();
    played.map(drop)
}

/// Lets the demo's clock run with the time of day.
async fn follow(clock: Arc<SteppedClock>) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(FOLLOW).await;
        let now = Instant::now();
        // Whole milliseconds only, so that none is lost to rounding.
        let passed = Duration::from_millis(u64::try_from((now - last).as_millis()).unwrap_or(u64::MAX));
        last += passed;
        clock.advance(passed);
    }
}

struct Play {
    clock: Arc<SteppedClock>,
    url: String,
    operator: String,
    steps: u32,
}

impl Play {
    /// Plays every step and answers the organisation's key.
    async fn all(mut self) -> Result<String, Failure> {
        let operator = Api::at(&self.url, &self.operator)?;
        self.step("The operator makes an organisation and a key for it.");
        let org = operator.call(Method::POST, "/api/v1/orgs", None, &json!({ "name": "Acme" })).await?;
        let org = org["id"].as_str().ok_or("no organisation id")?.to_owned();
        let capabilities = json!({ "name": "demo", "capabilities": ["manage", "send", "plugins", "audit"] });
        let key = operator.call(Method::POST, &format!("/api/v1/orgs/{org}/keys"), None, &capabilities).await?;
        let key = key["key"].as_str().ok_or("no key")?.to_owned();
        self.told(&format!("{org} has a key that may manage, send, plugins, audit"));
        let acme = Api::at(&self.url, &key)?;

        self.step("The organisation uploads the policy plugin grace-delete and binds it with 72 hours of grace.");
        let plugin = acme.call(Method::POST, "/api/v1/plugins", None, &json!({ "catalog": "grace-delete" })).await?;
        self.told(&format!("{} version {}, {}", text(&plugin, "id")?, plugin["version"], text(&plugin, "digest")?));
        let binding = json!({
            "plugin": plugin["id"], "mode": "enforce", "settings": { "grace": "PT72H" }, "onFailure": "deny",
        });
        let binding = acme.call(Method::POST, "/api/v1/bindings", None, &binding).await?;
        self.told(&format!("{} enforces it", text(&binding, "id")?));

        self.step("A session is created and shows a QR code (simulated; no phone can use it).");
        let session =
            acme.call(Method::POST, "/api/v1/sessions", None, &json!({ "label": "Sales line", "start": true })).await?;
        let path = format!("/api/v1/sessions/{}", text(&session, "id")?);
        let code = get(&acme, &format!("{path}/qr")).await?;
        say(&draw_qr(text(&code, "code")?)?);

        self.step("The simulated phone scans it, and the session connects.");
        acme.send(Method::POST, &format!("{path}/simulator:scan"), None, Vec::new()).await?;
        let working = until(&acme, &path, |session| session["status"] == "working").await?;
        self.told(&format!("working as {}", text(&working, "waJid")?));

        self.step("The session is deleted; the plugin defers it.");
        let pending = acme.send(Method::DELETE, &path, None, Vec::new()).await?;
        let due = pending["deleteAt"].as_u64().ok_or("the delete was not deferred")?;
        let hours = Duration::from_millis(due.saturating_sub(self.clock.now().as_millis())).as_secs().div_ceil(3600);
        let session = get(&acme, &path).await?;
        self.told(&format!("202, due in {hours} hours: {}", text(&session, "deleteReason")?));

        self.step("Somebody changes their mind and restores it.");
        acme.send(Method::POST, &format!("{path}:restore"), None, Vec::new()).await?;
        let back = until(&acme, &path, |session| session["status"] == "working").await?;
        self.told(&format!("200, {} again", text(&back, "status")?));

        self.step("A legal hold is put on it; now the plugin vetoes the delete.");
        acme.call(Method::PUT, &format!("{path}/labels"), None, &json!({ "legal-hold": "case 4711" })).await?;
        let vetoed = match acme.send(Method::DELETE, &path, None, Vec::new()).await {
            Ok(_) => return Err("the delete went through in spite of the legal hold".into()),
            Err(error) => error.downcast::<Refused>()?,
        };
        let details = &vetoed.body["error"]["details"];
        self.told(&format!(
            "{} {}: {}",
            vetoed.status,
            text(details, "code")?,
            text(&vetoed.body["error"], "message")?
        ));

        self.step("The recorded decision explains why.");
        let decision = get(&acme, &format!("/api/v1/decisions/{}", text(details, "decisionId")?)).await?;
        for sentence in decision["why"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.told(sentence);
        }

        self.step("The hold is lifted, the session deleted again, and 72 hours pass on the demo's clock.");
        acme.call(Method::PUT, &format!("{path}/labels"), None, &json!({})).await?;
        let pending = acme.send(Method::DELETE, &path, None, Vec::new()).await?;
        if pending["deleteAt"].is_null() {
            return Err("the delete was not deferred".into());
        }
        self.clock.advance(GRACE);
        gone(&acme, &path).await?;
        let signed = get(&acme, &format!("/api/v1/receipts/{}", text(&session, "id")?)).await?;
        let digest = text(&signed["receipt"], "slotDigest")?;
        self.told(&format!(
            "404: gone by the timer; a signed receipt names its key slot, which was overwritten: sha256:{digest}"
        ));
        say(&format!("\nAll {} steps were played.", self.steps));
        Ok(key)
    }

    fn step(&mut self, what: &str) {
        self.steps += 1;
        say(&format!("\n{}. {what}", self.steps));
    }

    fn told(&self, what: &str) {
        say(&format!("   {what}"));
    }
}

async fn get(api: &Api, path: &str) -> Result<Value, Failure> {
    api.send(Method::GET, path, None, Vec::new()).await
}

/// Looks at a session until it is as wanted.
async fn until(api: &Api, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Failure> {
    for _ in 0..LOOKS {
        let session = get(api, path).await?;
        if wanted(&session) {
            return Ok(session);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err("the session did not become what it should".into())
}

/// Looks for a session until it is gone.
async fn gone(api: &Api, path: &str) -> Result<(), Failure> {
    for _ in 0..LOOKS {
        match get(api, path).await {
            Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 404) => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => tokio::time::sleep(LOOK).await,
        }
    }
    Err("the session is still there".into())
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, Failure> {
    Ok(value[field].as_str().ok_or_else(|| format!("the reply has no {field}"))?)
}
