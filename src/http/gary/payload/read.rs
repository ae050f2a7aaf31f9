//! A payload out of JSON, read field by field: nothing is built of what is not asked for.

use std::fmt::Formatter;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{FIELDS, LONGEST_NAME, Payload};

/// What a JSON text holds; what is wrong with it as a payload is told in its own words.
pub(in super::super) struct Parsed(pub(in super::super) Result<Payload, String>);

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Read { depth: 0 }.deserialize(deserializer).map(Self)
    }
}

/// Reads a payload `depth` texts deep.
pub(super) struct Read {
    pub(super) depth: usize,
}

impl<'de> DeserializeSeed<'de> for Read {
    type Value = Result<Payload, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Read {
    fn other(&self, kind: &str) -> Result<Payload, String> {
        Err(match self.depth {
            0 => format!("Unsupported data type: {kind}; send an object."),
            _ => format!("Invalid JSON format: it holds {kind}, not an object."),
        })
    }
}

impl<'de> Visitor<'de> for Read {
    type Value = Result<Payload, String>;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut payload = Payload::default();
        while let Some(name) = map.next_key_seed(Name)? {
            match name {
                Some(name) if payload.fields.len() > FIELDS && !payload.fields.contains_key(&name) => {
                    map.next_value::<IgnoredAny>()?;
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(Err(format!("The JSON has more than {FIELDS} fields; send what is asked for.")));
                }
                Some(name) => map.next_value_seed(Field { payload: &mut payload, name })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Ok(payload))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        if self.depth > 2 {
            return Ok(self.other("a text"));
        }
        Ok(Payload::parse_text(text, self.depth + 1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.other("an array"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(self.other("a truth value"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(self.other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(self.other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(self.other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.other("nothing"))
    }
}

/// Reads a name, unless it is longer than any that means something.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<String>;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok((name.len() <= LONGEST_NAME).then(|| name.to_owned()))
    }
}

/// Reads a value into its field; of what is no field's value only the kind is kept.
struct Field<'a> {
    payload: &'a mut Payload,
    name: String,
}

impl Field<'_> {
    fn put(self, value: Value) {
        self.payload.fields.insert(self.name, value);
    }
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.payload.insert_text(self.name, text);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(value.into());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(value.into());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(value.into());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(value.into());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Value::Null);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.put(Value::Array(Vec::new()));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.put(Value::Object(Map::new()));
        Ok(())
    }
}
