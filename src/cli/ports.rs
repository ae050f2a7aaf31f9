//! `--gary-port` and its like: one more port for each original that this server stands in for.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::http::{SURFACES, Surface};

/// Who is to be spoken on which further ports.
pub(super) struct Ports(pub(super) Vec<(&'static Surface, u16)>);

impl Args for Ports {
    fn augment_args(command: Command) -> Command {
        command.args(SURFACES.iter().map(|surface| {
            let help = format!(
                "One more port, where {} alone is spoken (the original's is {})",
                surface.called, surface.usual_port
            );
            Arg::new(surface.option)
                .long(surface.option)
                .value_name("PORT")
                .value_parser(value_parser!(u16).range(1..))
                .help(help)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Ports {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SURFACES.iter().filter_map(|surface| Some((surface, *matches.get_one::<u16>(surface.option)?)));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
