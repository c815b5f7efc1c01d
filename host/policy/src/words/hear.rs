//! From JSON to values, strictly: what the contract does not know is refused, with its place.

use std::fmt::Display;

use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use super::word;

/// Why JSON is not the value that was wanted, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unheard {
    place: String,
    why: String,
}

impl Unheard {
    fn new(why: impl Into<String>) -> Self {
        Self { place: String::new(), why: why.into() }
    }

    /// The same, within what `part` names.
    fn within(mut self, part: &str) -> Self {
        let joint = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        self.place = format!("{part}{joint}{}", self.place);
        self
    }
}

impl Display for Unheard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.place.as_str(), self.why.strip_prefix(' ')) {
            ("", Some(why)) => f.write_str(why),
            ("", None) => f.write_str(&self.why),
            // Words about the place itself follow it without a colon.
            (place, Some(why)) => write!(f, "{place} {why}"),
            (place, None) => write!(f, "{place}: {}", self.why),
        }
    }
}

impl std::error::Error for Unheard {}

impl serde::de::Error for Unheard {
    fn custom<T: Display>(why: T) -> Self {
        Self::new(why.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(" is missing").within(&word(field))
    }

    fn unknown_variant(case: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("there is no {case:.64}; there are {}", words(known)))
    }
}

fn words(names: &[&'static str]) -> String {
    names.iter().map(|name| word(name)).collect::<Vec<_>>().join(", ")
}

/// Hears a value out of JSON, translating the names in it.
pub(super) struct Listener(pub(super) Value);

impl<'de> Deserializer<'de> for Listener {
    type Error = Unheard;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unheard> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => number.deserialize_any(visitor).map_err(Unheard::custom),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0 }),
            Value::Object(_) => Err(Unheard::invalid_type(Unexpected::Map, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unheard> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unheard> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unheard> {
        match self.0 {
            Value::Object(entries) => {
                visitor.visit_map(Fields { known: fields, entries: entries.into_iter(), next: None })
            }
            other => Listener(other).deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        cases: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unheard> {
        let expected = &"a word, or an object with one entry";
        let (given, value) = match self.0 {
            Value::String(case) => (case, None),
            Value::Object(entries) if entries.len() == 1 => {
                let (case, value) = entries.into_iter().next().unwrap_or_default();
                (case, Some(value))
            }
            Value::Object(_) => return Err(Unheard::invalid_type(Unexpected::Map, expected)),
            other => return Listener(other).deserialize_any(visitor),
        };
        let Some(case) = cases.iter().find(|case| word(case) == given) else {
            return Err(Unheard::unknown_variant(&given, cases));
        };
        visitor.visit_enum(Case { case, given: given.clone(), value })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// The items of a list.
struct Items {
    items: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Unheard;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unheard> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Listener(item)).map(Some).map_err(|error| error.within(&format!("[{index}]")))
    }
}

/// The fields of a record.
struct Fields {
    known: &'static [&'static str],
    entries: serde_json::map::IntoIter,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Unheard;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unheard> {
        let Some((given, value)) = self.entries.next() else { return Ok(None) };
        let Some(name) = self.known.iter().find(|name| word(name) == given) else {
            let why = format!(" is unknown; there are {}", words(self.known));
            return Err(Unheard::new(why).within(&format!("{given:.64}")));
        };
        self.next = Some((given, value));
        seed.deserialize(StringDeserializer::new((*name).to_owned())).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Unheard> {
        let (given, value) = self.next.take().unwrap_or_default();
        seed.deserialize(Listener(value)).map_err(|error| error.within(&given))
    }
}

/// A case of a variant.
struct Case {
    /// Its name in Rust.
    case: &'static str,
    /// Its name in the contract.
    given: String,
    value: Option<Value>,
}

impl<'de> EnumAccess<'de> for Case {
    type Error = Unheard;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Unheard> {
        let case = seed.deserialize(StringDeserializer::<Unheard>::new(self.case.to_owned()))?;
        Ok((case, self))
    }
}

impl<'de> VariantAccess<'de> for Case {
    type Error = Unheard;

    fn unit_variant(self) -> Result<(), Unheard> {
        if self.value.is_some() { Err(Unheard::new(" takes no value").within(&self.given)) } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unheard> {
        let Self { given, value, .. } = self;
        let value = value.ok_or_else(|| Unheard::new(" needs a value").within(&given))?;
        seed.deserialize(Listener(value)).map_err(|error| error.within(&given))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Unheard> {
        Err(Unheard::new("has several values, as no case of the contract has").within(&self.given))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _visitor: V) -> Result<V::Value, Unheard> {
        Err(Unheard::new("has fields, as no case of the contract has").within(&self.given))
    }
}
