//! `portcullis plugin test`: asks a built component what its fixtures say, and compares.
//!
//! The calls are those of the gateway: the same runtime, the same bounds, a fresh instance for each. Only wall time is told and never judged,
//! because fuel is what ends a call in the gateway as well, and is the same on every machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_core::{Grant, KvChange, OrgId, PluginId, PluginRequest};
use portcullis_policy::{ReadsFrom, Rehearsal, Rehearsed, Said, Script};
use serde_json::{Value, json};

use super::args::Test;
use super::fixture::{self, Call, Expect, Fixture, FixtureError, without_nulls};
use super::inspect::thousands;
use super::offline::{self, Offline, Workshop};
use super::world::{self, World};
use super::{build, diff};
use crate::{Failure, terminal};

/// Why a test could not be run, or what came of it.
#[derive(Debug, thiserror::Error)]
enum TrialError {
    /// The project has no component.
    #[error("there is no component in {}; `portcullis plugin build` makes one", .0.display())]
    NotBuilt(PathBuf),
    /// There is more than one component.
    #[error("there are several components in {}; name the one to test", .0.display())]
    SeveralComponents(PathBuf),
    /// There is nothing to ask.
    #[error("there are no fixtures in {}; put one there, or say with --fixtures where they are", .0.display())]
    NoFixtures(PathBuf),
    /// The plugin took no part in the decision.
    #[error("{name} took no part in this decision; asked were {asked}")]
    NotAsked {
        /// The plugin.
        name: String,
        /// Who was.
        asked: String,
    },
    /// Not everything is as expected.
    #[error("{failed} of {all} fixtures are not as expected; --bless takes what the component answers as expected")]
    Failed {
        /// How many are not.
        failed: usize,
        /// Of how many.
        all: usize,
    },
}

/// What is tested against what.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) component: PathBuf,
    pub(super) fixtures: PathBuf,
    pub(super) bless: bool,
    pub(super) from_decision: Option<PathBuf>,
}

/// Runs the fixtures and says how each went.
pub(super) async fn test(arguments: &Test) -> Result<(), Failure> {
    let (component, beside) = component(&arguments.target)?;
    let trial = Trial {
        component,
        fixtures: arguments.fixtures.clone().unwrap_or(beside),
        bless: arguments.bless,
        from_decision: arguments.from_decision.clone(),
    };
    trial.run(Workshop::with_cache()?, &mut |line| terminal::say(line)).await
}

/// The component that is meant, and where its fixtures are unless it was said.
fn component(target: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    if !target.is_dir() {
        let folder = target.parent().unwrap_or_else(|| Path::new("."));
        let project = if folder.ends_with("dist") { folder.parent() } else { None };
        return Ok((target.to_owned(), project.unwrap_or(folder).join("fixtures")));
    }
    build::tools(target)?;
    let dist = target.join("dist");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dist).into_iter().flatten() {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "wasm") {
            found.push(file);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(file), true) => Ok((file, target.join("fixtures"))),
        (Some(_), false) => Err(TrialError::SeveralComponents(dist).into()),
        (None, _) => Err(TrialError::NotBuilt(dist).into()),
    }
}

impl Trial {
    /// Runs the fixtures; an error says how many are not as expected.
    pub(super) async fn run(&self, workshop: Workshop, say: &mut (dyn FnMut(&str) + Send)) -> Result<(), Failure> {
        let offline = offline::admit(super::read(&self.component)?, workshop).await?;
        let fixtures = match &self.from_decision {
            Some(file) => self.keep_decision(file, &offline.admitted.name)?,
            None => {
                fixture::read_all(&self.fixtures)?.into_iter().map(|(file, fixture)| (file, fixture, None)).collect()
            }
        };
        if fixtures.is_empty() {
            return Err(TrialError::NoFixtures(self.fixtures.clone()).into());
        }
        let mut failed = 0;
        for (file, fixture, then) in &fixtures {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let found = ask(&offline, fixture).await;
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    failed += 1;
                    say(&format!("FAIL     {name}\n{}", indented(&told(error.as_ref()))));
                    continue;
                }
            };
            let spent = spent(&offline, fixture.call, &found);
            let wrong = match (&fixture.expect, &then) {
                (Some(expect), _) => wrong(expect, &found),
                // The decision of the gateway is what there is to compare with.
                (None, Some(then)) => differs_from_then(then, &found),
                (None, None) => Some("nothing is expected of it\n".to_owned()),
            };
            match wrong {
                None if !self.bless => say(&format!("ok       {name}  {spent}")),
                _ if self.bless && found.unrecorded.is_none() => {
                    let blessed = Fixture { expect: Some(bless(fixture.expect.as_ref(), &found)), ..fixture.clone() };
                    let changed = blessed.expect != fixture.expect;
                    if changed {
                        fixture::write(file, &blessed)?;
                    }
                    say(&format!("{}  {name}  {spent}", if changed { "blessed" } else { "ok     " }));
                }
                wrong => {
                    failed += 1;
                    say(&format!("FAIL     {name}  {spent}\n{}", indented(&wrong.unwrap_or_default())));
                }
            }
            for line in &found.log {
                say(&format!("         log: {line}"));
            }
        }
        let all = fixtures.len();
        say(&format!("{} as expected, {failed} not", all - failed));
        if failed > 0 { Err(TrialError::Failed { failed, all }.into()) } else { Ok(()) }
    }

    /// Makes a fixture of what a plugin was asked in a decision, with the answer that it gave then.
    fn keep_decision(&self, file: &Path, name: &str) -> Result<Vec<(PathBuf, Fixture, Option<Value>)>, Failure> {
        let all = fixture::of_decision(file)?;
        let asked: Vec<_> = all.iter().map(|link| link.plugin.clone()).collect();
        let own: Vec<_> = all.into_iter().filter(|link| link.plugin == name).collect();
        if own.is_empty() {
            return Err(TrialError::NotAsked { name: name.to_owned(), asked: asked.join(", ") }.into());
        }
        std::fs::create_dir_all(&self.fixtures).map_err(|error| FixtureError::Write(self.fixtures.clone(), error))?;
        let mut kept = Vec::new();
        for (link, number) in own.into_iter().zip(1..) {
            let stem = if number == 1 { link.decision.clone() } else { format!("{}-{number}", link.decision) };
            let file = self.fixtures.join(format!("{stem}.json"));
            fixture::write(&file, &link.fixture)?;
            kept.push((file, link.fixture, Some(link.answer)));
        }
        Ok(kept)
    }
}

/// What a call came to.
struct Found {
    /// The answer in the contract's words.
    answer: Option<Value>,
    /// The answer in the words of the gateway's decisions.
    decision: Option<Value>,
    failure: Option<&'static str>,
    unrecorded: Option<String>,
    writes: BTreeMap<String, Value>,
    requests: Vec<Value>,
    log: Vec<String>,
    fuel: u64,
    micros: u64,
    memory: u64,
}

/// Asks the component.
async fn ask(offline: &Offline, fixture: &Fixture) -> Result<Found, Failure> {
    let context = || fixture.context();
    let question = match fixture.call {
        Call::Describe => Script::Describe,
        Call::Validate => Script::Validate { settings: fixture.settings_text() },
        Call::Before => Script::Before { context: context(), operation: fixture.operation()? },
        Call::After => {
            Script::After { context: context(), operation: fixture.operation()?, outcome: fixture.outcome() }
        }
        Call::OnEvent => Script::OnEvent { context: context(), event: fixture.event()? },
        Call::Fired => {
            let timer = fixture.timer()?;
            Script::Fired { context: context(), key: timer.key, payload: timer.payload }
        }
        Call::Limits => Script::Limits { context: context(), usage: fixture.usage() },
    };
    let reads = match &fixture.reads {
        Some(recorded) => ReadsFrom::Recorded(recorded.clone()),
        None => ReadsFrom::Live(Arc::new(World::of(fixture)?)),
    };
    let wanted = || offline.admitted.wants.iter().map(|want| want.grant).collect();
    let grants: Vec<Grant> = fixture.grants.clone().unwrap_or_else(wanted);
    let rehearsal = Rehearsal {
        digest: offline.admitted.digest,
        class: offline.class,
        org: OrgId::PLATFORM,
        owner: OrgId::PLATFORM,
        plugin: PluginId::from_bytes([0; 16]),
        grants: &grants,
        http_hosts: &fixture.http_hosts,
        question,
        reads,
    };
    let Rehearsed { result, answer, unrecorded, kv, requests, logs, fuel, micros, memory } =
        offline.runtime.rehearse(rehearsal).await?;
    let writes = kv.into_iter().filter_map(|access| match access.change {
        KvChange::Keep => None,
        KvChange::Put { value, .. } => Some((access.key, world::told(&value))),
        KvChange::Remove => Some((access.key, Value::Null)),
    });
    let answer = match &result {
        // What settings come to is a list of problems, whichever way it is told.
        Ok(Said::Problems(problems)) if problems.is_empty() => Some(json!("ok")),
        Ok(Said::Problems(problems)) => {
            let problem = |problem: &portcullis_policy::SettingsProblem| json!({ "field": problem.field, "message": problem.message });
            Some(json!({ "problems": problems.iter().map(problem).collect::<Vec<_>>() }))
        }
        _ => answer,
    };
    Ok(Found {
        answer,
        decision: match &result {
            Ok(Said::Decision(decision)) => Some(json!(decision)),
            _ => None,
        },
        failure: result.err().map(portcullis_core::PluginFailure::code),
        unrecorded,
        writes: writes.collect(),
        requests: requests.iter().map(|queued| request(&queued.request)).collect(),
        log: logs.into_iter().map(|(_, line)| line).collect(),
        fuel,
        micros,
        memory,
    })
}

/// A request as a fixture has it: what it does not have is left out.
fn request(request: &PluginRequest) -> Value {
    let pairs = |pairs: &[(String, String)]| if pairs.is_empty() { Value::Null } else { json!(pairs) };
    without_nulls(&json!({
        "method": request.method,
        "url": request.url,
        "headers": pairs(&request.headers),
        "secret-headers": pairs(&request.secret_headers),
        "body": if request.body.is_empty() { Value::Null } else { world::told(&request.body) },
    }))
}

/// What differs from what is expected; none if nothing does.
fn wrong(expect: &Expect, found: &Found) -> Option<String> {
    let mut wrong = String::new();
    if let Some(read) = &found.unrecorded {
        wrong.push_str(&format!("it reads what is not recorded, so its answer is not known: {read}\n"));
        return Some(wrong);
    }
    let mut compare = |what: &str, expected: &Value, found: &Value| {
        let (expected, found) = (without_nulls(expected), without_nulls(found));
        if expected != found {
            wrong.push_str(&format!("{what}:\n{}", diff::lines(&format!("{expected:#}"), &format!("{found:#}"))));
        }
    };
    if expect.answer.is_some() || expect.failure.is_some() {
        let side = |answer: Option<&Value>, failure: Option<&str>| match (failure, answer) {
            (Some(failure), _) => json!({ "failure": failure }),
            (None, answer) => answer.cloned().unwrap_or(Value::Null),
        };
        compare(
            "answer",
            &side(expect.answer.as_ref(), expect.failure.as_deref()),
            &side(found.answer.as_ref(), found.failure),
        );
    }
    if let Some(writes) = &expect.writes {
        // A key that is removed is told as null, which must not be taken for nothing.
        let shown = |writes: &BTreeMap<String, Value>| {
            let line = |(key, value): (&String, &Value)| {
                json!(if value.is_null() { format!("{key} is removed") } else { format!("{key} = {value}") })
            };
            writes.iter().map(line).collect::<Value>()
        };
        compare("writes", &shown(writes), &shown(&found.writes));
    }
    if let Some(requests) = &expect.requests {
        compare("requests", &json!(requests), &json!(found.requests));
    }
    if let Some(log) = &expect.log {
        compare("log", &json!(log), &json!(found.log));
    }
    if let Some(most) = expect.fuel_at_most.filter(|most| found.fuel > *most) {
        wrong.push_str(&format!("fuel: {} used and {} expected at most\n", thousands(found.fuel), thousands(most)));
    }
    Some(wrong).filter(|wrong| !wrong.is_empty())
}

/// What differs from the answer that the gateway recorded.
fn differs_from_then(then: &Value, found: &Found) -> Option<String> {
    if let Some(read) = &found.unrecorded {
        return Some(format!("it reads what is not recorded, so its answer is not known: {read}\n"));
    }
    let now = match (&found.decision, found.failure) {
        (Some(decision), _) => json!({ "decision": decision }),
        (None, failure) => json!({ "failure": failure }),
    };
    let (then, now) = (fixture::snake(&without_nulls(then)), fixture::snake(&without_nulls(&now)));
    (then != now).then(|| format!("answer, then and now:\n{}", diff::lines(&format!("{then:#}"), &format!("{now:#}"))))
}

/// What is to be expected from now on.
fn bless(expect: Option<&Expect>, found: &Found) -> Expect {
    let wants_writes = expect.is_some_and(|expect| expect.writes.is_some());
    let wants_requests = expect.is_some_and(|expect| expect.requests.is_some());
    let wants_log = expect.is_some_and(|expect| expect.log.is_some());
    Expect {
        answer: if found.failure.is_none() { found.answer.as_ref().map(without_nulls) } else { None },
        failure: found.failure.map(str::to_owned),
        writes: (wants_writes || !found.writes.is_empty()).then(|| found.writes.clone()),
        requests: (wants_requests || !found.requests.is_empty()).then(|| found.requests.clone()),
        log: wants_log.then(|| found.log.clone()),
        fuel_at_most: expect.and_then(|expect| expect.fuel_at_most).map(|most| most.max(found.fuel)),
    }
}

/// What a call took, with its share of what it may take.
fn spent(offline: &Offline, call: Call, found: &Found) -> String {
    let bounds = offline.bounds();
    let budget = match call {
        Call::Before | Call::Limits => bounds.gate_fuel,
        Call::Describe | Call::Validate | Call::After | Call::OnEvent | Call::Fired => bounds.background_fuel,
    };
    let tenths = |part: u64, whole: u64| {
        let tenths = part.saturating_mul(1000).div_ceil(whole.max(1));
        format!("{}.{} %", tenths / 10, tenths % 10)
    };
    let memory = u64::try_from(bounds.memory_bytes).unwrap_or(u64::MAX);
    format!(
        "fuel {} ({}), memory {} ({}), {} µs",
        thousands(found.fuel),
        tenths(found.fuel, budget),
        thousands(found.memory),
        tenths(found.memory, memory),
        thousands(found.micros)
    )
}

fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("because: {error}\n"));
        cause = error.source();
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("         {line}")).collect::<Vec<_>>().join("\n")
}
