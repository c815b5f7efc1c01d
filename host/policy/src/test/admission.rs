//! Admission: each kind of unusable upload has its own code.

use portcullis_core::{Grant, PluginClass, Want};
use portcullis_testing::{Guest, encode};

use super::{config, org_id, runtime};
use crate::{LoadError, Runtime, RuntimeConfig};

const STANDARD: PluginClass = PluginClass::Standard;

async fn refused(bytes: Vec<u8>) -> &'static str {
    let error = runtime().admit(org_id(), bytes, STANDARD).await.unwrap_err();
    let text = error.to_string();
    assert!(!text.ends_with('.') && text.starts_with(char::is_lowercase), "{text}");
    error.code()
}

/// A component in text.
fn text(component: &str) -> Vec<u8> {
    wat::parse_str(component).unwrap()
}

fn exporting(interface: &str) -> String {
    format!("(instance $i) (export \"{interface}\" (instance $i))")
}

#[tokio::test]
async fn a_plugin_says_what_it_is() {
    let admitted = runtime().admit(org_id(), Guest::allowing().build(), STANDARD).await.unwrap();
    assert_eq!((admitted.name.as_str(), admitted.declared_version.as_str()), ("guest", "1.0.0"));
    assert_eq!((admitted.contract.as_str(), admitted.exports), ("0.1.0", vec!["describe".into(), "gate".into()]));
    assert_eq!(admitted.size, u64::try_from(admitted.bytes.len()).unwrap());
}

/// The reasons were once dropped, so that nobody who was to grant something could read them.
#[tokio::test]
async fn a_plugin_says_what_it_wants_and_why() {
    let wanting = |wants: &[(&'static str, &'static str)]| Guest::allowing().wanting(wants).build();
    let wants = [("kv", "to remember what it saw"), ("lifecycle", "to delete what nobody pays for"), ("kv", "again")];
    let admitted = runtime().admit(org_id(), wanting(&wants), STANDARD).await.unwrap();
    let want = |grant, why: &str| Want { grant, why: why.to_owned() };
    assert_eq!(admitted.wants, [want(Grant::Kv, wants[0].1), want(Grant::Lifecycle, wants[1].1)]);
    assert_eq!(refused(wanting(&[("root", "why not")])).await, "bad_description");
    assert_eq!(refused(wanting(&[("kv", "\\07")])).await, "bad_description");
}

#[tokio::test]
async fn what_is_no_component_is_told_so() {
    assert_eq!(refused(b"hello".to_vec()).await, "not_a_component");
    assert_eq!(refused(text("(module)")).await, "not_a_component");
    let mut cut = Guest::allowing().build();
    cut.truncate(cut.len() / 2);
    assert_eq!(refused(cut).await, "malformed_component");
}

#[tokio::test]
async fn what_is_too_large_is_not_even_looked_at() {
    let runtime = Runtime::new(RuntimeConfig { component_bytes: 10, ..config() }).unwrap();
    let error = runtime.admit(org_id(), vec![0; 11], STANDARD).await.unwrap_err();
    assert_eq!(error.code(), "payload_too_large");
}

#[tokio::test]
async fn other_versions_and_unknown_imports_are_refused_by_name() {
    let newer = exporting("portcullis:policy/gate@0.2.0");
    assert_eq!(refused(text(&format!("(component {newer})"))).await, "unknown_contract_version");
    let patched = "(import \"portcullis:policy/log@0.1.2\" (instance))";
    assert_eq!(refused(text(&format!("(component {patched})"))).await, "unknown_contract_version");
    for import in
        // What each version has is what it has: the import `http` came later than the rest.
        [
            "wasi:http/outgoing-handler@0.2.0",
            "foo:bar/baz",
            "portcullis:policy/gate@0.1.0",
            "portcullis:policy/http@0.1.0",
            "portcullis:policy/log@0.1.1",
            "wasi:io/poll@0.3.0",
        ]
    {
        let component = format!("(component (import \"{import}\" (instance)))");
        assert_eq!(refused(text(&component)).await, "unknown_import", "{import}");
    }
}

#[tokio::test]
async fn a_plugin_must_export_something_and_describe_itself() {
    assert_eq!(refused(text("(component)")).await, "no_exports");
    let gate = exporting("portcullis:policy/gate@0.1.0");
    assert_eq!(refused(text(&format!("(component {gate})"))).await, "no_describe");
}

#[tokio::test]
async fn an_interface_of_another_type_is_refused() {
    let describe = exporting("portcullis:policy/describe@0.1.0");
    assert_eq!(refused(text(&format!("(component {describe})"))).await, "contract_mismatch");
    let other = "(import \"portcullis:policy/log@0.1.0\" (instance (export \"write\" (func (param \"x\" u8)))))";
    assert_eq!(refused(text(&format!("(component {other} {describe})"))).await, "contract_mismatch");
}

#[tokio::test]
async fn more_memory_than_a_call_gets_is_refused() {
    let large = Guest::allowing().build();
    let runtime = Runtime::new(RuntimeConfig { memory_bytes: 1 << 16, ..config() }).unwrap();
    assert_eq!(runtime.admit(org_id(), large, STANDARD).await.unwrap_err().code(), "too_many_resources");
}

#[tokio::test]
async fn a_name_that_cannot_be_one_is_refused() {
    let guest = Guest { name: "No Such Name".into(), ..Guest::allowing() };
    assert_eq!(refused(guest.build()).await, "bad_description");
}

#[tokio::test]
async fn a_describe_that_fails_is_refused() {
    let core = "(module
        (memory (export \"memory\") 1)
        (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export \"portcullis:policy/describe@0.1.0#describe\") (result i32) unreachable))";
    assert_eq!(refused(encode(core, &["describe"])).await, "describe_failed");
}

#[tokio::test]
async fn an_organisation_compiles_one_upload_at_a_time() {
    let runtime = runtime();
    let (one, other) = (Guest::allowing().build(), Guest::gate("unreachable").build());
    let elsewhere = portcullis_core::OrgId::from_bytes([1; 16]);
    let (first, second, third) = tokio::join!(
        runtime.admit(org_id(), one, STANDARD),
        runtime.admit(org_id(), other.clone(), STANDARD),
        runtime.admit(elsewhere, other, STANDARD)
    );
    assert!(first.is_ok() && third.is_ok());
    assert_eq!(second.unwrap_err().code(), "upload_in_progress");
}

#[tokio::test]
async fn loading_needs_the_very_bytes() {
    let runtime = runtime();
    let missing = runtime.load([0; 32], STANDARD, || None).await;
    assert!(matches!(*missing.unwrap_err(), LoadError::Missing { .. }));
    let damaged = runtime.load([0; 32], STANDARD, || Some(Guest::allowing().build())).await;
    assert!(matches!(*damaged.unwrap_err(), LoadError::Damaged { .. }));
}

#[tokio::test]
async fn a_plugin_is_of_the_version_that_has_all_that_it_imports() {
    let (data, call) = portcullis_testing::text::Request { method: "GET", ..Default::default() }.sent();
    let sending = Guest::gate(&format!("{call} i32.const 512")).importing(portcullis_testing::text::HTTP).with(&data);
    for (guest, contract) in [(Guest::allowing(), "0.1.0"), (sending, "0.1.1")] {
        let admitted = runtime().admit(org_id(), guest.build(), STANDARD).await.unwrap();
        assert_eq!(admitted.contract, contract);
    }
}
