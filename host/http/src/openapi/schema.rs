//! Schemas of words that the core has: ids, times, labels and closed lists.
//!
//! The core knows no schemas, so each word has a marker here, which a field names with `#[schemars(with = "…")]`.
//! What a marker says comes from the core's own constants, so that the two cannot drift.

use std::borrow::Cow;
use std::marker::PhantomData;

use portcullis_core::operation::Redelivery;
use portcullis_core::{
    Capability, EventFormat, FailureFold, Grant, Mode, OperationKind, PluginClass, Quotas, Timestamp, label, rate,
    webhook,
};
use portcullis_service::WebhookState;
use portcullis_webhook::native;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};

/// How a place in the document gets its schema.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type: a reference, and the type among the components.
pub(crate) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A text without control characters.
pub(crate) const PLAIN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// A name: a text without control characters that is not blank.
pub(crate) const NAME: &str =
    "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// A phone number: 7 to 15 digits with the country code; a leading plus is forgiven.
pub(crate) const PHONE: &str = "^\\+?[0-9]{7,15}$";
/// A JID of a server that WhatsApp has.
pub(crate) const JID: &str = "^[A-Za-z0-9._:-]{1,64}@(s\\.whatsapp\\.net|g\\.us|lid|newsletter|broadcast)$";
/// A URL that a webhook can have; of those that it can have, the plain ones.
pub(crate) const URL: &str = "^https?://[A-Za-z]([A-Za-z0-9-]{0,40}[A-Za-z0-9])?(\\.[A-Za-z]([A-Za-z0-9-]{0,40}[A-Za-z0-9])?){1,3}(:(80|443|8080|8443))?(/[A-Za-z0-9._~/?=&-]*)?$";
/// The 26 characters after an id's prefix.
const ULID: &str = "[0-7][0-9A-HJKMNP-TV-Z]{25}";

/// Generators for what is received and for what is sent, whose components become one list.
pub(super) struct Generators {
    pub(super) received: SchemaGenerator,
    pub(super) sent: SchemaGenerator,
}

impl Generators {
    pub(super) fn new() -> Self {
        let settings = || {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings
        };
        Self {
            received: settings().for_deserialize().into_generator(),
            sent: settings().for_serialize().into_generator(),
        }
    }

    /// The components that were referred to. A type that is received and sent has one schema, or two names.
    pub(super) fn components(mut self) -> Map<String, Value> {
        let mut components = Map::new();
        for (name, mut schema) in self.received.take_definitions(true) {
            precise(&mut schema, false);
            components.insert(name, schema);
        }
        for (name, mut schema) in self.sent.take_definitions(true) {
            precise(&mut schema, true);
            let other = components.insert(name.clone(), schema.clone());
            debug_assert!(other.is_none_or(|other| other == schema), "{name} is two schemas");
        }
        components
    }
}

/// Says what the derived schemas leave open: the bounds of numbers, and that what is unset is left out and never null.
fn precise(schema: &mut Value, sent: bool) {
    if let Ok(schema) = <&mut Schema>::try_from(schema) {
        Precise { sent }.transform(schema);
    }
}

struct Precise {
    sent: bool,
}

impl Transform for Precise {
    fn transform(&mut self, schema: &mut Schema) {
        bound_number(schema);
        if self.sent {
            never_null(schema);
        }
        transform_subschemas(self, schema);
    }
}

fn bound_number(schema: &mut Schema) {
    let bounds = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (json!(0), json!(u8::MAX)),
        Some("uint32") => (json!(0), json!(u32::MAX)),
        Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
        Some("uint64") => (json!(0), json!(u64::MAX)),
        _ => return,
    };
    // These formats are in no registry, and the bounds say the same.
    schema.remove("format");
    let object = schema.ensure_object();
    object.entry("minimum").or_insert(bounds.0);
    object.entry("maximum").or_insert(bounds.1);
}

fn never_null(schema: &mut Schema) {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (name, property) in properties {
        let Value::Object(property) = property else { continue };
        if required.iter().any(|required| required == name) {
            continue;
        }
        if let Some(Value::Array(types)) = property.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                property.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(choices)) = property.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
            if let [only] = choices.as_slice()
                && let Value::Object(only) = only.clone()
            {
                property.remove("anyOf");
                property.extend(only);
            }
        }
    }
}

/// An id of the core.
pub(crate) struct Id<T>(PhantomData<T>);

macro_rules! ids {
    ($($id:ident $what:literal;)*) => {$(
        impl JsonSchema for Id<portcullis_core::$id> {
            fn schema_name() -> Cow<'static, str> {
                stringify!($id).into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": $what,
                    "pattern": format!("^{}{ULID}$", portcullis_core::$id::PREFIX),
                })
            }
        }
    )*};
}

ids! {
    OrgId "The id of an organisation.";
    SessionId "The id of a session.";
    PluginId "The id of a plugin, which its versions share.";
    BindingId "The id of a binding.";
    KeyId "The id of an API key.";
    RequestId "The id of a request.";
    DecisionId "The id of a recorded decision.";
    EventId "The id of an event.";
    MessageId "The id of a message on its way out.";
    AuditId "The id of a line of the audit.";
    WebhookId "The id of a webhook.";
    PublisherId "The id of a publisher.";
    DeliveryId "The id of a delivery, among those of its webhook.";
}

/// The pattern of a path parameter or a cursor that is an id.
pub(crate) fn id_pattern(prefix: &str) -> String {
    format!("^{prefix}{ULID}$")
}

/// The pattern of a component's signature: a publisher's id, and 64 bytes in base64.
pub(crate) fn signature_pattern() -> String {
    format!("^{}{ULID}:[A-Za-z0-9+/]{{86}}==$", portcullis_core::PublisherId::PREFIX)
}

macro_rules! markers {
    ($($(#[$doc:meta])* $name:ident $component:literal $schema:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $component.into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                let schema: Value = $schema;
                schema.try_into().expect("a marker's schema is an object")
            }
        }
    )*};
}

markers! {
    /// A point in time.
    Millis "Timestamp" json!({
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "maximum": Timestamp::MAX.as_millis(),
        "description": "Milliseconds since the Unix epoch.",
    });
    /// Labels, of whatever has them.
    LabelsOf "Labels" json!({
        "type": "object",
        "description": "Labels by their keys.",
        "maxProperties": label::MAX_LABELS,
        "propertyNames": { "pattern": "^[a-zA-Z0-9._/-]+$", "maxLength": label::MAX_KEY },
        "additionalProperties": { "type": "string", "maxLength": label::MAX_VALUE, "pattern": PLAIN },
    });
    /// What a caller may be capable of. A key can hold all but `operate`.
    CapabilityOf "Capability" json!({ "type": "string", "enum": Capability::ALL.map(Capability::name) });
    /// What a key can be capable of.
    KeyCapabilityOf "KeyCapability" json!({
        "type": "string",
        "enum": Capability::ALL.into_iter().filter(|one| *one != Capability::Operate).map(Capability::name).collect::<Vec<_>>(),
    });
    /// A grant of a plugin's.
    GrantOf "Grant" json!({ "type": "string", "enum": Grant::ALL.map(Grant::name) });
    /// Whether a binding's answers count.
    ModeOf "Mode" json!({ "type": "string", "enum": [Mode::Enforce, Mode::Monitor, Mode::Off] });
    /// What stands for an answer that did not come.
    FailureFoldOf "FailureFold" json!({ "type": "string", "enum": [FailureFold::Deny, FailureFold::Allow] });
    /// An operation by its name.
    OperationOf "Operation" json!({
        "type": "string",
        "enum": OperationKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
    });
    /// An operation that policy is asked about, by its name.
    HookOf "HookableOperation" json!({
        "type": "string",
        "enum": OperationKind::ALL.iter().filter(|kind| kind.row().hookable).map(|kind| kind.name()).collect::<Vec<_>>(),
    });
    /// An operation that a scan can ask about, by its name.
    ScannableOf "ScannableOperation" json!({
        "type": "string",
        "enum": OperationKind::ALL.iter().filter(|kind| portcullis_service::is_scannable(**kind)).map(|kind| kind.name()).collect::<Vec<_>>(),
    });
    /// How a decision ended.
    VerdictOf "VerdictName" json!({ "type": "string", "enum": crate::dialect::router::ENDINGS });
    /// Who did something.
    ActorOf "Actor" json!({
        "type": "object",
        "description": "Who did it.",
        "required": ["kind"],
        "properties": {
            "kind": {
                "type": "string",
                "enum": ["api-key", "user", "operator", "plugin", "session-token", "link", "system"],
            },
            "id": { "type": "string", "description": "The id of the key or the plugin." },
            "subject": { "type": "string", "description": "The subject of the user's token." },
            "depth": { "type": "integer", "description": "How many plugin requests lie in between." },
        },
    });
    /// The kind of message that can be sent.
    TextKind "MessageKind" json!({ "type": "string", "enum": ["text"] });
    /// An event by its name, or all of them.
    EventOf "EventName" json!({
        "type": "string",
        "enum": std::iter::once("*").chain(native::EVENTS).collect::<Vec<_>>(),
    });
    /// An event by its name in the words of a webhook's format, or all of them.
    ToldOf "WebhookEventName" json!({
        "type": "string",
        "description": "The name of an event, or *. Which names there are depends on the format; docs/webhooks.md has them all.",
        "enum": told(),
    });
    /// The format of a webhook that the native dialect makes.
    FormatOf "WebhookFormat" json!({
        "type": "string",
        "enum": crate::dialect::router::FORMATS.map(EventFormat::name),
        "default": EventFormat::Router.name(),
    });
    /// How far a delivery is.
    DeliveryStateOf "WebhookDeliveryStatus" json!({ "type": "string", "enum": ["waiting", "delivered", "dead"] });
    /// Which deliveries are told again.
    RedeliveryWord "RedeliveryStatus" json!({
        "type": "string",
        "enum": Redelivery::EVERY.map(Redelivery::name),
        "default": Redelivery::Dead.name(),
    });
    /// How a webhook fares, in a word.
    WebhookStateOf "WebhookState" json!({ "type": "string", "enum": WebhookState::ALL.map(WebhookState::name) });
    /// Whose events a stream tells.
    ScopeOf "RealtimeScope" json!({ "type": "string", "enum": ["organization", "session", "firehose"] });
    /// A rate policy by its name.
    PolicyOf "RatePolicyName" json!({
        "type": "string",
        "enum": rate::built_in_policies().iter().map(|policy| policy.slug.as_str()).collect::<Vec<_>>(),
    });
    /// How the waits between tries grow.
    GrowthOf "RetryGrowth" json!({ "type": "string", "enum": ["exponential", "linear", "constant"] });
    /// Headers that a webhook sends besides.
    HeadersOf "CustomHeaders" json!({
        "type": "object",
        "description": "Headers that every delivery carries besides, by their names.",
        "maxProperties": webhook::MAX_HEADERS,
        "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" },
        "additionalProperties": { "type": "string", "pattern": "^[ -~]*$", "maxLength": 1024 },
    });
    /// Where a proxy is: a name, or an address.
    HostOf "ProxyHost" json!({
        "type": "string",
        "maxLength": 253,
        "anyOf": [{ "pattern": "^[A-Za-z0-9._-]+$" }, { "format": "ipv6" }],
    });
    /// How a proxy is spoken to.
    ProtocolOf "ProxyProtocol" json!({ "type": "string", "enum": ["http", "https", "socks5"] });
    /// What is kept of a deletion.
    ReceiptOf "Receipt" json!({
        "type": "object",
        "description": "What is kept of a deletion: ids, times in milliseconds since the Unix epoch, and stable words.",
        "required": ["organizationId", "askedAt", "eventsDiscarded", "rowsRemovedAt", "keyDestroyedAt", "slotDigest"],
        "properties": {
            "organizationId": { "type": "string" },
            "sessionId": { "type": "string" },
            "askedAt": { "type": "integer" },
            "dueAt": { "type": "integer" },
            "beganAt": { "type": "integer" },
            "decisionId": { "type": "string" },
            "unlink": { "type": "string", "enum": ["not-linked", "under-way", "confirmed", "not-confirmed"] },
            "notify": { "type": "string", "enum": ["under-way", "tried", "timed-out"] },
            "eventsDiscarded": { "type": "integer", "description": "Events that went with it and that some receiver had not been told." },
            "rowsRemovedAt": { "type": "integer" },
            "keyDestroyedAt": { "type": "integer" },
            "slotDigest": { "type": "string", "description": "SHA-256 over the slot of the key file as it was before it was overwritten, in hexadecimal." },
        },
    });
    /// An ed25519 public key.
    PublicKeyOf "PublicKey" json!({
        "type": "string",
        "description": "An ed25519 public key: 32 bytes in base64.",
        "pattern": "^[A-Za-z0-9+/]{43}=$",
    });
    /// A host, or all below one; of those that there can be, the plain ones.
    HostRuleOf "HostRule" json!({
        "type": "string",
        "description": "A host such as `api.example.org`, or `*.example.org` for all hosts below one.",
        "pattern": "^(\\*\\.)?[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?\\.[a-z]{2,20}$",
    });
    /// How much a plugin may use.
    ClassOf "PluginClass" json!({ "type": "string", "enum": [PluginClass::Standard, PluginClass::Large] });
    /// A SHA-256 digest.
    DigestOf "Digest" json!({ "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" });
    /// What an organisation has subscribed to.
    PlanOf "Plan" json!({
        "type": "object",
        "description": "What the organisation has subscribed to.",
        "required": ["active", "name"],
        "properties": { "name": { "type": "string", "pattern": NAME, "maxLength": 200 }, "active": { "type": "boolean" } },
        "additionalProperties": false,
    });
    /// How much an organisation may use.
    QuotasOf "Quotas" quotas(true);
    /// The same as it is asked for; what is left out has its default.
    QuotasBody "QuotasBody" quotas(false);
    /// A JSON object that this dialect does not look into.
    Open "OpenObject" json!({ "type": "object", "additionalProperties": true });
    /// Anything.
    AnyValue "AnyValue" json!({ "description": "Any JSON value." });
}

/// Every name under which a webhook can be told an event, each once.
fn told() -> Vec<&'static str> {
    let formats = [EventFormat::Router, EventFormat::Standard, EventFormat::Wawp, EventFormat::Evolution];
    let mut names = vec!["*"];
    for name in formats.into_iter().flat_map(portcullis_webhook::vocabulary) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    names
}

fn quotas(all: bool) -> Value {
    // The core's own form has every quota, by the name that it has on the wire.
    let Ok(Value::Object(usual)) = serde_json::to_value(Quotas::default()) else { return json!({}) };
    let names: Vec<_> = usual.keys().cloned().collect();
    let bound = |(name, usual): (String, Value)| {
        (name, json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX, "default": usual }))
    };
    let properties: Map<String, Value> = usual.into_iter().map(bound).collect();
    let required = if all { names } else { Vec::new() };
    json!({
        "type": "object",
        "description": "How much the organisation may use.",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod test {
    use portcullis_core::{PluginId, PrincipalKind};

    use super::*;

    fn schema<T: JsonSchema>() -> Value {
        T::json_schema(&mut SchemaSettings::draft2020_12().into_generator()).to_value()
    }

    #[test]
    fn every_kind_of_actor_is_listed() {
        let kinds = schema::<ActorOf>()["properties"]["kind"]["enum"].clone();
        let plugin = PrincipalKind::Plugin { id: PluginId::from_bytes([0; 16]), depth: 0 };
        let user = PrincipalKind::User { subject: String::new() };
        for kind in [plugin, user, PrincipalKind::Operator, PrincipalKind::Link, PrincipalKind::System] {
            assert!(kinds.as_array().unwrap().contains(&json!(kind.name())), "{kind} is missing");
        }
    }

    #[test]
    fn words_are_spelled_as_the_core_spells_them() {
        assert_eq!(schema::<ModeOf>()["enum"], json!(["enforce", "monitor", "off"]));
        assert_eq!(schema::<FailureFoldOf>()["enum"], json!(["deny", "allow"]));
    }
}
