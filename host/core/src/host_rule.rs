//! Where a binding lets its plugin send requests: hosts by name, chosen by whoever binds.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The most rules of one binding.
pub const HOST_RULES_MAX: usize = 32;
/// The longest name of a host, in bytes, as DNS has it.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// One host, or all hosts below one: `api.example.org` or `*.example.org`. An IP address is a host, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostRule(String);

/// A text that names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a host's name such as api.example.org, *.example.org for all hosts below one, or an IP address")]
pub struct NoHostRule;

impl HostRule {
    /// Reads a rule. Everything below a top-level domain is no choice.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, NoHostRule> {
        let text = text.to_ascii_lowercase();
        if let Some(address) = address(&text) {
            return Ok(Self(address));
        }
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let is_wide = name.len() != text.len();
        let ends_as_number = name.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
        let is_name = name.len() <= MAX_NAME && name.split('.').all(is_label) && !ends_as_number;
        if is_name && (!is_wide || name.contains('.')) { Ok(Self(text)) } else { Err(NoHostRule) }
    }

    /// Whether it names this host, which is written in small letters, an IPv6 address in brackets.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(ending) => host.strip_suffix(ending).is_some_and(|below| !below.is_empty()),
            None => self.0 == host,
        }
    }

    /// The rule as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostRule {
    type Error = NoHostRule;

    fn try_from(text: String) -> Result<Self, NoHostRule> {
        Self::parse(&text)
    }
}

impl From<HostRule> for String {
    fn from(rule: HostRule) -> Self {
        rule.0
    }
}

/// An address in its one way of being written, IPv6 in brackets.
fn address(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Some(address) = bare {
        return address.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]"));
    }
    match text.parse().ok()? {
        IpAddr::V4(address) => Some(address.to_string()),
        IpAddr::V6(address) => Some(format!("[{address}]")),
    }
}

fn is_label(label: &str) -> bool {
    let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (1..=MAX_LABEL).contains(&label.len()) && is_plain && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_rule_allows_the_host_that_it_names_or_those_below_it() {
        for (rule, host, allowed) in [
            ("api.example.org", "api.example.org", true),
            ("API.Example.org", "api.example.org", true),
            ("api.example.org", "v1.api.example.org", false),
            ("api.example.org", "api.example.org.evil.example", false),
            ("*.example.org", "api.example.org", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "evilexample.org", false),
            ("*.example.org", ".example.org", false),
            ("gateway", "gateway", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("2001:DB8:0::1", "[2001:db8::1]", true),
            ("[2001:db8::1]", "[2001:db8::1]", true),
        ] {
            assert_eq!(HostRule::parse(rule).unwrap().allows(host), allowed, "{rule} {host}");
        }
    }

    #[test]
    fn other_texts_are_no_rules() {
        let long = format!("{}.org", "a".repeat(64));
        for text in [
            "",
            "*",
            "*.",
            "*.org",
            "*.*.example.org",
            "a.*.org",
            "ex*mple.org",
            "-a.org",
            "a_b.org",
            "a..org",
            "a.org.",
            "https://a.org",
            "a.org:443",
            "a.org/x",
            "u@a.org",
            "*.0.0.1",
            "1.2.3",
            "0x7f.1",
            "b\u{fc}cher.example",
            " a.org",
            &long,
        ] {
            assert_eq!(HostRule::parse(text), Err(NoHostRule), "{text}");
        }
        assert!(serde_json::from_str::<HostRule>("\"*.org\"").is_err());
    }
}
