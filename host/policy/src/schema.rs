//! JSON Schemas that plugins give for their settings.
//!
//! A schema is a plugin's word, so it is bounded in size, in what a pattern may cost, and in that it refers to nothing outside of itself.
//! That is not enough: a few references to each other make a schema that takes exponential time or all of the stack.
//! So schemas are judged where components are compiled, in a process that can be killed.

use std::time::Duration;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::compile::in_child;
use crate::compile_child::{ChildLimits, Task};
use crate::{CompileError, Compiler, SettingsProblem};

/// The most bytes of a schema.
const SCHEMA_BYTES: usize = 64 << 10;
/// The most bytes of a compiled pattern, and of what it keeps while it matches.
const PATTERN_BYTES: usize = 256 << 10;
/// The most problems that are told at once.
const PROBLEMS: usize = 32;
/// The most bytes of one problem's message.
const MESSAGE_BYTES: usize = 1024;
/// The most bytes that the child answers with.
const ANSWER_BYTES: usize = 256 << 10;
/// What judging may take. A schema that is meant well needs a few milliseconds.
const LIMITS: ChildLimits = ChildLimits { memory: 256 << 20, cpu: Duration::from_secs(2) };
const WALL: Duration = Duration::from_secs(10);

/// Why a schema could not judge; a reason for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unjudged(pub(crate) String);

/// What is wrong with `settings`, a JSON document; without any it is only found out whether the schema can judge.
pub(crate) async fn judge(
    compiler: &Compiler,
    schema: &str,
    settings: Option<&str>,
) -> Result<Vec<SettingsProblem>, Unjudged> {
    if schema.len() > SCHEMA_BYTES {
        return Err(Unjudged(format!("it has {} bytes and {SCHEMA_BYTES} are allowed", schema.len())));
    }
    let packed = pack(schema, settings);
    let answer = match compiler {
        Compiler::InProcess => {
            let judged = tokio::task::spawn_blocking(move || judge_packed(&packed)).await;
            judged.map_err(|_| Unjudged("it cannot be evaluated".to_owned()))?.map_err(Unjudged)?
        }
        Compiler::Child { executable } => {
            let judged = in_child(executable, Task::Schema, LIMITS, &packed, ANSWER_BYTES);
            match tokio::time::timeout(WALL, judged).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(CompileError::Refused { why })) => return Err(Unjudged(why)),
                Ok(Err(CompileError::Process(error))) => {
                    tracing::error!(%error, "the process that judges settings could not be run");
                    return Err(Unjudged("the process that judges it could not be run".to_owned()));
                }
                Ok(Err(_)) | Err(_) => {
                    return Err(Unjudged("it takes too much time or memory to evaluate; make it simpler".to_owned()));
                }
            }
        }
    };
    serde_json::from_slice(&answer).map_err(|error| Unjudged(error.to_string()))
}

/// The length of the schema, the schema, and the settings if there are any.
fn pack(schema: &str, settings: Option<&str>) -> Vec<u8> {
    let length = u32::try_from(schema.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), schema.as_bytes(), settings.unwrap_or_default().as_bytes()].concat()
}

/// Judges what [`pack`] packed; the problems are a JSON document.
pub(crate) fn judge_packed(packed: &[u8]) -> Result<Vec<u8>, String> {
    let incomplete = || "the question is incomplete".to_owned();
    let (length, rest) = packed.split_first_chunk::<4>().ok_or_else(incomplete)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| incomplete())?;
    let (schema, settings) = rest.split_at_checked(length).ok_or_else(incomplete)?;
    let schema = compile(schema)?;
    let problems = if settings.is_empty() {
        Vec::new()
    } else {
        problems(&schema, &serde_json::from_slice(settings).map_err(|error| error.to_string())?)
    };
    serde_json::to_vec(&problems).map_err(|error| error.to_string())
}

fn compile(schema: &[u8]) -> Result<Validator, String> {
    let schema: Value = serde_json::from_slice(schema).map_err(|error| error.to_string())?;
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err("a JSON Schema is an object or a boolean".to_owned());
    }
    // Patterns that need time beyond what is linear in the text are refused with the schema.
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES);
    let validator = jsonschema::options().offline().with_pattern_options(patterns).build(&schema);
    validator.map_err(|error| cut(&error.to_string()))
}

fn problems(schema: &Validator, settings: &Value) -> Vec<SettingsProblem> {
    let problem = |error: jsonschema::ValidationError<'_>| SettingsProblem {
        field: cut(&field_of(&error)),
        // The place is named beside it, and the value there may be a secret.
        message: cut(&error.masked().to_string()),
    };
    schema.iter_errors(settings).take(PROBLEMS).map(problem).collect()
}

/// A text on a line, cut.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MESSAGE_BYTES)].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
/// Where the problem is. One with a field that should not be there is that field's, and not its owner's.
fn field_of(error: &jsonschema::ValidationError<'_>) -> String {
    let at = error.instance_path().as_str();
    match error.kind() {
        jsonschema::error::ValidationErrorKind::AdditionalProperties { unexpected } => match unexpected.first() {
            Some(name) => format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
            None => at.to_owned(),
        },
        _ => at.to_owned(),
    }
}
