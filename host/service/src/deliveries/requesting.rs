//! Attempts at the requests of plugins.
//!
//! Between the commit of a request and an attempt much may have changed, so
//! every attempt asks anew: whether its binding still works, still allows that host, and what its secrets are.
//!
//! | meanwhile | what becomes of the request |
//! |---|---|
//! | the binding is off, only monitors or is suspended | it waits, however long |
//! | the binding is gone, or does not allow requests or the host any more | it is given up |
//! | a secret is gone, or the operator's guard has changed | that attempt has failed, and there will be others |
//! | the plugin is gone, or the session that it was about | it goes with them |

use std::time::Duration;

use portcullis_core::{Delivery, EventFormat, EventId, Grant, HostRule, Mode, OrgId, PluginId, PluginRequest};
use portcullis_net::{Method, OutboundRequest};
use portcullis_policy::Link;
use portcullis_webhook as webhook;

use super::DeliveryConfig;
use super::attempt::{Composed, header, limits};
use crate::follow::AWAY;
use crate::requests::{IDEMPOTENCY_KEY, PLUGIN};
use crate::{Service, ServiceError};

/// What is to be done about a request now.
pub(super) enum Composing {
    /// It is tried.
    Ready(Box<Composed>),
    /// It waits.
    Later(Duration),
    /// It is given up, for a reason with a stable word.
    Never(&'static str),
}

impl Service {
    /// A plugin's request as it is sent now, or why it is not.
    pub(super) fn compose_request(
        &self,
        config: &DeliveryConfig,
        org: OrgId,
        known: &Delivery,
        request: &PluginRequest,
    ) -> Result<Composing, ServiceError> {
        let epoch = self.chains.epoch();
        let snapshot = self.snapshot()?;
        let chain = self.chains.of(org, &snapshot, epoch)?;
        let own: Vec<&Link> = chain.iter().filter(|link| link.binding.id == request.binding).collect();
        if own.is_empty() {
            // A binding that is there and not in the chain is off.
            let is_there = snapshot.binding(org, request.binding)?.is_some()
                || snapshot.binding(OrgId::PLATFORM, request.binding)?.is_some();
            return Ok(if is_there { Composing::Later(AWAY) } else { Composing::Never("unbound") });
        }
        let works = |link: &&Link| link.binding.mode == Mode::Enforce && !link.suspended;
        if !own.iter().any(works) {
            return Ok(Composing::Later(AWAY));
        }
        // Which of its versions has sent it is not known, so what either of them may counts.
        let may = |grant| own.iter().any(|link| link.binding.grants.contains(&grant));
        if !may(Grant::Http) || (!request.secret_headers.is_empty() && !may(Grant::Secrets)) {
            return Ok(Composing::Never("not_granted"));
        }
        let mut ready = Composed {
            id: known.id,
            at: known.at,
            format: EventFormat::Standard,
            request: Err("invalid_request"),
            limits: {
                let webhook::Timeouts { connect, whole } = webhook::timeouts(EventFormat::Standard);
                limits(connect, whole.min(config.timeout))
            },
        };
        let host = match config.outbound.host_of(&request.url) {
            Ok(host) => host,
            Err(error) => {
                ready.request = Err(error.code());
                return Ok(Composing::Ready(Box::new(ready)));
            }
        };
        let binding = &own[0].binding;
        if !binding.http_hosts.iter().any(|rule| HostRule::allows(rule, &host)) {
            return Ok(Composing::Never("host_not_allowed"));
        }
        let mut secrets = Vec::with_capacity(request.secret_headers.len());
        for (name, secret) in &request.secret_headers {
            match snapshot.secret(binding.org, binding.plugin, secret)? {
                Some(secret) => secrets.push((name, secret)),
                None => {
                    ready.request = Err("no_secret");
                    return Ok(Composing::Ready(Box::new(ready)));
                }
            }
        }
        let values = secrets.iter().map(|(name, secret)| (name.as_str(), secret.reveal()));
        ready.request = outbound_request(request, values, known.id, binding.plugin);
        if !secrets.is_empty() {
            // A receiver may answer with what it was told, and secrets are shown to nobody.
            ready.limits.body = 0;
        }
        Ok(Composing::Ready(Box::new(ready)))
    }
}

fn outbound_request<'a>(
    request: &'a PluginRequest,
    secrets: impl Iterator<Item = (&'a str, &'a str)>,
    id: EventId,
    plugin: PluginId,
) -> Result<OutboundRequest, &'static str> {
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|_no_method| "invalid_request")?;
    let mut headers = Vec::with_capacity(request.headers.len() + request.secret_headers.len() + 2);
    for (name, value) in request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(secrets) {
        headers.push(header(name, value)?);
    }
    headers.push(header(IDEMPOTENCY_KEY, &id.to_string())?);
    headers.push(header(PLUGIN, &plugin.to_string())?);
    Ok(OutboundRequest { method, url: request.url.clone(), headers, body: request.body.clone().into() })
}
