//! A TOML file in which every place is known, and what is wrong with it line by line.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a file.
#[derive(Debug)]
pub(in crate::cli) struct Faults {
    file: String,
    /// By line; one of each, since what follows a fault in its line may follow from it.
    faults: Vec<(usize, String)>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, faults } = self;
        match faults.len() {
            1 => write!(f, "{file} has a fault:")?,
            count => write!(f, "{file} has {count} faults:")?,
        }
        faults.iter().try_for_each(|(line, sentence)| write!(f, "\n  {file}:{line}: {sentence}"))
    }
}

/// Gives the value of an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A file while it is read.
pub(super) struct Document<'a> {
    text: &'a str,
    faults: Vec<(usize, String)>,
}

impl<'a> Document<'a> {
    /// What is in the file, with the environment's values put in the place of `${NAME}`.
    pub(super) fn read(text: &'a str, environment: Environment<'_>) -> (Self, DeTable<'a>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self { text, faults: Vec::new() };
        for error in errors {
            document.fault(error.span().unwrap_or_default(), error.message());
        }
        let mut root = root.into_inner();
        root.iter_mut().for_each(|(_, value)| document.fill(value, environment));
        (document, root)
    }

    /// Notes what is wrong at a place.
    pub(super) fn fault(&mut self, at: Range<usize>, sentence: &str) {
        let line = 1 + self.text.bytes().take(at.start).filter(|byte| *byte == b'\n').count();
        if self.faults.iter().all(|(other, _)| *other != line) {
            self.faults.push((line, format!("{}.", sentence.trim_end_matches('.'))));
        }
    }

    /// `value`, which was read from the file of this name, unless there are faults.
    pub(super) fn finish<T>(mut self, file: &str, value: T) -> Result<T, Faults> {
        self.faults.sort();
        if self.faults.is_empty() { Ok(value) } else { Err(Faults { file: file.to_owned(), faults: self.faults }) }
    }

    fn fill(&mut self, value: &mut Spanned<DeValue<'_>>, environment: Environment<'_>) {
        let at = value.span();
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => match filled(text, environment) {
                Ok(filled) => *text = filled.into(),
                Err(sentence) => self.fault(at, &sentence),
            },
            DeValue::Array(values) => values.iter_mut().for_each(|value| self.fill(value, environment)),
            DeValue::Table(table) => table.iter_mut().for_each(|(_, value)| self.fill(value, environment)),
            _ => {}
        }
    }
}

/// A value of the environment is put in as it is, whatever it contains.
fn filled(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("`${` has no end; write ${NAME}")?;
        let value = environment(name).ok_or_else(|| format!("the environment has no `{name}`; set it"))?;
        filled.extend([before, &value]);
        rest = after;
    }
    Ok(filled + rest)
}
