//! Plugins: uploaded, listed and deleted, with their secrets, and who may vouch for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use portcullis_core::{PluginClass, PluginId, Secret};
use portcullis_service::{NewPublisher, Novelty, Signature};
use schemars::JsonSchema;
use serde::Deserialize;

use super::view::{
    self, CatalogueView, PluginLogView, PluginRulesView, PluginVersionsView, PluginView, PublisherView, SecretNameView,
    UploadBegunView,
};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked, Component};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::openapi::schema::{NAME, PublicKeyOf};
use crate::routes::EncodeContext;

/// The header with which a component's signature comes.
pub(super) const SIGNATURE: &str = "portcullis-signature";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CatalogueBody {
    catalog: String,
}

/// A component as the body, or a JSON document that names one of the catalogue. No component begins with a brace.
pub(super) fn upload(incoming: &Incoming) -> Result<Asked, Problem> {
    if incoming.body.is_empty() {
        return Err(Problem::invalid("the body must be a component, or {\"catalog\": \"<name>\"}"));
    }
    let wait = decode::flag(incoming, "wait")?.unwrap_or(true);
    let class = match incoming.query("class") {
        None => PluginClass::default(),
        Some(name) => PluginClass::from_name(name)
            .ok_or_else(|| Problem::malformed(&["class must be standard or large".to_owned()]))?,
    };
    let signature = incoming.headers.get(SIGNATURE).map(|_| signature(incoming)).transpose()?;
    let begins = incoming.body.iter().find(|byte| !byte.is_ascii_whitespace());
    let component = if begins == Some(&b'{') {
        let body: CatalogueBody = decode::body(incoming)?;
        Component::Catalogue(body.catalog)
    } else {
        Component::Bytes(incoming.body.to_vec())
    };
    Ok(Asked::UploadPlugin { component, class, signature, wait })
}

/// `<publisher id>:<base64 of the signature>`.
fn signature(incoming: &Incoming) -> Result<Signature, Problem> {
    let parts = incoming.header(SIGNATURE).and_then(|text| text.trim().split_once(':'));
    let parsed = parts.and_then(|(publisher, bytes)| {
        Some(Signature { publisher: publisher.parse().ok()?, bytes: STANDARD.decode(bytes.trim()).ok()? })
    });
    parsed.ok_or_else(|| Problem::invalid("Portcullis-Signature must be <publisher id>:<base64 of the signature>"))
}

pub(super) fn catalogue(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Catalogue)
}

pub(super) fn list(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Plugins)
}

pub(super) fn versions(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::PluginVersions { plugin: plugin_id(incoming)? })
}

pub(super) fn delete(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::DeletePlugin { plugin: plugin_id(incoming)? })
}

pub(super) fn plugin_id(incoming: &Incoming) -> Result<PluginId, Problem> {
    decode::path_id(incoming, "id", "plugin")
}

/// 201 for a new version, 200 for bytes that were known, 202 for an upload that is not waited for.
pub(super) fn uploaded(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    match answer {
        Answer::Uploaded(version, novelty) => {
            let status = if novelty == Novelty::Known { StatusCode::OK } else { StatusCode::CREATED };
            Reply::json(status, &PluginView::of(&version))
        }
        Answer::UploadBegun => Reply::json(StatusCode::ACCEPTED, &UploadBegunView::COMPILING),
        _ => mismatch(),
    }
}

pub(super) fn catalogue_names(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Catalogue(names) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(names.into_iter().map(|name| CatalogueView { name }), None))
}

pub(super) fn plugins(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let (Answer::Plugins(versions) | Answer::PluginVersions(versions)) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(versions.iter().map(PluginView::of), None))
}

/// The newest version, with the numbers of all.
pub(super) fn plugin(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::PluginVersions(versions) = answer else { return mismatch() };
    match PluginVersionsView::of(&versions) {
        Some(body) => Reply::json(StatusCode::OK, &body),
        None => mismatch(),
    }
}

// === log ===

pub(super) fn log(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::PluginLog { plugin: plugin_id(incoming)? })
}

pub(super) fn logged(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::PluginLog(lines) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(lines.iter().map(PluginLogView::of), None))
}

// === secrets ===

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretBody {
    /// The secret; it is never shown again.
    #[schemars(with = "String", length(min = 1, max = 4096))]
    value: Secret,
}

pub(super) fn put_secret(incoming: &Incoming) -> Result<Asked, Problem> {
    let (plugin, name) = (plugin_id(incoming)?, incoming.param("name").to_owned());
    let SecretBody { value } = decode::body(incoming)?;
    Ok(Asked::PutSecret { plugin, name, value })
}

pub(super) fn delete_secret(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::DeleteSecret { plugin: plugin_id(incoming)?, name: incoming.param("name").to_owned() })
}

pub(super) fn list_secrets(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Secrets { plugin: plugin_id(incoming)? })
}

pub(super) fn secrets(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Secrets(names) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(names.iter().map(SecretNameView::of), None))
}

// === publishers ===

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PublisherBody {
    #[schemars(length(max = 200), regex(pattern = NAME))]
    name: String,
    /// The publisher's ed25519 public key.
    #[schemars(with = "PublicKeyOf")]
    public_key: String,
}

pub(super) fn create_publisher(incoming: &Incoming) -> Result<Asked, Problem> {
    let PublisherBody { name, public_key } = decode::body(incoming)?;
    // What is no base64 is no key either.
    let public_key = STANDARD.decode(public_key.trim()).unwrap_or_default();
    Ok(Asked::CreatePublisher(NewPublisher { name, public_key }))
}

pub(super) fn delete_publisher(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::DeletePublisher { publisher: decode::path_id(incoming, "id", "publisher")? })
}

pub(super) fn list_publishers(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Publishers)
}

pub(super) fn publisher_created(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::PublisherCreated(publisher) = answer else { return mismatch() };
    Reply::json(StatusCode::CREATED, &PublisherView::of(&publisher))
}

pub(super) fn publishers(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Publishers(publishers) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &view::list(publishers.iter().map(PublisherView::of), None))
}

// === rules ===

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RulesBody {
    /// Whether only signed plugins can be uploaded and bound.
    require_signature: bool,
}

pub(super) fn get_rules(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::PluginRules)
}

pub(super) fn set_rules(incoming: &Incoming) -> Result<Asked, Problem> {
    let RulesBody { require_signature } = decode::body(incoming)?;
    Ok(Asked::RequireSignature { required: require_signature })
}

pub(super) fn rules(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::PluginRules(rules) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &PluginRulesView::of(&rules))
}
