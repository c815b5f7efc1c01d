//! A sequence, played to the service and to the model, and made small if they disagree.

use std::fmt::Write;
use std::sync::Arc;

use portcullis_policy::Runtime;

use crate::gateway::Gateway;
use crate::plain::Model;
use crate::sight::Sight;
use crate::steps::{Ask, Caller, MINUTE, Step, sequence};

/// Where the two disagree.
pub(crate) struct Mismatch {
    /// How many steps were played, the last one with it.
    steps: usize,
    differences: String,
}

/// Plays a sequence, and takes everything away that is left of it.
pub(crate) async fn play(gateway: &mut Gateway, seed: u64, steps: &[Step]) -> Result<(), Mismatch> {
    gateway.begin(seed).await;
    let mut model = Model::default();
    for (index, step) in steps.iter().enumerate() {
        Box::pin(self::step(gateway, &mut model, *step))
            .await
            .map_err(|differences| Mismatch { steps: index + 1, differences })?;
    }
    let end = |differences| Mismatch {
        steps: steps.len(),
        differences: format!("    while it is cleared away\n{differences}"),
    };
    while !model.bound.is_empty() {
        model.unbind(0);
        gateway.unbind(0).await;
    }
    for session in 0..model.sessions.len() {
        let delete = Ask::Delete { token: None };
        model.ask(Caller::Owner, Some(session), delete);
        gateway.ask(Caller::Owner, Some(session), delete, None).await;
    }
    Box::pin(step(gateway, &mut model, Step::Pass(MINUTE))).await.map_err(end)?;
    match model.alive() {
        0 => Ok(()),
        left => Err(end(format!("    {left} sessions are left that should be gone\n"))),
    }
}

/// Plays one step; answers where the two differ after it.
async fn step(gateway: &mut Gateway, model: &mut Model, step: Step) -> Result<(), String> {
    let sessions = model.sessions.len();
    let of = |session: u8| usize::from(session).checked_rem(sessions);
    let mut possible = Vec::new();
    let mut answer = String::new();
    match step {
        Step::Ask(caller, session, ask) => {
            let Some((session, token)) = subject(model, session, ask) else { return Ok(()) };
            if caller == Caller::Holder && sessions == 0 {
                return Ok(());
            }
            let expected = model.ask(caller, session, ask);
            answer = gateway.ask(caller, session, ask, token).await;
            possible.push((model.clone(), expected));
        }
        Step::Killed(session, ask, turns) => {
            let Some((session, token)) = subject(model, session, ask) else { return Ok(()) };
            Box::pin(gateway.kill(session, ask, token, turns)).await;
            gateway.find_new();
            possible = after_kill(model, session, ask).into_iter().map(|model| (model, String::new())).collect();
        }
        Step::KilledWorking(turns) => {
            Box::pin(gateway.kill_working(turns)).await;
            let mut all = perhaps_untold(model, model.half_done());
            all.iter_mut().for_each(|model| model.crash(0));
            possible = all.into_iter().map(|model| (model, String::new())).collect();
        }
        Step::Crash(away) => {
            gateway.crash(away).await;
            model.crash(away);
        }
        Step::Act(session, act) => {
            let Some(session) = of(session) else { return Ok(()) };
            answer = gateway.act(session, act).await;
            let now = model.now;
            let expected = match () {
                () if model.is_gone(session) => "not_found",
                () if model.sessions[session].phone.act(act, now) => "done",
                () => "simulator",
            };
            possible.push((model.clone(), expected.to_owned()));
        }
        Step::Tell(session, back, fact) => {
            let Some(session) = of(session) else { return Ok(()) };
            let it = &mut model.sessions[session];
            let run = it.face.runs.saturating_sub(back.into());
            gateway.tell(session, run, fact);
            it.phone.whisper(run, fact);
        }
        Step::Bind(rule) if model.has(rule) => return Ok(()),
        Step::Bind(rule) => {
            gateway.bind(rule).await;
            model.bind(rule);
        }
        Step::Unbind(which) => {
            let Some(which) = usize::from(which).checked_rem(model.bound.len()) else { return Ok(()) };
            gateway.unbind(which).await;
            model.unbind(which);
        }
        Step::Settle => {
            gateway.world.settle().await;
            model.settle();
        }
        Step::Pass(time) => {
            gateway.world.pass(std::time::Duration::from_millis(time)).await;
            model.pass(time);
        }
    }
    if possible.is_empty() {
        possible.push((model.clone(), String::new()));
    }
    let seen = gateway.look(answer).await;
    let mut differences = String::new();
    for (mut then, answer) in possible {
        let expected = Sight::of_model(&mut then, answer);
        if seen == expected {
            *model = then;
            gateway.lose_tokens(model.tokens.len());
            return Ok(());
        }
        differences = seen.differences(&expected);
    }
    Err(differences)
}

/// What an operation is about: a session, unless it makes one, and the token that is given with it; none if there is no session.
fn subject(model: &Model, session: u8, ask: Ask) -> Option<(Option<usize>, Option<usize>)> {
    let token = match ask {
        Ask::Create { .. } => return Some((None, None)),
        Ask::Delete { token: Some((which, _)) } if !model.tokens.is_empty() => Some(model.token(which)),
        _ => None,
    };
    let session = usize::from(session).checked_rem(model.sessions.len())?;
    Some((Some(session), token))
}

/// What can be found after a process died at something: that it was never asked for, that it was done, or that it was begun.
fn after_kill(model: &Model, session: Option<usize>, ask: Ask) -> Vec<Model> {
    let mut done = model.clone();
    done.ask(Caller::Owner, session, ask);
    // Nobody has heard of the token with which they were asked back.
    done.tokens.iter_mut().skip(model.tokens.len()).for_each(|token| token.known = false);
    let mut all = vec![model.clone(), done.clone()];
    if let (Ask::Send { key }, Some(session)) = (ask, session)
        && done.sessions[session].sent.len() > model.sessions[session].sent.len()
    {
        done.interrupt(session, key);
        all.push(done);
    }
    let mut all = perhaps_untold(model, all);
    all.iter_mut().for_each(|model| model.crash(0));
    all
}

/// What can have become of `found` besides: the engine forgets a link after the commit that wants it undone, so that a process which
/// dies between the two leaves it.
fn perhaps_untold(before: &Model, mut found: Vec<Model>) -> Vec<Model> {
    for (index, session) in before.sessions.iter().enumerate().filter(|(_, session)| session.phone.linked) {
        let told = found.iter().filter(|model| !model.sessions[index].phone.linked).cloned();
        let untold = told.filter(|model| model.sessions[index].is_unlinking()).map(|mut model| {
            model.sessions[index].phone.linked = session.phone.linked;
            model
        });
        found.extend(untold.collect::<Vec<_>>());
    }
    found
}

/// Plays the sequence of a seed; what is wrong with it, in words, if anything is.
pub(crate) async fn check(gateway: &mut Gateway, runtime: &Arc<Runtime>, seed: u64) -> Result<(), String> {
    let steps = sequence(seed);
    let Err(found) = Box::pin(play(gateway, seed, &steps)).await else { return Ok(()) };
    let (steps, found) = Box::pin(shrink(runtime, seed, steps, found)).await;
    let mut told =
        format!("the service and its model disagree; repeat it with PORTCULLIS_SEED={seed} PORTCULLIS_SEQUENCES=1\n");
    for (number, step) in steps.iter().enumerate() {
        writeln!(told, "{:>3}. {step}", number + 1).unwrap();
    }
    write!(told, "  then\n{}", found.differences).unwrap();
    Err(told)
}

/// Drops steps for as long as the two still disagree. Every try has a gateway of its own: the one before may be broken.
async fn shrink(runtime: &Arc<Runtime>, seed: u64, mut steps: Vec<Step>, mut found: Mismatch) -> (Vec<Step>, Mismatch) {
    steps.truncate(found.steps);
    let mut at = steps.len();
    while at > 0 {
        at -= 1;
        let mut fewer = steps.clone();
        fewer.remove(at);
        // Where a process dies is not the same each time.
        let tries =
            if fewer.iter().any(|step| matches!(step, Step::Killed(..) | Step::KilledWorking(_))) { 4 } else { 1 };
        let mut gateway = Gateway::new(runtime).await;
        let mut played = Ok(());
        for _ in 0..tries {
            if played.is_ok() {
                played = Box::pin(play(&mut gateway, seed, &fewer)).await;
            }
        }
        if let Err(still) = played {
            fewer.truncate(still.steps);
            (steps, found) = (fewer, still);
            // What comes before may be droppable now.
            at = at.min(steps.len());
        }
    }
    (steps, found)
}
