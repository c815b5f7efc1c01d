//! Settings and the schemas that plugins give for them.

use std::time::Duration;

use portcullis_core::{Mode, OrgId, PluginClass};
use portcullis_testing::Guest;

use super::{bind_with, org_id, runtime};
use crate::SettingsError;

/// A guest with this schema.
fn with_schema(schema: &str) -> Guest {
    let bytes: String = schema.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let words: String = [1, 131_072, u32::try_from(schema.len()).unwrap()]
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    // The description lies at 64, and its schema 24 bytes into it.
    Guest::allowing().with(&format!("(data (i32.const 131072) \"{bytes}\") (data (i32.const 88) \"{words}\")"))
}

const GRACE: &str = r##"{
    "type": "object",
    "properties": {
        "grace": { "type": "string", "pattern": "^PT[0-9]+[SMH]$" },
        "limits": { "type": "array", "items": { "$ref": "#/$defs/limit" } }
    },
    "required": ["grace"],
    "additionalProperties": false,
    "$defs": { "limit": { "type": "integer", "minimum": 1 } }
}"##;

#[tokio::test]
async fn settings_must_fit_the_plugins_schema() {
    let runtime = runtime();
    let link = bind_with(&runtime, &with_schema(GRACE), Mode::Enforce, &[]).await;
    let check = async |settings: &str| match runtime.validate_settings(&link.version, settings, org_id()).await {
        Ok(()) => Vec::new(),
        Err(SettingsError::Refused { problems }) => {
            problems.into_iter().map(|problem| (problem.field, problem.message)).collect()
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(check(r#"{ "grace": "PT72H", "limits": [1, 2] }"#).await, []);
    let cases = [
        ("{}", ""),
        (r#"{ "grace": "soon" }"#, "/grace"),
        (r#"{ "grace": "PT1S", "limits": [1, 0] }"#, "/limits/1"),
        (r#"{ "grace": "PT1S", "hush": "hush-hush" }"#, "/hush"),
    ];
    for (settings, field) in cases {
        let problems = check(settings).await;
        assert_eq!(problems.len(), 1, "{settings}: {problems:?}");
        assert_eq!(problems[0].0, field, "{settings}: {problems:?}");
        assert!(!problems[0].1.contains("hush-hush") && !problems[0].1.contains("soon"), "{problems:?}");
    }
    assert_eq!(check(r#"{ "grace": 1, "limits": 1 }"#).await.len(), 2);
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_is_refused_at_upload() {
    let runtime = runtime();
    let large = format!("{{ \"description\": \"{}\" }}", "x".repeat(64 << 10));
    let cases = [
        ("no JSON", "{"),
        ("no schema", "7"),
        ("no type", r#"{ "type": "nothing" }"#),
        ("on the network", r#"{ "$ref": "https://example.com/schema.json" }"#),
        ("on the disk", r#"{ "$ref": "file:///etc/passwd" }"#),
        ("nowhere", r##"{ "$ref": "#/$defs/none" }"##),
        ("a pattern that looks back", r#"{ "pattern": "(a+)\\1" }"#),
        ("a pattern without end", r#"{ "pattern": "((((a{100}){100}){100}){100})" }"#),
        ("too large", &large),
    ];
    for (what, schema) in cases {
        // Beyond its memory a guest has no data: the last one is told at its own size.
        let guest = with_schema(schema);
        let admitted = runtime.admit(org_id(), guest.build(), PluginClass::Standard).await;
        let code = admitted.expect_err(what).code();
        let expected =
            if what == "too large" { ["bad_description", "describe_failed"] } else { ["bad_description"; 2] };
        assert!(expected.contains(&code), "{what}: {code}");
    }
    assert!(runtime.admit(org_id(), with_schema("true").build(), PluginClass::Standard).await.is_ok());
}

#[tokio::test]
async fn a_pattern_costs_no_more_than_its_text() {
    let runtime = runtime();
    let hungry = r#"{ "properties": { "a": { "pattern": "^(a|a|a|aa)*$" } } }"#;
    let settings = format!("{{ \"a\": \"{}!\" }}", "a".repeat(60_000));
    let error = runtime.check_schema(Some(hungry), &settings, org_id()).await.unwrap_err();
    assert!(matches!(error, SettingsError::Refused { problems } if problems[0].field == "/a"));
}

#[tokio::test]
async fn problems_are_few_and_short() {
    let many = format!("[{}]", vec!["\"x\""; 1_000].join(","));
    let integers = r#"{ "items": { "type": "integer" } }"#;
    let error = runtime().check_schema(Some(integers), &many, org_id()).await.unwrap_err();
    let SettingsError::Refused { problems } = error else { panic!("{error}") };
    assert_eq!(problems.len(), 32);
    assert!(problems.iter().all(|problem| problem.message.len() <= 1024));
}

/// The story: a schema was found that takes seconds to judge some settings, and every request to change a binding began another process for it.
#[tokio::test]
async fn an_organisation_has_one_judged_at_a_time_and_is_in_nobodys_way() {
    let runtime = runtime();
    let judge = |org| runtime.check_schema(Some("true"), "{}", org);
    let judging = runtime.judging().take(org_id()).await;
    assert!(tokio::time::timeout(Duration::ZERO, judge(org_id())).await.is_err(), "it waits");
    assert_eq!(judge(OrgId::from_bytes([9; 16])).await, Ok(()));
    drop(judging);
    assert_eq!(judge(org_id()).await, Ok(()));
}
