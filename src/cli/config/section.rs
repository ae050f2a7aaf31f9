//! Lists of tables as typed values. Every key is read by itself, so that all faults are found at
//! once.

use serde::de::value::Error;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;

/// A kind of table that may be repeated.
pub(super) trait Section: DeserializeOwned {
    /// The shortest one that is right.
    const LEAST: &str;
    /// What no other table of the kind may have, too.
    fn name(&self) -> Option<&str>;
}

/// The tables of `[[key]]`, which have to pass a last check.
pub(super) fn read<T: Section>(
    document: &mut Document<'_>,
    root: &DeTable<'_>,
    key: &str,
    check: impl Fn(&T) -> Result<(), String>,
) -> Vec<T> {
    let Some((_, value)) = root.iter().find(|(name, _)| *name.get_ref() == key) else { return Vec::new() };
    let tables = value.get_ref().as_array().filter(|tables| tables.iter().all(|table| table.get_ref().is_table()));
    let Some(tables) = tables else {
        document.fault(value.span(), &format!("`{key}` is a list of tables; begin each with [[{key}]]"));
        return Vec::new();
    };
    let mut read: Vec<T> = Vec::new();
    for table in tables.iter() {
        let Some(one) = one::<T>(document, table) else { continue };
        if let Err(sentence) = check(&one) {
            document.fault(table.span(), &sentence);
        }
        match one.name().filter(|name| read.iter().any(|other| other.name() == Some(*name))) {
            Some(name) => document.fault(table.span(), &format!("`{name}` is there twice; give each its own name")),
            None => read.push(one),
        }
    }
    read
}

fn one<T: Section>(document: &mut Document<'_>, table: &Spanned<DeValue<'_>>) -> Option<T> {
    let keys = table.get_ref().as_table()?;
    let known = fields::<T>();
    // What is right so far, and something right for what is not there.
    let mut right = DeTable::parse(T::LEAST).map(Spanned::into_inner).unwrap_or_default();
    let mut is_right = true;
    for (key, value) in keys {
        let name: &str = key.get_ref();
        let fault = if known.contains(&name) {
            let mut more = right.clone();
            more.insert(key.clone(), value.clone());
            match deserialize::<T>(Spanned::new(0..0, more.clone())) {
                Ok(_) => {
                    right = more;
                    None
                }
                Err(error) => {
                    let at = error.span().filter(|at| value.span().contains(&at.start)).unwrap_or_else(|| key.span());
                    let names_it = error.message().contains(&format!("`{name}`"));
                    Some((at, if names_it { error.message().into() } else { format!("`{name}`: {}", error.message()) }))
                }
            }
        } else {
            Some((key.span(), unknown(name, known.iter().copied())))
        };
        if let Some((at, sentence)) = fault {
            document.fault(at, &sentence);
            is_right = false;
        }
    }
    let whole = is_right.then(|| deserialize(Spanned::new(table.span(), keys.clone())))?;
    whole.map_err(|error| document.fault(table.span(), error.message())).ok()
}

fn deserialize<T: DeserializeOwned>(table: Spanned<DeTable<'_>>) -> Result<T, toml::de::Error> {
    T::deserialize(toml::Deserializer::from(table))
}

/// What is said of a key that there is not.
pub(super) fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let likeness = |name: &str| strsim::jaro_winkler(&key.to_lowercase().replace('_', "-"), name);
    match known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(nearest) => format!("`{key}` is not known; the nearest key is `{nearest}`"),
        None => format!("`{key}` is not known"),
    }
}

/// The names of a struct's fields, as its own deserializer asks for them.
pub(super) fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Asked<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Asked<'_> {
        type Error = Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
            Err(Error::custom("only the names are wanted"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // It never succeeds.
    let _ = T::deserialize(Asked(&mut fields));
    fields
}
