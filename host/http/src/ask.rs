//! From a known caller's request to its reply: what is asked, whether it was asked before, and what the audit is told of a no.
//!
//! What is asked is read first, but what is wrong with it is told last: a request that was made before has its reply, whatever
//! has become of the session that it names. Whoever was told that a session is deleted is told so again.
//!
//! A refusal leaves its line in the audit where it is found, if that is in a commit. All others leave it here.

use std::sync::Arc;

use hyper::StatusCode;
use portcullis_core::{
    AuditOutcome, Capability, Denial, OperationKind, OrgId, Principal, PrincipalKind, RequestId, Secret, Session,
    Target,
};
use portcullis_service::{Call, Caller, Deed, GivenToken, Keyed, Noted, RequestKey, ServiceError, SessionName};

use crate::asked::{Answer, Asked};
use crate::dialect::{self, Dialect, Fault, Problem, Told};
use crate::dispatch::{self, Asking};
use crate::exchange::{Incoming, Reply};
use crate::routes::{EncodeContext, Route, SessionBy};
use crate::{Front, afterwards, keyed};

/// A request of a known caller.
struct Heard<'a> {
    front: &'a Arc<Front>,
    route: &'a Route,
    principal: Principal,
    incoming: Incoming,
    request: RequestId,
    /// The session that it names otherwise than by its id.
    named: Named,
    /// What is asked, as far as it is known.
    kind: OperationKind,
    target: Target,
    /// Whether the audit says already how it ended.
    noted: Noted,
}

/// What a request comes to.
enum Answered {
    /// It was made before, under the same idempotency key.
    Before(Reply),
    /// It was done, and may have taken its key.
    Now { answer: Box<Answer>, claim: Option<Arc<RequestKey>>, is_told_late: bool },
}

/// Why a known caller's request is not done.
enum Wrong {
    Fault(Fault),
    Problem(Problem),
    Service(ServiceError),
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ServiceError> for Wrong {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

/// The session that a request names otherwise than by its id.
#[derive(Default)]
struct Named {
    /// Its name as the request gave it.
    said: String,
    /// The session as it was when the request came.
    found: Option<Arc<Session>>,
}

/// From a known caller's request to its reply.
pub(crate) async fn proceed(
    front: &Arc<Front>,
    route: &Route,
    principal: Principal,
    incoming: Incoming,
    request: RequestId,
    caller: Option<Caller>,
) -> Reply {
    let target = Target::org(principal.org);
    let (named, noted) = (Named::default(), Noted::default());
    let mut heard = Heard { front, route, principal, incoming, request, named, kind: route.operation, target, noted };
    let ended = match heard.ask(caller).await {
        Ok(Answered::Before(reply)) => return reply,
        Ok(Answered::Now { answer, claim, is_told_late }) => heard.tell(*answer, claim, is_told_late).await,
        Err(wrong) => Err(wrong),
    };
    match ended {
        Ok(reply) => reply,
        Err(wrong) => {
            if let Some(outcome) = heard.unwritten(&wrong) {
                let Heard { principal, kind, target, .. } = &heard;
                Box::pin(front.service.audit_no(principal, *kind, *target, Some(request), outcome)).await;
            }
            heard.refuse(wrong)
        }
    }
}

impl Heard<'_> {
    async fn ask(&mut self, caller: Option<Caller>) -> Result<Answered, Wrong> {
        let (front, route) = (self.front, self.route);
        check_query(route, &self.incoming)?;
        let org = match &self.incoming.ticket {
            Some(ticket) => ticket.org,
            None => dispatch::acting_org(&self.principal, self.incoming.query("org"))?,
        };
        self.target = Target::org(org);
        let mut asked = self.read(org);
        if let Ok(asked) = &asked {
            self.kind = asked.kind().unwrap_or(route.operation);
            self.target = dispatch::target(org, &self.principal, asked);
        }
        let (mut claim, mut done) = (None, None);
        if let Some(key) = keyed::key(route, &self.incoming)? {
            let digest = keyed::digest(route, &self.incoming, &self.principal);
            match front.service.keyed(self.principal.org, &key, digest)? {
                Keyed::Again(reply) => {
                    return keyed::again(&reply).map(Answered::Before).ok_or(Wrong::Fault(Fault::Internal));
                }
                Keyed::First(request) => claim = Some(request),
                Keyed::Unkept(request, deed) => {
                    claim = Some(request);
                    asked = asked.or_else(|wrong| self.read_again(&deed, wrong));
                    done = Some(deed);
                }
            }
        }
        let asked = asked?;
        let call = Call {
            request: Some(self.request),
            dry_run: self.incoming.flag("dry_run"),
            caller,
            confirmation: confirmation(&self.incoming)?,
            claim: claim.clone(),
            noted: self.noted.clone(),
        };
        let (principal, kind, paid) = (self.principal.clone(), route.operation, route.paid);
        let asking = Asking { principal, kind, paid, org, request: self.request, call };
        let answer = match &done {
            None => dispatch::answer(front, asking, asked).await?,
            Some(deed) => Box::pin(afterwards::answer(front, asking, asked, deed)).await?,
        };
        Ok(Answered::Now { answer: Box::new(answer), claim, is_told_late: done.is_some() })
    }

    /// What is asked.
    fn read(&mut self, org: OrgId) -> Result<Asked, Wrong> {
        locate(self.front, self.route, &self.principal, org, &mut self.incoming, &mut self.named)?;
        self.target.session = self.incoming.session;
        let asked = (self.route.decode)(&self.incoming).map_err(Wrong::Problem)?;
        Ok(asked.seen_from(self.principal.session_scope))
    }

    /// The same of a request that was done before. The session that it named may be gone; its id is known all the same.
    fn read_again(&mut self, deed: &Deed, wrong: Wrong) -> Result<Asked, Wrong> {
        match (&wrong, deed.session) {
            (Wrong::Fault(Fault::UnknownSession { .. }), Some(session)) => {
                self.incoming.session = Some(session);
                (self.route.decode)(&self.incoming).map_err(Wrong::Problem)
            }
            _ => Err(wrong),
        }
    }

    /// The reply, which is kept if the request has taken its key.
    async fn tell(&self, answer: Answer, claim: Option<Arc<RequestKey>>, is_told_late: bool) -> Result<Reply, Wrong> {
        let Self { front, route, named, .. } = self;
        let about = claim.as_ref().map(|claim| keyed::about(route, &answer, self.target.org, claim.org()));
        let decision = answer.decision();
        let context = EncodeContext {
            gateway_id: &front.config.gateway_id,
            simulated: front.service.is_simulated(),
            public_url: front.public_url(),
            now: front.service.now(),
            session: &named.said,
            found: named.found.as_deref(),
            request: &self.incoming,
            plan_active: named.found.as_ref().is_some_and(|found| front.service.has_active_plan(found.org)),
            may_manage: self.principal.capabilities.allow(Capability::Manage),
        };
        let reply = match answer {
            Answer::DryRun(verdict) => Reply::json(StatusCode::OK, &dialect::dry_run(&verdict)),
            answer => (route.encode)(&context, answer),
        };
        let reply = match decision {
            Some(decision) => reply.with("x-decision-id", &decision.to_string()),
            None => reply,
        };
        let is_shown_once = keyed::is_shown_once(route, &reply);
        if let (Some(claim), Some(about)) = (claim, about)
            && let Some(kept) = if is_shown_once { Some(Vec::new()) } else { keyed::kept(&reply) }
            && let Err(error) = Box::pin(front.service.keep_reply(&claim, about, kept)).await
        {
            // It was done, and whoever asks again is told what came of it.
            let error: &dyn std::error::Error = &error;
            tracing::error!(request = %self.request, error, "a reply was not kept");
        }
        // Whether the first one to ask was shown it, nobody knows.
        match (is_told_late, is_shown_once) {
            (true, true) => Err(ServiceError::AlreadyShown.into()),
            (true, false) => Ok(keyed::told_late(reply)),
            (false, _) => Ok(reply),
        }
    }

    /// What the audit is to say of a request that came to nothing, if nobody has written it yet.
    ///
    /// What is no operation at all (no such query, a body that cannot be read) leaves no line, and neither does what nobody has
    /// judged: there was no place for it, or no store.
    fn unwritten(&self, wrong: &Wrong) -> Option<AuditOutcome> {
        let denied = |denial: Denial| Some(AuditOutcome::Denied { code: denial.code().to_owned() });
        let code = match wrong {
            // To whoever is bound to one session, the names of others say nothing: that is a denial, of reads as well.
            Wrong::Fault(Fault::Unauthenticated) => return denied(Denial::Unauthenticated),
            Wrong::Fault(Fault::UnknownSession { .. }) if self.principal.session_scope.is_some() => {
                return denied(Denial::Hidden);
            }
            Wrong::Fault(Fault::UnknownSession { .. }) => "not_found",
            Wrong::Problem(problem) if problem.status == StatusCode::NOT_FOUND => "not_found",
            // A denial has its line by now.
            Wrong::Service(
                ServiceError::Denied(_) | ServiceError::DryRun | ServiceError::Busy { .. } | ServiceError::Store(_),
            )
            | Wrong::Fault(_)
            | Wrong::Problem(_) => return None,
            Wrong::Service(error) => error.code(),
        };
        // What leaves no line when it is done leaves none when it is not.
        let counts = self.kind.row().mutates
            && !matches!(self.kind, OperationKind::Simulate | OperationKind::RealtimeTicket)
            && !self.incoming.flag("dry_run");
        (counts && !self.noted.is_set()).then(|| AuditOutcome::Refused { code: code.to_owned() })
    }

    fn refuse(&self, wrong: Wrong) -> Reply {
        let (dialect, named) = (self.route.dialect, &self.named);
        let error = match wrong {
            Wrong::Fault(fault) => return dialect.fault(&fault),
            Wrong::Problem(problem) => return dialect.problem(&problem),
            Wrong::Service(error) => error,
        };
        if let ServiceError::Store(_) = error {
            let error: &dyn std::error::Error = &error;
            let operation = self.route.operation.name();
            tracing::error!(request = %self.request, operation, error, "an operation failed");
        }
        let told = Told {
            session: &named.said,
            found: named.found.as_deref(),
            request: &self.incoming,
            path: self.route.path,
        };
        let reply = (self.route.refuse)(&error, &told);
        match error.decision() {
            Some(decision) => reply.with("x-decision-id", &decision.to_string()),
            None => reply,
        }
    }
}

/// Finds the session that a request names, in dialects whose names are not its ids.
fn locate(
    front: &Front,
    route: &Route,
    principal: &Principal,
    org: OrgId,
    incoming: &mut Incoming,
    named: &mut Named,
) -> Result<(), Fault> {
    let said = &mut named.said;
    let found = match route.session {
        SessionBy::Id => return Ok(()),
        SessionBy::InstanceId(read) => {
            *said = read(incoming)?;
            front.service.find_session(org, SessionName::InstanceId(said))
        }
        SessionBy::InstanceName => {
            incoming.param("instance").clone_into(said);
            front.service.find_session(org, SessionName::InstanceName(said))
        }
    };
    let id = found.as_ref().map(|session| session.id);
    if principal.session_scope.is_some() && id != principal.session_scope {
        // To whoever is bound to one session, no other is there; the token of another session is no credential here at all.
        let token = principal.kind == PrincipalKind::SessionToken;
        return Err(if token { Fault::Unauthenticated } else { Fault::UnknownSession { name: said.clone() } });
    }
    incoming.session = Some(id.ok_or_else(|| Fault::UnknownSession { name: said.clone() })?);
    named.found = found;
    Ok(())
}

/// The query parameters that some route of the native dialect knows.
const QUERY: [&str; 12] = [
    "answer",
    "async",
    "class",
    "confirmation",
    "cursor",
    "dry_run",
    "events",
    "format",
    "limit",
    "org",
    "session",
    "wait",
];

/// Whoever misspells `dry_run` must not have it done in earnest: a route of the native dialect that changes something takes only what it knows.
/// Clients of the other dialects send parameters that were never documented, so there only `dry_run` itself is looked at.
fn check_query(route: &Route, incoming: &Incoming) -> Result<(), Fault> {
    let row = route.operation.row();
    if !row.mutates {
        return Ok(());
    }
    let unknown = incoming.query.iter().find(|(name, _)| !QUERY.contains(&name.as_str()));
    if let Some((unknown, _)) = unknown.filter(|_| route.dialect == Dialect::Router) {
        return Err(Fault::Query(format!("unexpected query parameter {unknown:?}")));
    }
    if incoming.query.iter().filter(|(name, _)| name == "dry_run").count() > 1 {
        return Err(Fault::Query("dry_run must be given once".to_owned()));
    }
    match incoming.query("dry_run") {
        None | Some("false" | "0") => Ok(()),
        Some(_) if !incoming.flag("dry_run") => Err(Fault::Query("dry_run must be true or false".to_owned())),
        Some(_) => Ok(()),
    }
}

/// The confirmation that a request comes with: a token and what was typed, in the query or in headers, the same in every dialect.
fn confirmation(incoming: &Incoming) -> Result<Option<GivenToken>, Fault> {
    let given = |name: &str, header: &str| {
        let header = incoming.headers.get(header).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        incoming.query(name).or(header).map(str::to_owned)
    };
    let (token, answer) = (given("confirmation", "portcullis-confirmation"), given("answer", "portcullis-answer"));
    let longer = |text: &Option<String>, max: usize| text.as_ref().is_some_and(|text| text.chars().count() > max);
    if longer(&token, 128) || longer(&answer, 1024) {
        return Err(Fault::Query("a confirmation has at most 128 characters, and an answer 1024".to_owned()));
    }
    Ok(token.map(|token| GivenToken { token: Secret::new(token), answer }))
}
