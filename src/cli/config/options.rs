//! Keys that are the long options of `serve`: the same names and values, read by the same parsers.

use std::error::Error;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command, CommandFactory, Id};
use toml::de::DeValue;

use crate::cli::Cli;

/// The option that names the file itself.
pub(in crate::cli) const CONFIG: &str = "config";

/// What a file says of one option.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) option: Id,
    /// As on the command line.
    pub(super) arguments: Vec<String>,
}

/// The options of `serve` by their keys, without those that have none.
pub(super) fn all() -> Vec<(String, Arg)> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").into_iter().flat_map(Command::get_arguments);
    let keyed = serve.filter_map(|arg| Some((arg.get_long()?.to_owned(), arg.clone())));
    keyed.filter(|(key, _)| key != CONFIG).collect()
}

/// Reads the value of an option.
///
/// # Errors
/// What is wrong with it.
pub(super) fn setting(key: &str, arg: &Arg, value: &DeValue<'_>) -> Result<Setting, String> {
    let arguments = arguments(key, arg, value)?;
    // The environment is not what is looked at here.
    let alone = Command::new("serve").no_binary_name(true).arg(arg.clone().env(Resettable::Reset));
    match alone.try_get_matches_from(&arguments) {
        Ok(_) => Ok(Setting { key: key.to_owned(), option: arg.get_id().clone(), arguments }),
        Err(error) => Err(format!("`{key}`: {}", sentence(&error))),
    }
}

fn arguments(key: &str, arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let argument = |value: &DeValue<'_>| text(value).map(|text| format!("--{key}={text}"));
    let (fits, arguments) = match (arg.get_action(), value) {
        (ArgAction::SetTrue, value) => {
            let is_set = value.as_bool().or_else(|| value.as_str()?.parse().ok());
            ("is true or false", is_set.map(|is_set| is_set.then(|| format!("--{key}")).into_iter().collect()))
        }
        (ArgAction::Append, DeValue::Array(values)) => {
            ("is a list of texts", values.iter().map(|value| argument(value.get_ref())).collect())
        }
        (ArgAction::Append, value) => ("is a list of texts", argument(value).map(|one| vec![one])),
        (_, value) => ("is one text or number", argument(value).map(|one| vec![one])),
    };
    arguments.ok_or_else(|| format!("`{key}` {fits}"))
}

/// A text or a number.
fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Why an option's parser refused a value.
fn sentence(error: &clap::Error) -> String {
    match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => format!("it is one of {}", valid.join(", ")),
        (None, _) => error.kind().to_string(),
    }
}
