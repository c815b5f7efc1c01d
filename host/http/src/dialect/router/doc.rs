//! What the description of the API says of each route of this dialect, in the terms of the types that it sends and receives.

use hyper::Method;
use serde_json::{Value, json};

use super::admin::{KeyBody, OrgBody, OrgPatch};
use super::bindings::{BindingBody, BindingPatch};
use super::decisions::FactBody;
use super::deliveries::{FILTERS, RedeliverBody};
use super::explain::DecisionView;
use super::messages::MessageBody;
use super::plugins::{CatalogueBody, PublisherBody, RulesBody, SecretBody};
use super::profile::{ProxyBody, SettingsBody};
use super::realtime::TicketBody;
use super::rehearsals::{PluginScanBody, ReplayBody, ReplayedView, ScannedView};
use super::sessions::{
    CreateBody, DisconnectBody, LimitBody, PairingCodeBody, QR_FORMATS, RatePolicyBody, ReceiveBody, ScanBody,
};
use super::upkeep::RotatedView;
use super::view::{
    AuditView, BindingView, CatalogueView, CodeView, DeletionView, DeliveryView, FactView, KeyView, LinkView, List,
    MadeLinkView, MeView, MessageView, NewKeyView, OrgView, PluginLogView, PluginRulesView, PluginVersionsView,
    PluginView, PublisherView, RatePolicyView, ReceiptView, RedeliveredView, RequestView, SecretNameView, SentView,
    SessionProxyView, SessionView, SettingsView, TestedView, TicketView, UploadBegunView, WebhookView,
};
use super::webhooks::{RotateBody, WebhookBody, WebhookPatch};
use crate::openapi::schema::LabelsOf;
use crate::openapi::{Doc, schema};
use crate::routes::Route;

const SESSION: &str = "The session.";

/// What is said of a route besides what its row says.
pub(crate) fn doc(route: &Route) -> Option<Doc> {
    let path = route.path.trim_start_matches("/api/v1/");
    let of_others = || of_resource(route, path).or_else(|| of_policy(route, path));
    of_session(route, path).or_else(|| of_webhook(route, path)).or_else(of_others)
}

/// Sessions and what is below them.
fn of_session(route: &Route, path: &str) -> Option<Doc> {
    Some(match (&route.method, path, route.action) {
        (&Method::POST, "sessions", _) => Doc::answers::<SessionView<'_>>(201, "The new session.")
            .takes::<CreateBody>()
            .makes("id")
            .says("With `start`, pairing by QR code begins at once."),
        (&Method::GET, "sessions", _) => {
            paged(Doc::answers::<List<SessionView<'_>>>(200, "Sessions, newest first."), "sess_")
        }
        (&Method::GET, "admin/sessions", _) => {
            let doc = Doc::answers::<List<SessionView<'_>>>(200, "Sessions of all organisations, newest first.");
            paged(doc, "sess_")
        }
        (&Method::DELETE, "sessions/{id}", _) => Doc::is_done(204, "It is gone.")
            .also::<DeletionView<'_>>(202, "The session waits to be deleted, or is being deleted.")
            .says("The answer holds ids and times only, and is told again under the same idempotency key when the session is gone."),
        (&Method::GET, "sessions/{id}", _) => Doc::answers::<SessionView<'_>>(200, SESSION),
        (&Method::POST, "sessions/{id}", _) => Doc::answers::<SessionView<'_>>(200, "The session afterwards."),
        (_, "sessions/{id}/me", _) => Doc::answers::<MeView<'_>>(200, "The account that it is linked to.")
            .says("A session that is not linked has no account: 404."),
        (_, "sessions/{id}/qr", _) => Doc::answers::<CodeView<'_>>(200, "The QR code.")
            .content(200, "", "image/png", |_| json_schema(json!({})))
            .content(200, "", "image/svg+xml", |_| json_schema(json!({ "type": "string" })))
            .query("format", "The form of the code.", json!({ "type": "string", "enum": QR_FORMATS, "default": "raw" }))
            .says("Begins to pair if need be, and waits a moment for the first code."),
        (_, "sessions/{id}/pairing-code", _) => {
            Doc::answers::<CodeView<'_>>(200, "The code to type on the phone.").takes::<PairingCodeBody>()
        }
        (_, "sessions/{id}/labels", _) => Doc::answers::<SessionView<'_>>(200, SESSION).takes::<LabelsOf>(),
        (&Method::GET, "sessions/{id}/rate-policy", _) => {
            Doc::answers::<RatePolicyView<'_>>(200, "The policy, what is used of it, and the others that there are.")
        }
        (_, "sessions/{id}/rate-policy", _) => Doc::answers::<SessionView<'_>>(200, SESSION).takes::<RatePolicyBody>(),
        (&Method::POST, "sessions/{id}/messages", _) => {
            Doc::answers::<SentView<'_>>(200, "What became of the message.")
                .also::<SentView<'_>>(202, "The message waits for its turn.")
                .takes::<MessageBody>()
                .query("async", "Whether not to wait for WhatsApp.", json!({ "type": "boolean", "default": false }))
                .header(
                    "Idempotency-Key",
                    "Under one key a message is sent once, however often it is asked for.",
                    json!({ "type": "string", "pattern": "^[ -~]{1,255}$" }),
                )
                .fails(&[501])
                .makes("outboxId")
                .says("Only texts can be sent.")
        }
        (_, "sessions/{id}/messages/{message}", _) => {
            Doc::answers::<MessageView<'_>>(200, "What became of the message.")
        }
        (&Method::PUT, "sessions/{id}/settings", _) => {
            Doc::answers::<SettingsView<'_>>(200, "The settings.").takes::<SettingsBody>()
        }
        (_, "sessions/{id}/settings", _) => Doc::answers::<SettingsView<'_>>(200, "The settings."),
        (&Method::PUT, "sessions/{id}/proxy", _) => {
            Doc::answers::<SessionProxyView<'_>>(200, "The proxy.").takes::<ProxyBody>()
        }
        (_, "sessions/{id}/proxy", _) => Doc::answers::<SessionProxyView<'_>>(200, "The proxy, if there is one."),
        (&Method::GET, "sessions/{id}/link", _) => Doc::answers::<LinkView>(200, "The link, if there is one."),
        (&Method::POST, "sessions/{id}/link", _) => Doc::answers::<MadeLinkView>(201, "The new link."),
        (_, "sessions/{id}/link", _) => Doc::is_done(204, "There is no link any more."),
        (_, "sessions/{id}/simulator", action) => {
            let doc = Doc::is_done(204, "It was done.").fails(&[409]);
            match action {
                "scan" => doc.may_take::<ScanBody>().says("The phone scans the code, or types it."),
                "unlink" => doc.says("The phone unlinks the device."),
                "disconnect" => doc.may_take::<DisconnectBody>().says("The network fails for a while."),
                "receive" => doc.takes::<ReceiveBody>().says("Somebody writes."),
                _ => doc.takes::<LimitBody>().says("WhatsApp limits the account."),
            }
        }
        _ => return None,
    })
}

/// Webhooks and what they were told.
fn of_webhook(route: &Route, path: &str) -> Option<Doc> {
    const AGAIN: &str = "So many deliveries are tried again soon.";
    Some(match (&route.method, path, route.action) {
        (&Method::POST, "webhooks", _) => {
            Doc::answers::<WebhookView<'_>>(201, "The new webhook.").takes::<WebhookBody>().makes("id")
        }
        (&Method::GET, "webhooks", _) => Doc::answers::<List<WebhookView<'_>>>(200, "All webhooks."),
        (&Method::GET, "webhooks/{id}", _) => Doc::answers::<WebhookView<'_>>(200, "The webhook, and how it fares."),
        (&Method::PATCH, "webhooks/{id}", _) => Doc::answers::<WebhookView<'_>>(200, "The webhook.")
            .takes::<WebhookPatch>()
            .says("What is left out stays as it is, but for `sessionId`, which is taken away."),
        (&Method::DELETE, "webhooks/{id}", _) => Doc::is_done(204, "It is gone."),
        (_, "webhooks/{id}", "rotate-secret") => {
            Doc::answers::<WebhookView<'_>>(200, "The webhook, with its new secret, which is shown this once.")
                .may_take::<RotateBody>()
                .says("In the format `standard` the secret before signs as well for a while.")
        }
        (_, "webhooks/{id}", "test") => Doc::answers::<TestedView>(202, "It is told soon.")
            .fails(&[409])
            .says("Tells the webhook, and nobody else, an event `webhook.test`."),
        (_, "webhooks/{id}", _) => Doc::answers::<RedeliveredView>(202, AGAIN)
            .takes::<RedeliverBody>()
            .says("Takes up about 1,000 deliveries at a time, oldest first."),
        (_, "webhooks/{id}/deliveries", _) => {
            let filters = FILTERS.map(|(word, _)| word);
            let doc = Doc::answers::<List<DeliveryView<'_>>>(200, "What it was told, newest first.");
            paged(doc, "dlv_")
                .query("status", "How far they are.", json!({ "type": "string", "enum": filters, "default": "all" }))
                .says("A page may be short though there are more. What was never tried is not listed.")
        }
        (&Method::GET, "webhooks/{id}/deliveries/{delivery}", _) => {
            Doc::answers::<DeliveryView<'_>>(200, "The delivery.")
        }
        (_, "webhooks/{id}/deliveries/{delivery}", _) => Doc::answers::<RedeliveredView>(202, AGAIN)
            .says("Its attempts are kept, and another round of tries begins, whatever became of it before."),
        _ => return None,
    })
}

/// Everything else but policy.
fn of_resource(route: &Route, path: &str) -> Option<Doc> {
    Some(match (&route.method, path) {
        (&Method::GET, "events") => Doc::default()
            .content(
                200,
                "Server-sent events: `connected`, then events under their names.",
                "text/event-stream",
                |_| json_schema(json!({})),
            )
            .query(
                "events",
                "The names of events, with commas between them; all if it is left out.",
                json!({ "type": "string" }),
            )
            .query("session", "The only session.", json!({ "type": "string", "pattern": schema::id_pattern("sess_") }))
            .query(
                "since",
                "The last event that the client knows: an `id` of the stream's, or an event's own.",
                json!({ "type": "string" }),
            )
            .query("ticket", "A ticket that was not used yet, in the place of a key.", json!({ "type": "string" }))
            .header("Last-Event-ID", "As `since`, and before it.", json!({ "type": "string" }))
            .fails(&[429])
            .says("The answer does not end. Whoever comes back goes on behind the last event that they know."),
        (_, "realtime/ticket") => {
            Doc::answers::<TicketView<'_>>(201, "The ticket, for one use.").may_take::<TicketBody>()
        }
        (_, "/metrics") => {
            Doc::default().content(200, "The metrics.", "text/plain", |_| json_schema(json!({ "type": "string" })))
        }
        (_, "admin/backup") => Doc::default()
            .content(200, "The backup.", "application/octet-stream", |_| json_schema(json!({})))
            .fails(&[409])
            .says("Everything of one point in time, sealed as it is. What ends without its end is no backup."),
        (_, "admin/backup/keys") => Doc::default()
            .content(200, "The key file.", "application/octet-stream", |_| json_schema(json!({})))
            .says("Take it after the backup that it is for, and keep the newest one only."),
        (_, "admin/master-key") => Doc::answers::<RotatedView>(200, "The key is another one now.")
            .fails(&[409])
            .says("Everything goes on meanwhile."),
        (&Method::POST, "orgs") => {
            Doc::answers::<OrgView<'_>>(201, "The new organisation.").takes::<OrgBody>().makes("id")
        }
        (&Method::GET, "orgs") => paged(Doc::answers::<List<OrgView<'_>>>(200, "Organisations, oldest first."), "org_"),
        (&Method::PATCH, "orgs/{id}") => {
            Doc::answers::<OrgView<'_>>(200, "The organisation.").takes::<OrgPatch>().fails(&[409])
        }
        (&Method::DELETE, "orgs/{id}") => Doc::is_done(204, "It is erased, with everything it owned.").fails(&[409]),
        (_, "orgs/{id}") => Doc::answers::<OrgView<'_>>(200, "The organisation."),
        (&Method::POST, "orgs/{id}/keys") => {
            Doc::answers::<NewKeyView<'_>>(201, "The new key, shown this once.").takes::<KeyBody>().makes("id")
        }
        (_, "orgs/{id}/keys") => Doc::answers::<List<KeyView<'_>>>(200, "All keys, revoked ones as well."),
        (_, "orgs/{id}/keys/{key}") => Doc::is_done(204, "It is revoked."),
        (_, "audit") => {
            let lines = Doc::answers::<List<AuditView<'_>>>(200, "Lines of the audit, newest first.");
            paged_by(lines, json!({ "type": "string", "pattern": "^[0-9]{1,18}$" }))
        }
        (_, "audit/export") => Doc::default()
            .content(
                200,
                "Lines of the audit in order, each a JSON document on a line; the last one says where it ends, signed.",
                "application/x-ndjson",
                |_| json_schema(json!({ "type": "string" })),
            )
            .query("after", "The number of the line after which to begin.", json!({ "type": "integer", "minimum": 0 }))
            .query(
                "limit",
                "How many lines at most; all if it is left out.",
                json!({ "type": "integer", "minimum": 1 }),
            ),
        (_, "receipts/{id}") => {
            Doc::answers::<ReceiptView<'_>>(200, "The receipt of a session that was erased, or of an organisation.")
        }
        (_, "sessions/{id}/export") => Doc::default().content(
            200,
            "Everything of the session that its owner may want to keep, and none of its credentials.",
            "application/json",
            |_| json_schema(json!({ "type": "object" })),
        ),
        _ => return None,
    })
}

/// Plugins, bindings, decisions and facts.
fn of_policy(route: &Route, path: &str) -> Option<Doc> {
    Some(match (&route.method, path) {
        (&Method::POST, "plugins") => Doc::answers::<PluginView<'_>>(201, "The new version.")
            .also::<PluginView<'_>>(200, "The bytes are known: the version that they are.")
            .also::<UploadBegunView>(202, "The upload goes on by itself.")
            .takes::<CatalogueBody>()
            .takes_content(true, "application/wasm", |_| json_schema(json!({})))
            .query("class", "How much it may use.", json!({ "type": "string", "enum": ["standard", "large"], "default": "standard" }))
            .header(
                "Portcullis-Signature",
                "A publisher's ed25519 signature over `portcullis-plugin-v1`, a line break, the component's SHA-256 in hexadecimal and a line break.",
                json!({ "type": "string", "pattern": schema::signature_pattern() }),
            )
            .query(
                "wait",
                "Whether to wait until the component is admitted.",
                json!({ "type": "boolean", "default": true }),
            )
            .fails(&[422])
            .says("Takes a component, or the name of a plugin that ships with the gateway."),
        (&Method::GET, "plugins/rules") => Doc::answers::<PluginRulesView<'_>>(200, "The rules."),
        (_, "plugins/rules") => Doc::answers::<PluginRulesView<'_>>(200, "The rules.")
            .takes::<RulesBody>()
            .fails(&[409])
            .says("What the operator has said counts besides."),
        (&Method::POST, "plugins/{id}") if route.action == "replay" => {
            Doc::answers::<ReplayedView<'_>>(200, "What would change.")
                .may_take::<ReplayBody>()
                .fails(&[422])
                .says("Asks about recorded decisions again, with what was read then. Nothing is done. Needs `audit`, too.")
        }
        (&Method::POST, "plugins/{id}") => Doc::answers::<ScannedView<'_>>(200, "What would be answered.")
            .may_take::<PluginScanBody>()
            .fails(&[422])
            .says("Asks about every session as it is now, as a dry run that is not recorded. Needs `read`, too."),
        (_, "plugins/{id}/log") => Doc::answers::<List<PluginLogView<'_>>>(200, "What it wrote, newest first.")
            .says("At most 64 KiB, since the gateway began. A line of the level `error` may be the gateway's own, about a call that failed."),
        (_, "plugins/{id}/requests") => Doc::answers::<List<RequestView<'_>>>(200, "What it has sent, newest first.")
            .query(
                "status",
                "Only those that wait, or that were given up.",
                json!({ "type": "string", "enum": FILTERS.map(|(name, _)| name), "default": "all" }),
            )
            .query(
                "limit",
                "How many entries a page has at most; garbage asks for the default.",
                json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 }),
            )
            .query(
                "cursor",
                "Where the page begins: the `nextCursor` of the one before.",
                json!({ "type": "string", "pattern": "^[0-9]{1,18}$" }),
            )
            .says("No secret is shown, and no value of a header."),
        (_, "plugins/{id}/secrets") => {
            Doc::answers::<List<SecretNameView<'_>>>(200, "The names of the plugin's secrets.")
        }
        (&Method::PUT, "plugins/{id}/secrets/{name}") => {
            Doc::is_done(204, "It is kept.").takes::<SecretBody>().says("The plugin uses it through handles only.")
        }
        (_, "plugins/{id}/secrets/{name}") => Doc::is_done(204, "It is gone."),
        (&Method::POST, "publishers") => {
            Doc::answers::<PublisherView<'_>>(201, "The new publisher.").takes::<PublisherBody>().makes("id")
        }
        (&Method::GET, "publishers") => Doc::answers::<List<PublisherView<'_>>>(200, "All publishers."),
        (_, "publishers/{id}") => Doc::is_done(204, "It is gone."),
        (_, "events") => Doc::answers::<FactView<'_>>(202, "The organisation's plugins will be told.")
            .also::<FactView<'_>>(200, "It was told before.")
            .takes::<FactBody>()
            .fails(&[409, 429])
            .says("Under one id a fact is told once within 30 days."),
        (_, "plugins/catalog") => Doc::answers::<List<CatalogueView>>(200, "The plugins that ship with the gateway."),
        (&Method::DELETE, "plugins/{id}") => Doc::is_done(204, "It is gone.").fails(&[409]),
        (_, "plugins/{id}") => Doc::answers::<PluginVersionsView<'_>>(200, "The newest version."),
        (_, "plugins") => Doc::answers::<List<PluginView<'_>>>(200, "The newest version of every plugin."),
        (_, "plugins/{id}/versions") => Doc::answers::<List<PluginView<'_>>>(200, "Every version."),
        (&Method::POST, "bindings") => Doc::answers::<BindingView<'_>>(201, "The new binding.")
            .takes::<BindingBody>()
            .fails(&[409, 422])
            .makes("id"),
        (&Method::PATCH, "bindings/{id}") => Doc::answers::<BindingView<'_>>(200, "The binding.")
            .takes::<BindingPatch>()
            .fails(&[409, 422])
            .says("The next operation sees the change."),
        (&Method::DELETE, "bindings/{id}") => Doc::is_done(204, "It is gone."),
        (&Method::POST, "bindings/{id}") => Doc::answers::<BindingView<'_>>(200, "The binding.")
            .fails(&[409, 422])
            .says(match route.action {
                "promote" => "The candidate becomes the bound version.",
                "rollback" => "The version before is bound again, with the settings of that time.",
                _ => "The binding is asked again after it was suspended.",
            }),
        (_, "bindings") => Doc::answers::<List<BindingView<'_>>>(200, "All bindings."),
        (_, "bindings/{id}") => Doc::answers::<BindingView<'_>>(200, "The binding."),
        (_, "decisions") => {
            filtered(paged(Doc::answers::<List<DecisionView<'_>>>(200, "Decisions, newest first."), "dec_"))
                .says("A page may be short though there are more; what was erased is found by what is left of it.")
        }
        (_, "decisions/{id}") => Doc::answers::<DecisionView<'_>>(200, "The decision."),
        _ => return None,
    })
}

/// Decisions that are looked for.
fn filtered(doc: Doc) -> Doc {
    let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let time = schema("Timestamp");
    doc.query("session", "About this session.", schema("SessionId"))
        .query("operation", "About operations of this kind.", schema("HookableOperation"))
        .query("verdict", "That ended so.", schema("VerdictName"))
        .query("plugin", "For which this plugin was asked.", schema("PluginId"))
        .query("binding", "For which this binding was asked.", schema("BindingId"))
        .query("since", "Made then or later, in milliseconds since the epoch.", time.clone())
        .query("until", "Made before then.", time)
}

/// A list that comes in pages.
fn paged(doc: Doc, prefix: &str) -> Doc {
    paged_by(doc, json!({ "type": "string", "pattern": schema::id_pattern(prefix) }))
}

fn paged_by(doc: Doc, cursor: Value) -> Doc {
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 });
    doc.query("limit", "How many entries a page has at most; garbage asks for the default.", limit).query(
        "cursor",
        "Where the page begins: the `nextCursor` of the one before.",
        cursor,
    )
}

fn json_schema(schema: Value) -> schemars::Schema {
    schemars::Schema::try_from(schema).unwrap_or_default()
}
