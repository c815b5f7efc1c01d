//! Compilation in a child process, against real processes.
//!
//! This binary is its own child: started under the hidden subcommand it compiles, started by cargo it tests. Hence no test harness.

use std::process::ExitCode;
use std::time::Duration;

use portcullis_core::{OrgId, PluginClass};
use portcullis_policy::{
    AdmissionError, COMPILE_SUBCOMMAND, Compiler, Runtime, RuntimeConfig, SettingsError, compile_child,
};
use portcullis_testing::Guest;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == COMPILE_SUBCOMMAND) {
        return compile_child(args);
    }
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio.block_on(async {
        what_a_child_compiles_runs().await;
        what_the_compiler_refuses_is_told_with_its_words().await;
        a_compiler_that_takes_too_long_is_killed().await;
        a_compiler_that_takes_too_much_memory_is_told_so().await;
        a_binary_that_is_no_compiler_is_the_operators_problem().await;
        settings_are_judged_by_their_schema().await;
        a_schema_that_takes_too_much_is_given_up().await;
    });
    ExitCode::SUCCESS
}

const ORG: OrgId = OrgId::from_bytes([1; 16]);

fn config() -> RuntimeConfig {
    let executable = std::env::current_exe().expect("this binary has a path");
    RuntimeConfig {
        compiler: Compiler::Child { executable },
        background_wall: Duration::from_secs(5),
        ..RuntimeConfig::default()
    }
}

async fn refused(config: RuntimeConfig, bytes: Vec<u8>) -> AdmissionError {
    let runtime = Runtime::new(config).expect("a runtime");
    runtime.admit(ORG, bytes, PluginClass::Standard).await.expect_err("it is refused")
}

/// A component that takes a compiler seconds: many long functions.
fn heavy() -> Vec<u8> {
    let sum = "(local.set 0 (i64.add (i64.mul (local.get 0) (local.get 0)) (i64.xor (local.get 0) (i64.const 77))))";
    let function = format!("(func (param i64) (result i64) {} local.get 0)", sum.repeat(3000));
    Guest::allowing().with(&function.repeat(30)).build()
}

async fn what_a_child_compiles_runs() {
    let runtime = Runtime::new(config()).expect("a runtime");
    let admitted = runtime.admit(ORG, Guest::allowing().build(), PluginClass::Standard).await;
    // It was described, so it ran.
    assert_eq!(admitted.expect("it is admitted").name, "guest");
}

async fn what_the_compiler_refuses_is_told_with_its_words() {
    // The names are right, and an index is not.
    let bytes = wat::parse_str(
        "(component
            (instance $i)
            (export \"portcullis:policy/describe@0.1.0\" (instance $i))
            (core module $m (func unreachable) (func call 7))
            (core instance (instantiate $m)))",
    );
    let error = refused(config(), bytes.expect("it is text of a component")).await;
    assert_eq!(error.code(), "invalid_component", "{error:?}");
}

async fn a_compiler_that_takes_too_long_is_killed() {
    let error = refused(RuntimeConfig { compile_wall: Duration::from_millis(20), ..config() }, heavy()).await;
    assert_eq!(error.code(), "compile_timeout", "{error:?}");
}

async fn a_compiler_that_takes_too_much_memory_is_told_so() {
    // The base allowance is for the binary; what is left of it is too little for this component.
    let error = refused(RuntimeConfig { compile_memory: 0, ..config() }, heavier()).await;
    assert_eq!(error.code(), "compile_out_of_memory", "{error:?}");
}

/// A component with one function too large for a small compiler.
fn heavier() -> Vec<u8> {
    let sum = "(local.set 0 (i64.add (i64.mul (local.get 0) (local.get 0)) (i64.xor (local.get 0) (i64.const 77))))";
    let function = format!("(func (param i64) (result i64) {} local.get 0)", sum.repeat(100_000));
    Guest::allowing().with(&function).build()
}

async fn a_binary_that_is_no_compiler_is_the_operators_problem() {
    let compiler = Compiler::Child { executable: "/nowhere/portcullis".into() };
    let error = refused(RuntimeConfig { compiler, ..config() }, Guest::allowing().build()).await;
    assert_eq!(error.code(), "compile_failed", "{error:?}");
}

async fn settings_are_judged_by_their_schema() {
    let runtime = Runtime::new(config()).expect("a runtime");
    let schema = r#"{ "properties": { "grace": { "type": "string" } } }"#;
    assert_eq!(runtime.check_schema(Some(schema), r#"{ "grace": "PT1S" }"#, ORG).await, Ok(()));
    let error = runtime.check_schema(Some(schema), r#"{ "grace": 1 }"#, ORG).await.expect_err("it is no text");
    assert!(matches!(&error, SettingsError::Refused { problems } if problems[0].field == "/grace"), "{error:?}");
    let error = runtime.check_schema(Some(r#"{ "type": "nothing" }"#), "{}", ORG).await.expect_err("it is no schema");
    assert!(matches!(error, SettingsError::Unjudged { .. }), "{error:?}");
}

/// Small schemas: one would take all of the time, and two are circles, which mean nothing and harm nobody.
async fn a_schema_that_takes_too_much_is_given_up() {
    let runtime = Runtime::new(config()).expect("a runtime");
    let doubling: Vec<String> = (0..64)
        .map(|level| {
            let next = format!("{{ \"$ref\": \"#/$defs/l{}\" }}", level + 1);
            format!("\"l{level}\": {{ \"anyOf\": [{next}, {next}] }}")
        })
        .collect();
    let doubling = format!("{{ \"$ref\": \"#/$defs/l0\", \"$defs\": {{ {}, \"l64\": false }} }}", doubling.join(", "));
    let itself = r##"{ "allOf": [{ "$ref": "#" }] }"##;
    let each_other = r##"{
        "$ref": "#/$defs/a",
        "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/b" }] }, "b": { "allOf": [{ "$ref": "#/$defs/a" }] } }
    }"##;
    let error = runtime.check_schema(Some(&doubling), "{}", ORG).await.expect_err("it would take years");
    assert!(matches!(error, SettingsError::Unjudged { .. }), "{error:?}");
    for circle in [itself, each_other] {
        assert_eq!(runtime.check_schema(Some(circle), "{}", ORG).await, Ok(()), "{circle}");
    }
    assert_eq!(runtime.check_schema(Some("true"), "{}", ORG).await, Ok(()));
}
