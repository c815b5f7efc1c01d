//! From a question to an answer: the permit, then the service. The only module that calls it.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::lifecycle::{FIRST_CODE_TIMEOUT, UNLINK_TIMEOUT};
use portcullis_core::operation::{WhenPairing, WhenUnpaired};
use portcullis_core::verdict::Allowance;
use portcullis_core::{
    Denial, Operation, OperationKind, OrgId, Permit, Principal, PrincipalKind, Refusal, RequestId, Secret, Session,
    SessionId, Status, Target, Unlink, Verdict,
};
use portcullis_service::{BindingState, Call, Done, Outcome, Page, SendCall, ServiceError, Upload, Waited};
use tokio::time::Instant;

use crate::asked::{Answer, Asked, Component, Move, SessionFilter, WaitFor};
use crate::live::Replay;
use crate::places::Seat;
use crate::{Front, live};

/// More sessions than any organisation has; dialects without pages list them all.
const ALL_SESSIONS: usize = 100_000;

/// How long the answer to a logout waits for WhatsApp: as long as the engine does, and a moment to write it down.
const LOGOUT_WAIT: Duration = UNLINK_TIMEOUT.saturating_add(Duration::from_secs(2));

/// Who asks, and how.
pub(crate) struct Asking {
    pub(crate) principal: Principal,
    pub(crate) kind: OperationKind,
    /// Whether only organisations with an active plan may ask.
    pub(crate) paid: bool,
    /// The organisation in which to act: the caller's own, unless another is named.
    pub(crate) org: OrgId,
    pub(crate) request: RequestId,
    /// How an operation is asked for.
    pub(crate) call: Call,
}

/// Permits and answers a question.
pub(crate) async fn answer(front: &Arc<Front>, asking: Asking, asked: Asked) -> Result<Answer, ServiceError> {
    let row = asked.kind().unwrap_or(asking.kind).row();
    // What passes policy has an answer of its own to a dry run.
    let is_tried = asking.call.dry_run && row.mutates && !row.hookable;
    match act(front, asking, asked).await {
        // Of what would have changed nothing there is no commit that could have stopped it.
        Err(ServiceError::DryRun) => Ok(Answer::DryRun(Verdict::Allowed(Allowance::default()))),
        Ok(_unchanged) if is_tried => Ok(Answer::DryRun(Verdict::Allowed(Allowance::default()))),
        answered => answered,
    }
}

async fn act(front: &Arc<Front>, asking: Asking, asked: Asked) -> Result<Answer, ServiceError> {
    let service = &front.service;
    let target = target(asking.org, &asking.principal, &asked);
    if target.org == OrgId::PLATFORM && needs_org(asking.kind) && asking.principal.is_operator() {
        let message = "the operator names the organisation to act in: add ?org=org_… to the request".to_owned();
        return Err(ServiceError::Invalid { field: "org", message });
    }
    let kind = asked.kind().unwrap_or(asking.kind);
    let permit = service.permit(&asking.principal, kind, target, Some(asking.request)).await?;
    if asking.paid && !service.has_active_plan(target.org) {
        return Err(ServiceError::Subscription { what: "this" });
    }
    let call = asking.call.clone();
    Ok(match asked {
        Asked::Operate { operation, then } => {
            // The pipeline's state is large; a read, which is most requests, must not carry it.
            let done = Box::pin(service.execute(&permit, operation, call)).await?;
            Box::pin(wait(front, &permit, done, then)).await
        }
        Asked::PairOrStart { session, phone, then } => {
            Box::pin(pair_or_start(front, &asking, permit, session, phone, then)).await?
        }
        Asked::Session { .. } => Answer::Session(service.session(&permit)?),
        // Who is bound to one session lists that one.
        Asked::Sessions { .. } if asking.principal.session_scope.is_some() => {
            let entries = service.session(&permit).into_iter().collect();
            Answer::Sessions(Page { entries, more: false })
        }
        Asked::Sessions { before, limit } => Answer::Sessions(service.sessions(&permit, before, limit)),
        Asked::AllSessions { before, limit } => Answer::Sessions(service.all_sessions(&permit, before, limit)?),
        Asked::FindSessions(filter) => Answer::Found(find(front, &permit, &filter)?),
        Asked::Nothing => Answer::Permitted,
        Asked::Send { send, key, queue } => {
            let call = SendCall { call, key, queue };
            Answer::Dispatched(Box::pin(service.send(&permit, send, call)).await?)
        }
        Asked::Message { message, .. } => Answer::Message(Box::new(service.message(&permit, message)?)),
        Asked::Webhooks { of } => {
            let mut webhooks = service.webhooks(&permit)?;
            if let Some((_, format)) = of {
                webhooks.retain(|webhook| webhook.spec.format == format);
            }
            Answer::Webhooks(webhooks)
        }
        Asked::Webhook { webhook } => {
            let found = service.webhook(&permit, webhook)?;
            Answer::Webhook(Box::new(found), service.webhook_health(&permit, webhook)?)
        }
        Asked::Deliveries { webhook, filter, before, limit } => {
            Answer::Deliveries(service.deliveries(&permit, webhook, filter, before, limit)?)
        }
        Asked::Delivery { webhook, delivery } => {
            Answer::Delivery(Box::new(service.delivery(&permit, webhook, delivery)?))
        }
        Asked::TestWebhook { webhook } => {
            let operation = Operation::WebhookTest { webhook, within: target.session };
            match Box::pin(service.execute(&permit, operation, call)).await?.outcome {
                Outcome::DryRun(verdict) => Answer::DryRun(verdict),
                Outcome::Tested(event) => {
                    Answer::Tested { event, delivery: service.test_delivery(target.org, webhook, event)? }
                }
                _ => return Err(ServiceError::NotFound("webhook")),
            }
        }
        Asked::Ticket(mut wanted) => {
            wanted.session = target.session;
            if wanted.session.is_some() {
                // The stream of a session that is not there would stay silent for ever.
                service.session(&permit)?;
            }
            if call.dry_run {
                return Err(ServiceError::DryRun);
            }
            Answer::Ticket(front.tickets.issue(&permit, wanted, service.now())?)
        }
        Asked::Follow(wanted) => {
            if target.session.is_some() {
                service.session(&permit)?;
            }
            Answer::Followed(match front.streams.enter(target.org, Seat::of(&permit.principal().kind)) {
                Ok(place) => Ok(Box::new(live::open(front, permit, &wanted, Replay::All, place)?)),
                Err(full) => Err(full),
            })
        }
        Asked::Backup => {
            let backup = Box::pin(service.back_up(&permit, &call)).await?;
            Answer::Backup(backup, Instant::now() + front.config.backup_timeout)
        }
        Asked::BackupKeys => Answer::BackupKeys(Box::pin(service.back_up_keys(&permit, &call)).await?),
        Asked::RotateMasterKey => Answer::MasterKeyRotated(Box::pin(service.rotate_master_key(&permit, &call)).await?),
        Asked::Metrics => Answer::Metrics(front.meters.text(service)),
        Asked::RatePolicy { session } => {
            let found = service.session(&permit)?;
            Answer::RatePolicy {
                current: service.rate_policy_of(&found).clone(),
                policies: service.rate_policies(),
                used: service.sends(target.org, session)?,
                plan_active: service.has_active_plan(target.org),
                session: found,
            }
        }
        Asked::Simulate { act, .. } => {
            Box::pin(service.simulate(&permit, act, &call)).await?;
            Answer::Simulated
        }
        Asked::CreateOrg(new) => Answer::OrgCreated(Box::pin(service.create_org(&permit, new, &call)).await?),
        Asked::Orgs { after, limit } => Answer::Orgs(service.list_orgs(&permit, after, limit)?),
        Asked::Org { .. } => Answer::Org(service.read_org(&permit)?),
        Asked::UpdateOrg { change, .. } => Answer::Org(Box::pin(service.update_org(&permit, change, &call)).await?),
        Asked::EraseOrg { .. } => {
            Box::pin(service.erase_org(&permit, &call)).await?;
            Answer::OrgErased
        }
        Asked::CreateKey { key, .. } => Answer::KeyCreated(Box::pin(service.create_key(&permit, key, &call)).await?),
        Asked::Keys { .. } => Answer::Keys(service.list_keys(&permit)?),
        Asked::RevokeKey { key, .. } => {
            Box::pin(service.revoke_key(&permit, key, &call)).await?;
            Answer::KeyRevoked
        }
        Asked::UploadPlugin { component, class, signature, wait } => {
            let upload = Upload { bytes: bytes(front, component)?, class, signature };
            Box::pin(take(front, permit, upload, wait, call)).await?
        }
        Asked::PluginLog { plugin } => Answer::PluginLog(service.plugin_log(&permit, plugin)?),
        Asked::PluginRequests { plugin, query } => {
            Answer::PluginRequests(service.plugin_requests(&permit, plugin, query)?)
        }
        Asked::Secrets { plugin } => Answer::Secrets(service.secrets(&permit, plugin)?),
        Asked::PutSecret { plugin, name, value } => {
            Box::pin(service.put_secret(&permit, plugin, name, value, &call)).await?;
            Answer::SecretPut
        }
        Asked::DeleteSecret { plugin, name } => {
            Box::pin(service.delete_secret(&permit, plugin, name, &call)).await?;
            Answer::SecretDeleted
        }
        Asked::Publishers => Answer::Publishers(service.publishers(&permit)?),
        Asked::CreatePublisher(new) => {
            Answer::PublisherCreated(Box::pin(service.create_publisher(&permit, new, &call)).await?)
        }
        Asked::DeletePublisher { publisher } => {
            Box::pin(service.delete_publisher(&permit, publisher, &call)).await?;
            Answer::PublisherDeleted
        }
        Asked::PluginRules => Answer::PluginRules(service.plugin_rules(&permit)?),
        Asked::RequireSignature { required } => {
            Answer::PluginRules(Box::pin(service.require_signature(&permit, required, &call)).await?)
        }
        Asked::Replay { plugin, replay } => {
            Answer::Replayed(Box::new(Box::pin(service.replay_plugin(&permit, plugin, replay)).await?))
        }
        Asked::Scan { plugin, scan } => {
            Answer::Scanned(Box::new(Box::pin(service.scan_plugin(&permit, plugin, scan)).await?))
        }
        Asked::Tell(fact) => Answer::Told(Box::pin(service.tell_fact(&permit, fact, &call)).await?),
        Asked::Catalogue => Answer::Catalogue(front.catalogue.iter().map(|entry| entry.name).collect()),
        Asked::Plugins => Answer::Plugins(service.list_plugins(&permit)?),
        Asked::PluginVersions { plugin } => Answer::PluginVersions(service.plugin_versions(&permit, plugin)?),
        Asked::DeletePlugin { plugin } => {
            administered(Box::pin(service.delete_plugin(&permit, plugin, call)).await?, Answer::PluginDeleted)
        }
        Asked::CreateBinding(new) => {
            let done = Box::pin(service.create_binding(&permit, *new, call)).await?;
            bound(front, &permit, done, Answer::BindingCreated)?
        }
        Asked::Bindings => Answer::Bindings(service.list_bindings(&permit)?),
        Asked::Binding { binding } => Answer::Binding(Box::new(service.binding(&permit, binding)?)),
        Asked::UpdateBinding { binding, change } => {
            let done = Box::pin(service.update_binding(&permit, binding, *change, call)).await?;
            bound(front, &permit, done, Answer::Binding)?
        }
        Asked::MoveBinding { binding, to } => {
            let done = match to {
                Move::Candidate => Box::pin(service.promote(&permit, binding, call)).await?,
                Move::Previous => Box::pin(service.roll_back(&permit, binding, call)).await?,
                Move::Resumed => Box::pin(service.resume(&permit, binding, call)).await?,
            };
            bound(front, &permit, done, Answer::Binding)?
        }
        Asked::DeleteBinding { binding } => {
            let done = Box::pin(service.delete_binding(&permit, binding, call)).await?;
            administered(done, Answer::BindingDeleted)
        }
        Asked::Decisions { query, before, limit } => {
            Answer::Decisions(service.decisions(&permit, &query, before, limit)?)
        }
        Asked::Decision { decision } => Answer::Decision(Box::new(service.decision(&permit, decision)?)),
        Asked::Audit { before, limit } => Answer::Audit(service.audit(&permit, before, limit)?),
        Asked::ExportAudit { after, limit } => {
            Answer::AuditExport(Box::new(service.export_audit(&permit, after, limit)?))
        }
        Asked::ExportSession { session } => {
            let webhooks = service.webhooks_of(&permit, session)?;
            let found = service.session(&permit)?;
            Answer::SessionExport {
                session: found,
                webhooks,
                export: Box::new(service.export_audit(&permit, 0, None)?),
            }
        }
        Asked::Receipt { session } => Answer::Receipt(Box::new(service.receipt(&permit, session)?)),
        Asked::ReceiptOfOrg { org } => Answer::Receipt(Box::new(service.receipt_of_org(&permit, org)?)),
    })
}

/// What a caller is shown of a binding that was made or changed.
fn bound(
    front: &Front,
    permit: &Permit,
    done: Done,
    answer: fn(Box<BindingState>) -> Answer,
) -> Result<Answer, ServiceError> {
    match done.outcome {
        Outcome::Bound(binding) => Ok(answer(Box::new(front.service.state_of(permit, binding)?))),
        Outcome::DryRun(verdict) => Ok(Answer::DryRun(verdict)),
        _ => Err(ServiceError::NotFound("binding")),
    }
}

/// What a caller is answered whose operation leaves nothing to show.
fn administered(done: Done, answer: Answer) -> Answer {
    match done.outcome {
        Outcome::DryRun(verdict) => Answer::DryRun(verdict),
        _ => answer,
    }
}

/// Whether an operation is about what only organisations have. Plugins, bindings, decisions and an audit the platform has, too.
fn needs_org(kind: OperationKind) -> bool {
    use OperationKind as Op;
    let of_org = matches!(
        kind,
        Op::SessionRead
            | Op::SecretRead
            | Op::MessageRead
            | Op::WebhookRead
            | Op::Simulate
            | Op::EventTell
            | Op::PluginReplay
            | Op::PluginScan
            | Op::PluginRulesUpdate
    );
    (kind.row().hookable && !kind.is_about_plugins()) || of_org
}

/// On what a question acts that somebody asks in an organisation.
pub(crate) fn target(org: OrgId, principal: &Principal, asked: &Asked) -> Target {
    match asked {
        Asked::Operate { operation, .. } => Target { org, session: operation.session() },
        Asked::Session { session }
        | Asked::PairOrStart { session, .. }
        | Asked::RatePolicy { session }
        | Asked::Message { session, .. }
        | Asked::ExportSession { session }
        | Asked::Simulate { session, .. } => Target::session(org, *session),
        Asked::Send { send, .. } => Target::session(org, send.session),
        Asked::Webhooks { of: Some((session, _)) } => Target::session(org, *session),
        // Who is bound to one session sees what hears of that one only.
        Asked::Webhooks { of: None }
        | Asked::Webhook { .. }
        | Asked::Deliveries { .. }
        | Asked::Delivery { .. }
        | Asked::TestWebhook { .. } => Target { org, session: principal.session_scope },
        // Who is bound to one session hears of that one.
        Asked::Ticket(wanted) | Asked::Follow(wanted) => {
            Target { org, session: wanted.session.or(principal.session_scope) }
        }
        Asked::Tell(fact) => Target { org, session: fact.session },
        Asked::FindSessions(_) => Target { org, session: principal.session_scope },
        Asked::Metrics | Asked::Backup | Asked::BackupKeys | Asked::RotateMasterKey | Asked::AllSessions { .. } => {
            Target::org(OrgId::PLATFORM)
        }
        Asked::Sessions { .. } => Target { org, session: principal.session_scope },
        Asked::Org { org }
        | Asked::UpdateOrg { org, .. }
        | Asked::EraseOrg { org }
        | Asked::CreateKey { org, .. }
        | Asked::Keys { org }
        | Asked::RevokeKey { org, .. } => Target::org(*org),
        // These are about organisations as such, which only the platform has.
        Asked::CreateOrg(_) | Asked::Orgs { .. } => Target::org(OrgId::PLATFORM),
        Asked::UploadPlugin { .. }
        | Asked::Catalogue
        | Asked::Nothing
        | Asked::Plugins
        | Asked::PluginVersions { .. }
        | Asked::DeletePlugin { .. }
        | Asked::PluginLog { .. }
        | Asked::PluginRequests { .. }
        | Asked::Secrets { .. }
        | Asked::PutSecret { .. }
        | Asked::DeleteSecret { .. }
        | Asked::Publishers
        | Asked::CreatePublisher(_)
        | Asked::DeletePublisher { .. }
        | Asked::PluginRules
        | Asked::Replay { .. }
        | Asked::Scan { .. }
        | Asked::RequireSignature { .. }
        | Asked::MoveBinding { .. }
        | Asked::CreateBinding(_)
        | Asked::Bindings
        | Asked::Binding { .. }
        | Asked::UpdateBinding { .. }
        | Asked::DeleteBinding { .. }
        | Asked::Decisions { .. }
        | Asked::Decision { .. }
        | Asked::ExportAudit { .. }
        | Asked::Receipt { .. }
        | Asked::ReceiptOfOrg { .. }
        | Asked::Audit { .. } => Target::org(org),
    }
}

/// All sessions that fit, as far as the caller may see them.
fn find(front: &Front, permit: &Permit, filter: &SessionFilter) -> Result<Vec<Arc<Session>>, ServiceError> {
    let mut found = match permit.target().session {
        Some(_) => vec![front.service.session(permit)?],
        None => front.service.sessions(permit, None, ALL_SESSIONS).entries,
    };
    found.retain(|session| match filter {
        SessionFilter::All => true,
        SessionFilter::InstanceName(name) => session.names.instance_name == *name,
        SessionFilter::Uuid(uuid) => session.names.uuid == *uuid,
        SessionFilter::Phone(phone) => {
            let linked = session.linked_device().map(portcullis_core::Device::phone);
            linked.or(session.expected_phone.as_deref()) == Some(phone)
        }
    });
    if found.is_empty() && permit.principal().kind == PrincipalKind::SessionToken {
        // A session's token opens no other session, whether there is one or not.
        return Err(Denial::Unauthenticated.into());
    }
    Ok(found)
}

/// Begins to pair by a code, or connects what is linked already.
async fn pair_or_start(
    front: &Front,
    asking: &Asking,
    permit: Permit,
    session: SessionId,
    phone: Secret,
    then: WaitFor,
) -> Result<Answer, ServiceError> {
    let (service, call) = (&front.service, asking.call.clone());
    let pair = Operation::SessionPairingCode { session, phone, when_pairing: WhenPairing::Switch };
    match service.execute(&permit, pair, call.clone()).await {
        Err(ServiceError::Refused(Refusal::AlreadyPaired)) => {
            let (kind, target) = (OperationKind::SessionStart, permit.target());
            let permit = service.permit(&asking.principal, kind, target, Some(asking.request)).await?;
            let start = Operation::SessionStart { session, when_unpaired: WhenUnpaired::Pair };
            Ok(wait(front, &permit, service.execute(&permit, start, call).await?, then).await)
        }
        done => Ok(wait(front, &permit, done?, then).await),
    }
}

/// Waits for what the dialect wants to answer with.
pub(crate) async fn wait(front: &Front, permit: &Permit, done: Done, then: WaitFor) -> Answer {
    let Some(session) = &done.session else { return Answer::Operated(done) };
    let (org, id, since) = (permit.target().org, session.id, session.generation);
    // What is shown may be older for a moment than what was just done.
    let now_or_later = move |session: &Session| session.generation >= since;
    let waited = match (then, &done.outcome) {
        (WaitFor::PairingCode(at_most), Outcome::Done | Outcome::Unchanged) => {
            debug_assert!(at_most <= FIRST_CODE_TIMEOUT, "nobody waits longer than the code may take");
            let reached = move |session: &Session| now_or_later(session) && has_code_or_never_will(session);
            front.service.wait_for(org, id, at_most, reached).await
        }
        // Deleting what is being deleted already answers at once.
        (WaitFor::Gone(at_most), Outcome::Done) => front.service.wait_for(org, id, at_most, |_| false).await,
        // What became of a logout is worth a wait: the phone may have to be told by hand.
        _ if permit.kind() == OperationKind::SessionLogout && is_unlinking(session) => {
            let reached = move |session: &Session| now_or_later(session) && !is_unlinking(session);
            front.service.wait_for(org, id, LOGOUT_WAIT, reached).await
        }
        _ => return Answer::Operated(done),
    };
    match waited {
        Waited::Gone if matches!(then, WaitFor::Gone(_)) => Answer::Gone(done.decision),
        Waited::Gone => Answer::Operated(Done { session: None, ..done }),
        Waited::Reached(session) | Waited::TimedOut(session) => {
            Answer::Operated(Done { session: Some(session), ..done })
        }
    }
}

fn is_unlinking(session: &Session) -> bool {
    matches!(session.status, Status::LoggedOut { unlink: Unlink::UnderWay, .. })
}

fn has_code_or_never_will(session: &Session) -> bool {
    !matches!(session.status, Status::Pairing { code: None, .. })
}

/// The bytes of a component, wherever it comes from.
fn bytes(front: &Front, component: Component) -> Result<Vec<u8>, ServiceError> {
    match component {
        Component::Bytes(bytes) => Ok(bytes),
        Component::Catalogue(name) => {
            let entry = front.catalogue.iter().find(|entry| entry.name == name);
            Ok(entry.ok_or(ServiceError::NotFound("plugin of this name in the catalogue"))?.component.to_vec())
        }
    }
}

async fn take(
    front: &Arc<Front>,
    permit: Permit,
    upload: Upload,
    wait: bool,
    call: Call,
) -> Result<Answer, ServiceError> {
    // Who only tries it wants to hear what came of it.
    if wait || call.dry_run {
        return match front.service.upload_plugin(&permit, upload, call).await?.outcome {
            Outcome::Uploaded(version, novelty) => Ok(Answer::Uploaded(version, novelty)),
            Outcome::DryRun(verdict) => Ok(Answer::DryRun(verdict)),
            _ => Err(ServiceError::NotFound("plugin")),
        };
    }
    let front = Arc::clone(front);
    tokio::spawn(async move { front.service.upload_in_background(&permit, upload, call).await });
    Ok(Answer::UploadBegun)
}

/// The organisation that a caller acts in: the operator may name any, everybody else has their own.
pub(crate) fn acting_org(principal: &Principal, named: Option<&str>) -> Result<OrgId, ServiceError> {
    match named {
        None | Some("") => Ok(principal.org),
        Some(text) => match text.parse() {
            Ok(org) if org == principal.org || principal.is_operator() => Ok(org),
            _ => Err(ServiceError::NotFound("organisation")),
        },
    }
}
