//! What a name must look like: beginning, end, length and characters. There are no regular expressions: each rule takes one look at the name.

use serde::Deserialize;

/// The rule of one name, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NameRule {
    /// Whether there has to be one.
    pub(crate) required: bool,
    /// How it begins.
    pub(crate) prefix: String,
    /// How it ends.
    pub(crate) suffix: String,
    /// How many characters it has at least.
    pub(crate) min_length: usize,
    /// How many characters it has at most.
    pub(crate) max_length: Option<usize>,
    /// Of which characters it consists.
    pub(crate) characters: Option<Characters>,
}

impl NameRule {
    /// Checks a name; what is wrong reads on after "the name".
    pub(crate) fn check(&self, name: Option<&str>) -> Result<(), String> {
        let Some(name) = name else {
            return if self.required { Err("is required".to_owned()) } else { Ok(()) };
        };
        let length = name.chars().count();
        if length < self.min_length {
            return Err(format!("has {length} characters, and needs at least {}", self.min_length));
        }
        if let Some(most) = self.max_length.filter(|most| length > *most) {
            return Err(format!("has {length} characters, and at most {most} are allowed"));
        }
        if !name.starts_with(&self.prefix) {
            return Err(format!("must begin with \"{}\"", self.prefix));
        }
        if !name.ends_with(&self.suffix) {
            return Err(format!("must end with \"{}\"", self.suffix));
        }
        match &self.characters {
            Some(allowed) => match name.chars().find(|c| !allowed.has(*c)) {
                Some(other) => Err(format!("has \"{other}\", and consists of {}", allowed.text)),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// A set of characters: single ones and ranges such as `a-z`; a hyphen at the beginning or the end stands for itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Characters {
    text: String,
    ranges: Vec<(char, char)>,
}

impl Characters {
    fn has(&self, character: char) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&character))
    }
}

impl TryFrom<String> for Characters {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let all: Vec<char> = text.chars().collect();
        let mut rest = all.as_slice();
        let mut ranges = Vec::new();
        loop {
            rest = match rest {
                [] => break,
                [first, '-', last, after @ ..] => {
                    if first > last {
                        return Err(format!("the range {first}-{last} has no characters"));
                    }
                    ranges.push((*first, *last));
                    after
                }
                [single, after @ ..] => {
                    ranges.push((*single, *single));
                    after
                }
            };
        }
        if ranges.is_empty() { Err("name some characters".to_owned()) } else { Ok(Self { text, ranges }) }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn set(text: &str) -> Characters {
        Characters::try_from(text.to_owned()).expect("a set of characters")
    }

    #[test]
    fn a_set_has_single_characters_and_ranges() {
        for (text, inside, outside) in [
            ("a-z0-9-", "am z09-".replace(' ', ""), "A_ é"),
            ("-a-c", "-abc".to_owned(), "d"),
            ("A-Za-zÀ-ÿ ", "Zürich Bern".to_owned(), "7-"),
            ("-", "-".to_owned(), "a"),
            ("xyz", "xyz".to_owned(), "w-"),
        ] {
            assert_eq!(inside.chars().find(|c| !set(text).has(*c)), None, "{text}");
            assert_eq!(outside.chars().find(|c| set(text).has(*c)), None, "{text}");
        }
        assert!(Characters::try_from(String::new()).is_err());
        assert!(Characters::try_from("z-a".to_owned()).is_err());
    }

    #[test]
    fn every_part_of_a_rule_is_checked() {
        let rule = NameRule {
            required: true,
            prefix: "de-".to_owned(),
            suffix: "-1".to_owned(),
            min_length: 6,
            max_length: Some(8),
            characters: Some(set("a-z0-9-")),
        };
        assert_eq!(rule.check(Some("de-be-1")), Ok(()));
        for (name, advice) in [
            (None, "is required"),
            (Some("de-1"), "has 4 characters, and needs at least 6"),
            (Some("de-bern-1"), "has 9 characters, and at most 8 are allowed"),
            (Some("ch-be-1"), "must begin with \"de-\""),
            (Some("de-be-2"), "must end with \"-1\""),
            (Some("de-bE-1"), "has \"E\", and consists of a-z0-9-"),
        ] {
            assert_eq!(rule.check(name), Err(advice.to_owned()), "{name:?}");
        }
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let rule = NameRule { max_length: Some(4), ..NameRule::default() };
        assert_eq!(rule.check(Some("Zürü")), Ok(()));
    }
}
