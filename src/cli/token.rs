//! `continuo token` and `continuo sign`: what operators hand out.

use std::time::Duration;

use clap::Args;

use super::Outcome;
use super::bounds::within;
use super::log::{note, print};
use crate::http::{Scope, SigningKey, Token};

#[derive(Args)]
pub(super) struct TokenArgs {
    /// Whose token it is: a word for the file and for refusals
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is good for: listen, steer, produce or admin; may be repeated
    #[arg(long, required = true, value_name = "SCOPE", value_delimiter = ',')]
    scope: Vec<Scope>,
    /// A station that it is for; may be repeated. Without it the token is for the whole server
    #[arg(long, value_name = "STATION")]
    station: Vec<String>,
}

/// The secret goes to whoever sits there, the table for the configuration file to the standard
/// output.
pub(super) fn make(args: &TokenArgs) -> Outcome {
    let secret = Token::draw().map_err(super::Failure)?;
    let list = |texts: Vec<&str>| texts.into_iter().map(quoted).collect::<Vec<_>>().join(", ");
    let scopes = list(args.scope.iter().map(|scope| scope.name()).collect());
    let mut table = format!(
        "\n[[tokens]]\nname = {}\nhash = {}\nscopes = [{scopes}]",
        quoted(&args.name),
        quoted(&Token::hash(&secret))
    );
    if !args.station.is_empty() {
        table += &format!("\nstations = [{}]", list(args.station.iter().map(String::as_str).collect()));
    }
    print(table)?;
    note(format_args!("The token, which is kept nowhere: {secret}"));
    Ok(())
}

/// A text as TOML has it: JSON's escapes are among its own.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[derive(Args)]
pub(super) struct SignArgs {
    /// The station, or the id of a stream
    #[arg(value_name = "STATION")]
    station: String,
    /// Hours that the address is good for
    #[arg(long, default_value_t = 24.0, value_name = "HOURS", value_parser = within(0.001, 100_000.0, "hours"))]
    hours: f64,
    /// The server's --signing-key
    #[arg(long, env = "CONTINUO_SIGNING_KEY", hide_env_values = true, value_name = "SECRET")]
    signing_key: SigningKey,
}

/// The query alone: it fits every path of the station.
pub(super) fn sign(args: &SignArgs) -> Outcome {
    print(args.signing_key.sign(&args.station, Duration::from_secs_f64(args.hours * 3600.0)))
}
