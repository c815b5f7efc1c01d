//! What the page promises: self-contained, strict, and the same words on the wire as in the script.

use super::*;

const NONCE: &str = "bm9uY2Utb2YtYS10ZXN0";
const REASONS: [DeadReason; 4] = [DeadReason::Expired, DeadReason::Revoked, DeadReason::Gone, DeadReason::Failed];

fn pages() -> Vec<String> {
    let mut pages = vec![html(NONCE)];
    pages.extend(REASONS.map(|reason| dead_html(NONCE, reason)));
    pages
}

/// The text of every tag, without its brackets.
fn tags(page: &str) -> impl Iterator<Item = &str> {
    // Neither style nor script holds a `<` that begins a word.
    page.split('<').skip(1).filter(|tag| tag.starts_with(char::is_alphabetic)).map(|tag| tag.split('>').next().unwrap())
}

#[test]
fn a_page_is_complete() {
    for page in pages() {
        assert!(page.starts_with("<!doctype html>"), "{page}");
        assert!(!page.contains("{{") && !page.contains("}}"), "a part of the page is missing");
        assert!(page.is_ascii(), "the page holds what is not ASCII");
        for part in ["lang=\"en\"", "<meta charset=\"utf-8\">", "name=\"viewport\"", "color-scheme", "<title>", "<h1"] {
            assert!(page.contains(part), "the page lacks {part}");
        }
    }
}

#[test]
fn a_page_holds_nothing_that_its_policy_forbids() {
    for page in pages() {
        for tag in tags(&page) {
            let name = tag.split_whitespace().next().unwrap();
            if ["style", "script"].contains(&name) {
                assert_eq!(tag, format!("{name} nonce=\"{NONCE}\""));
            }
            for word in tag.split_whitespace().skip(1) {
                assert!(!word.starts_with("style=") && !word.starts_with("on"), "<{tag}> has {word}");
            }
            assert!(!["base", "form", "iframe", "a", "button"].contains(&name), "<{tag}>");
        }
        for outside in ["http:", "https:", "url(", "@import", "innerHTML", "eval("] {
            assert!(!page.contains(outside), "the page holds {outside}");
        }
    }
}

#[test]
fn a_dead_page_says_why_and_runs_nothing() {
    for reason in REASONS {
        let page = dead_html(NONCE, reason);
        assert!(page.contains(reason.title()) && page.contains(reason.text()));
        assert!(!page.contains("<script"));
    }
}

#[test]
fn the_policy_names_the_nonce_and_nothing_else() {
    assert_eq!(
        csp("abc"),
        "default-src 'none'; img-src data:; connect-src 'self'; style-src 'nonce-abc'; script-src 'nonce-abc'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
}

#[test]
fn an_address_that_is_a_credential_goes_nowhere() {
    let headers = headers(NONCE);
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert!(headers.contains(&(name, value.to_owned())), "{name} is not {value}");
    }
}

#[test]
fn events_are_what_the_page_reads() {
    let (expires_at, now) = (Timestamp::from_millis(1_060_000), Timestamp::from_millis(1_000_000));
    let check = |event: &PageEvent, bytes: &str, is_last: bool| {
        assert_eq!(event.sse(), bytes);
        assert_eq!(event.is_last(), is_last, "{bytes}");
        let name = bytes.strip_prefix("event: ").unwrap().split('\n').next().unwrap();
        assert!(SCRIPT.contains(&format!("on(\"{name}\",")), "the script does not listen for {name}");
    };
    check(&PageEvent::Waiting, "event: waiting\ndata: {}\n\n", false);
    check(
        &PageEvent::Qr { image: "data:image/png;base64,AA==".to_owned(), expires_at, now },
        "event: qr\ndata: {\"expiresAt\":1060000,\"image\":\"data:image/png;base64,AA==\",\"now\":1000000}\n\n",
        false,
    );
    check(&PageEvent::Code { code: "ABCD-1234".to_owned() }, "event: code\ndata: {\"code\":\"ABCD-1234\"}\n\n", false);
    check(&PageEvent::Passkey, "event: passkey\ndata: {}\n\n", false);
    check(&PageEvent::Linked { name: None }, "event: linked\ndata: {}\n\n", true);
    check(
        &PageEvent::Linked { name: Some("Ann\n\nevent: dead".to_owned()) },
        "event: linked\ndata: {\"name\":\"Ann\\n\\nevent: dead\"}\n\n",
        true,
    );
    check(
        &PageEvent::Dead { reason: DeadReason::Expired },
        "event: dead\ndata: {\"reason\":\"expired\",\
         \"text\":\"Links work for a short time only. Ask whoever sent it for a new one.\",\
         \"title\":\"This link has expired\"}\n\n",
        true,
    );
}

#[test]
fn every_reason_has_a_word_and_words() {
    for (reason, word) in REASONS.into_iter().zip(["expired", "revoked", "gone", "failed"]) {
        assert_eq!(reason.name(), word);
        assert!(PageEvent::Dead { reason }.sse().contains(&format!("\"reason\":\"{word}\"")));
    }
}
