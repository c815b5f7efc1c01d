//! Operations that the contract has no case for, as JSON documents: the contract's `other`.
//!
//! No document holds a credential: of headers only the names are told, and a secret or a password is told as being there.

use portcullis_core::operation::RedeliveryOf;
use portcullis_core::{Binding, Operation, WebhookChange, WebhookSpec};
use serde_json::{Value, json};

use crate::hex;

/// What an operation asks for; `null` for those that have a case of their own.
pub(super) fn document(operation: &Operation) -> Value {
    match operation {
        Operation::SessionSettings { settings, .. } => json!({
            "autoRead": settings.auto_read,
            "presenceTyping": settings.presence_typing,
            "rejectCalls": settings.reject_calls,
            "ignoreGroups": settings.ignore_groups,
            "alwaysOnline": settings.always_online,
            "readStatus": settings.read_status,
            "fullHistory": settings.full_history,
        }),
        Operation::SessionProxy { proxy, .. } => match proxy {
            None => json!({ "proxy": null }),
            Some(proxy) => json!({ "proxy": {
                "protocol": proxy.protocol.name(),
                "host": proxy.host,
                "port": proxy.port,
                "withPassword": proxy.password.is_some(),
            } }),
        },
        Operation::SessionLink { change, .. } => json!({ "change": change }),
        Operation::WebhookCreate { webhook, .. } => webhook_of(webhook),
        Operation::WebhookUpdate { webhook, change, within: _ } => change_of(*webhook, change),
        Operation::WebhookDelete { webhook, within: _ } | Operation::WebhookTest { webhook, within: _ } => {
            json!({ "webhook": webhook })
        }
        Operation::WebhookRotate { webhook, overlap_seconds, .. } => {
            json!({ "webhook": webhook, "overlapSeconds": overlap_seconds })
        }
        Operation::WebhookReplay { webhook, of, .. } => match of {
            RedeliveryOf::One(delivery) => json!({ "webhook": webhook, "delivery": delivery }),
            RedeliveryOf::Range { since, until, which, .. } => {
                json!({ "webhook": webhook, "since": since, "until": until, "status": which.name() })
            }
        },
        Operation::WebhookReplace { format, webhooks, .. } => {
            json!({ "format": format.name(), "webhooks": webhooks.iter().map(webhook_of).collect::<Vec<_>>() })
        }
        Operation::NumberCheck { numbers, .. } => json!({ "numbers": numbers }),
        Operation::PresenceSet { chat, presence, .. } => json!({ "chat": chat, "presence": presence.name() }),
        Operation::PluginUpload(version) => json!({
            "name": version.name,
            "version": version.version,
            "digest": format!("sha256:{}", hex(&version.digest)),
            "size": version.size,
            "class": version.class.name(),
            "wants": version.wanted().collect::<Vec<_>>(),
            "signer": version.signer,
        }),
        Operation::PluginDelete { plugin } => json!({ "plugin": plugin }),
        Operation::BindingCreate(binding) | Operation::BindingUpdate(binding) => binding_of(binding),
        Operation::BindingDelete { binding } => json!({ "binding": binding }),
        Operation::SessionCreate(_)
        | Operation::SessionStart { .. }
        | Operation::SessionStop { .. }
        | Operation::SessionRestart { .. }
        | Operation::SessionLogout { .. }
        | Operation::SessionDelete { .. }
        | Operation::SessionRestore { .. }
        | Operation::SessionQr { .. }
        | Operation::SessionPairingCode { .. }
        | Operation::SessionLabels { .. }
        | Operation::SessionRatePolicy { .. }
        | Operation::MessageSend(_) => Value::Null,
    }
}

/// A binding as it is to be. Its settings are not told: they may hold what is its owner's alone.
fn binding_of(binding: &Binding) -> Value {
    json!({
        "binding": binding.id,
        "plugin": binding.plugin,
        "version": binding.version,
        "hooks": binding.hooks,
        "mode": binding.mode,
        "onFailure": binding.on_failure,
        "order": binding.order,
        "grants": binding.grants,
        "httpHosts": binding.http_hosts,
        "selector": binding.selector,
        "candidate": binding.candidate.as_ref().map(|candidate| candidate.version),
    })
}

fn webhook_of(webhook: &WebhookSpec) -> Value {
    json!({
        "format": webhook.format.name(),
        "url": webhook.url,
        "events": webhook.events,
        "headers": webhook.headers.keys().collect::<Vec<_>>(),
        "signed": webhook.secret.is_some(),
        "active": webhook.active,
    })
}

fn change_of(webhook: portcullis_core::WebhookId, change: &WebhookChange) -> Value {
    json!({
        "webhook": webhook,
        "session": change.session,
        "url": change.url,
        "events": change.events,
        "headers": change.headers.as_ref().map(|headers| headers.keys().collect::<Vec<_>>()),
        "signed": change.secret.as_ref().map(Option::is_some),
        "active": change.active,
    })
}

#[cfg(test)]
mod test {
    use std::collections::BTreeMap;

    use portcullis_core::{EventFormat, RetryPolicy, Secret, WebhookId};

    use super::*;

    #[test]
    fn no_credential_is_told() {
        let webhook = WebhookSpec {
            format: EventFormat::Evolution,
            url: "https://example.com/hook".to_owned(),
            events: vec!["CONNECTION_UPDATE".to_owned()],
            headers: BTreeMap::from([("jwt_key".to_owned(), Secret::new("hush"))]),
            secret: Some(Secret::new("hush")),
            retry: RetryPolicy::default(),
            active: true,
            path_per_event: false,
            inline_media: false,
        };
        let told = document(&Operation::WebhookCreate { session: None, webhook });
        assert!(!told.to_string().contains("hush"), "{told}");
        assert_eq!(told["headers"], json!(["jwt_key"]));
        assert_eq!(told["signed"], json!(true));
        let change = WebhookChange {
            session: None,
            url: None,
            events: None,
            headers: None,
            secret: Some(Some(Secret::new("hush"))),
            retry: None,
            active: None,
        };
        let told =
            document(&Operation::WebhookUpdate { webhook: WebhookId::from_bytes([1; 16]), within: None, change });
        assert!(!told.to_string().contains("hush"), "{told}");
    }
}
