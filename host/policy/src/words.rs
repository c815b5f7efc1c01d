//! The contract's values as JSON, in the contract's own words: `decision-id` and `log-out-first`, not the names that Rust gives them.
//!
//! The generated types derive serde's traits and can carry no attributes, so the names are translated on the way, guided by the types:
//! fields of records and cases of variants, and nothing that a caller or a plugin wrote.
//! A case without a value is its name, `"allow"`; one with a value is an object with one entry, `{"deny": {…}}`; what is absent is `null` or left out.

mod hear;
mod say;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use hear::Unheard;

/// `value` in the contract's words.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Value {
    value.serialize(say::Speaker).expect("the contract's values have no form that JSON lacks")
}

/// The value that is told in the contract's words; says where and why if it is none.
pub(crate) fn from_json<T: DeserializeOwned>(json: Value) -> Result<T, Unheard> {
    T::deserialize(hear::Listener(json))
}

/// The contract's word for a name of Rust's: `UtcDay` and `utc_day` are both `utc-day`.
fn word(name: &str) -> String {
    let mut word = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        match c {
            '_' => word.push('-'),
            c if c.is_ascii_uppercase() => {
                if !word.is_empty() {
                    word.push('-');
                }
                word.push(c.to_ascii_lowercase());
            }
            c => word.push(c),
        }
    }
    word
}

#[cfg(test)]
mod test {
    use serde_json::json;

    use super::*;
    use crate::bindings::portcullis::policy::types::{
        Decision, Denial, Detail, FollowUp, Limit, Limitation, Operation, Phase, PrincipalKind, Request, Window,
    };

    /// Says the value, and hears the same again.
    fn both_ways<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, json: &Value) {
        assert_eq!(&to_json(value), json);
        assert_eq!(&from_json::<T>(json.clone()).unwrap(), value);
    }

    #[test]
    fn values_are_said_and_heard_in_the_contracts_words() {
        both_ways(&Decision::Allow, &json!("allow"));
        both_ways(&Phase::Due(7), &json!({ "due": 7 }));
        both_ways(&PrincipalKind::SessionToken, &json!("session-token"));
        let denial = Denial { code: "no_way".into(), message: "UtcDay".into(), retry_after: None };
        both_ways(
            &Decision::Deny(denial),
            &json!({ "deny": { "code": "no_way", "message": "UtcDay", "retry-after": null } }),
        );
        let limits = vec![
            Limit { counter: "a_B".into(), window: Window::UtcDay, max: u64::MAX },
            Limit { counter: String::new(), window: Window::Sliding(1), max: 0 },
        ];
        both_ways(
            &Decision::Limit(Limitation { limits, message: String::new() }),
            &json!({ "limit": {
                "limits": [
                    { "counter": "a_B", "window": "utc-day", "max": u64::MAX },
                    { "counter": "", "window": { "sliding": 1 }, "max": 0 },
                ],
                "message": "",
            } }),
        );
        let operation = Operation { name: "session.delete".into(), detail: Detail::Plain };
        both_ways(
            &vec![FollowUp::LogOutFirst, FollowUp::Request(Request { operation, session: None })],
            &json!([
                "log-out-first",
                { "request": { "operation": { "name": "session.delete", "detail": "plain" }, "session": null } },
            ]),
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            (json!({ "deny": { "message": "x" } }), "deny.code is missing"),
            (
                json!({ "deny": { "code": 1, "message": "x" } }),
                "deny.code: invalid type: integer `1`, expected a string",
            ),
            (
                json!({ "deny": { "code": "x", "message": "x", "retry_after": 1 } }),
                "deny.retry_after is unknown; there are code, message, retry-after",
            ),
            (json!("Allow"), "there is no Allow; there are allow, deny, defer, amend, confirm, limit, extend"),
            (json!("deny"), "deny needs a value"),
            (json!({ "allow": {} }), "allow takes no value"),
            (json!({ "allow": null, "deny": null }), "invalid type: map, expected a word, or an object with one entry"),
            (
                json!({ "limit": { "limits": [{ "counter": "a", "window": "week", "max": 1 }], "message": "" } }),
                "limit.limits[0].window: there is no week; there are sliding, utc-day",
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(from_json::<Decision>(json).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn an_absent_option_is_none() {
        let denial: Denial = from_json(json!({ "code": "x", "message": "y" })).unwrap();
        assert_eq!(denial.retry_after, None);
    }
}
