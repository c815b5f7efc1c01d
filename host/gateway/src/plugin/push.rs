//! `portcullis plugin push` and what else a running gateway is asked about plugins.
//!
//! A push uploads a version. With `--bind` it is also put to work: a plugin that has one binding gets the version there, and one that has none gets a binding that only monitors.

use portcullis_net::Method;
use serde_json::{Map, Value, json};

use super::args::{Binding, Publisher, Push};
use super::sign::{self, Signature};
use crate::administration::{Api, Refused, text};
use crate::cli::Remote;
use crate::{Failure, terminal};

/// The header of an upload that says whose it is.
const SIGNATURE: &str = "portcullis-signature";

/// Why a plugin was not pushed, or not bound.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    /// The gateway knows nobody who has the key.
    #[error(
        "the gateway knows no publisher with the public key {0}; `portcullis publisher create NAME --public-key {0}` lets its signatures count"
    )]
    NoPublisher(String),
    /// A publisher was named and nothing is signed.
    #[error("--publisher says who signs, but nothing is signed; add --sign KEYFILE")]
    NothingSigned,
    /// The plugin has several bindings.
    #[error("the plugin has {count} bindings; say with --binding which one gets the version: {ids}")]
    SeveralBindings {
        /// How many.
        count: usize,
        /// Which.
        ids: String,
    },
    /// The settings are not JSON.
    #[error("the settings in {file} are not JSON")]
    Settings {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The gateway said no.
    #[error("{0}")]
    Refused(String),
}

/// Uploads a component, and binds it if asked to.
pub(super) async fn push(remote: &Remote, arguments: &Push) -> Result<(), Failure> {
    let gateway = Api::new(remote)?;
    let org = arguments.org.as_deref();
    let component = super::read(&arguments.file)?;
    let signature = match &arguments.sign {
        Some(key) => Some(sign::make_signature(key, &component)?),
        None => sign::find_signature(&arguments.file, &component)?,
    };
    let settings = arguments.binding.settings.as_deref().map(document).transpose()?;
    let header = match signature {
        Some(signature) => Some(header(&gateway, org, arguments.publisher.as_deref(), &signature).await?),
        None if arguments.publisher.is_some() => return Err(PushError::NothingSigned.into()),
        None => None,
    };
    let path = match arguments.class {
        Some(class) => format!("/api/v1/plugins?class={}", class.name()),
        None => "/api/v1/plugins".to_owned(),
    };
    let gateway = match header {
        Some(header) => gateway.with(SIGNATURE, &header),
        None => gateway,
    };
    let plugin = gateway.send(Method::POST, &path, org, component).await.map_err(advise)?;
    terminal::say(&format!(
        "{}  version {}  {}  {}",
        text(&plugin, "id"),
        plugin["version"],
        text(&plugin["describe"], "name"),
        text(&plugin, "digest"),
    ));
    if arguments.bind {
        bind(&gateway, org, &plugin, &arguments.binding, settings).await?;
    }
    Ok(())
}

/// Lists the plugins.
pub(super) async fn list(remote: &Remote, org: Option<&str>) -> Result<(), Failure> {
    let line = |plugin: &Value| {
        format!("{}  version {}  {}", text(plugin, "id"), plugin["version"], text(&plugin["describe"], "name"))
    };
    Api::new(remote)?.list("/api/v1/plugins", org, line).await
}

/// Whose signatures count.
pub(crate) async fn publisher(remote: Remote, command: Publisher) -> Result<(), Failure> {
    let gateway = Api::new(&remote)?;
    match command {
        Publisher::Create { name, public_key, org } => {
            let body = json!({ "name": name, "publicKey": public_key });
            let made = gateway.call(Method::POST, "/api/v1/publishers", org.as_deref(), &body).await.map_err(advise)?;
            terminal::say(text(&made, "id"));
        }
        Publisher::List { org } => {
            let line = |publisher: &Value| {
                format!("{}  {}  {}", text(publisher, "id"), text(publisher, "publicKey"), text(publisher, "name"))
            };
            gateway.list("/api/v1/publishers", org.as_deref(), line).await?;
        }
        Publisher::Delete { id, org } => {
            gateway.send(Method::DELETE, &format!("/api/v1/publishers/{id}"), org.as_deref(), Vec::new()).await?;
        }
    }
    Ok(())
}

/// What says whose the upload is. The gateway tells who has the public key, unless that was said.
async fn header(
    gateway: &Api,
    org: Option<&str>,
    publisher: Option<&str>,
    signature: &Signature,
) -> Result<String, Failure> {
    let by = match publisher {
        Some(id) => id.to_owned(),
        None => {
            let has_key = |publisher: &Value| text(publisher, "publicKey") == signature.public_key;
            let found = gateway.all("/api/v1/publishers", org).await.map_err(advise)?.into_iter().find(has_key);
            let found = found.ok_or_else(|| PushError::NoPublisher(signature.public_key.clone()))?;
            text(&found, "id").to_owned()
        }
    };
    Ok(format!("{by}:{}", signature.signature))
}

/// Gives the plugin's binding the version that was uploaded, or makes one.
async fn bind(
    gateway: &Api,
    org: Option<&str>,
    plugin: &Value,
    wanted: &Binding,
    settings: Option<Value>,
) -> Result<(), Failure> {
    let mut body = Map::new();
    body.insert("version".to_owned(), plugin["version"].clone());
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(field.to_owned(), value);
        }
    };
    set("settings", settings);
    set("mode", wanted.mode.map(|mode| json!(mode.name())));
    set("grants", wanted.grant.as_ref().map(|grants| json!(grants)));
    set("httpHosts", wanted.http_host.as_ref().map(|hosts| json!(hosts)));
    set("onFailure", wanted.on_failure.map(|fold| json!(fold.name())));

    let binding = match at_work(gateway, org, plugin, wanted.binding.as_deref()).await? {
        Some(id) => {
            let path = format!("/api/v1/bindings/{id}");
            gateway.call(Method::PATCH, &path, org, &Value::Object(body)).await.map_err(advise)?
        }
        None => {
            body.insert("plugin".to_owned(), plugin["id"].clone());
            body.entry("mode").or_insert_with(|| json!("monitor"));
            gateway.call(Method::POST, "/api/v1/bindings", org, &Value::Object(body)).await.map_err(advise)?
        }
    };
    terminal::say(&format!("{}  version {}  {}", text(&binding, "id"), binding["version"], text(&binding, "mode")));
    if let Some(grants) = binding["grants"].as_array().filter(|grants| !grants.is_empty()) {
        let grants: Vec<_> = grants.iter().filter_map(Value::as_str).collect();
        terminal::say(&format!("it is granted {}", grants.join(", ")));
    }
    if text(&binding, "mode") == "monitor" {
        terminal::say("its answers are recorded and not applied; --mode enforce lets them count");
    }
    for wanted in not_granted(plugin, &binding) {
        terminal::say(&format!("it wants the grant {wanted} and does not have it; --grant {wanted} gives it"));
    }
    Ok(())
}

/// The binding that gets the version; none if the plugin has no binding.
async fn at_work(
    gateway: &Api,
    org: Option<&str>,
    plugin: &Value,
    named: Option<&str>,
) -> Result<Option<String>, Failure> {
    if let Some(named) = named {
        return Ok(Some(named.to_owned()));
    }
    let bindings = gateway.all("/api/v1/bindings", org).await.map_err(advise)?;
    let mut ids: Vec<_> = bindings
        .iter()
        .filter(|binding| binding["plugin"] == plugin["id"])
        .map(|binding| text(binding, "id").to_owned())
        .collect();
    match ids.len() {
        0 | 1 => Ok(ids.pop()),
        count => Err(PushError::SeveralBindings { count, ids: ids.join(", ") }.into()),
    }
}

/// What the plugin wants and its binding does not grant.
fn not_granted(plugin: &Value, binding: &Value) -> Vec<String> {
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().into_iter().flatten();
        words.filter_map(|word| word.as_str().or_else(|| word["grant"].as_str())).map(str::to_owned).collect()
    };
    let granted = words(&binding["grants"]);
    words(&plugin["describe"]["wants"]).into_iter().filter(|want| !granted.contains(want)).collect()
}

fn document(file: &std::path::Path) -> Result<Value, Failure> {
    let text = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let parsed = serde_json::from_slice(&text);
    parsed.map_err(|source| PushError::Settings { file: file.display().to_string(), source }.into())
}

/// What the gateway said, with its reason and the fields that it named.
fn advise(failure: Failure) -> Failure {
    let Some(refused) = failure.downcast_ref::<Refused>() else { return failure };
    let details = &refused.body["error"]["details"];
    let mut said = refused.to_string();
    if let Some(reason) = details["reason"].as_str() {
        said.push_str(&format!(" ({reason})"));
    }
    for problem in details["problems"].as_array().into_iter().flatten() {
        let field = Some(text(problem, "field")).filter(|field| !field.is_empty()).unwrap_or("the document");
        said.push_str(&format!("\n  {field}: {}", text(problem, "message")));
    }
    for error in details["errors"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        said.push_str(&format!("\n  {error}"));
    }
    PushError::Refused(said).into()
}
