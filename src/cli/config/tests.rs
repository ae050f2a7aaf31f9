#![allow(clippy::unwrap_used)]

use clap::CommandFactory;

use super::*;
use crate::cli::Cli;

const EXAMPLE: &str = include_str!("../../../deploy/continuo.toml");

fn nothing(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> Said {
    said(Path::new("x.toml"), text, &nothing).unwrap()
}

fn faults(text: &str) -> Vec<String> {
    let faults = said(Path::new("x.toml"), text, &nothing).unwrap_err().to_string();
    faults.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

/// What a command line leaves to the file.
fn arguments(text: &str, given: &[&str]) -> Vec<String> {
    let config = Config { path: "x.toml".into(), text: text.into(), said: read(text) };
    let matches = Cli::command().get_matches_from(["continuo", "serve"].iter().chain(given));
    config.arguments(matches.subcommand_matches("serve").unwrap()).cloned().collect()
}

/// The example with every line in force that shows one.
fn in_force() -> String {
    let shows = |line: &str| {
        let shown =
            line.strip_prefix('#').filter(|rest| rest.starts_with(|first: char| first.is_alphabetic() || first == '['));
        shown.map(str::to_owned)
    };
    EXAMPLE.lines().map(|line| shows(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn the_example_is_right_as_it_is_and_with_every_line_in_force() {
    let secret = |name: &str| {
        ["CONTINUO_SECRET", "ICECAST_PASSWORD"].contains(&name).then(|| "a secret of many letters".to_owned())
    };
    for text in [EXAMPLE.to_owned(), in_force()] {
        let said = said(Path::new("continuo.toml"), &text, &secret).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(said.timetable.stations.len(), 2);
    }
}

#[test]
fn the_example_shows_every_option_and_what_holds_without_it() {
    let text = in_force();
    let root = toml::de::DeTable::parse(&text).unwrap().into_inner();
    for (key, arg) in options::all() {
        let shown = root.iter().find(|(name, _)| *name.get_ref() == key);
        let (_, shown) = shown.unwrap_or_else(|| panic!("{key} is not in the example"));
        let shown = options::setting(&key, &arg, shown.get_ref());
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        if let [default] = default[..]
            && arg.get_action().takes_values()
        {
            assert_eq!(shown.unwrap().arguments, [format!("--{key}={default}")]);
        }
    }
}

#[test]
fn the_example_shows_every_key_of_every_section() {
    let text = in_force();
    let root = toml::de::DeTable::parse(&text).unwrap().into_inner();
    for (section, fields) in [
        (STATIONS, section::fields::<Entry>()),
        (SCHEDULE, section::fields::<Cue>()),
        (PUSH, section::fields::<Push>()),
        (TOKENS, section::fields::<Token>()),
    ] {
        let (_, tables) = root.iter().find(|(name, _)| *name.get_ref() == section).unwrap();
        let tables = tables.get_ref().as_array().unwrap().iter().map(|table| table.get_ref().as_table().unwrap());
        let shown: Vec<String> = tables.flat_map(|table| table.keys().map(|key| key.get_ref().to_string())).collect();
        assert!(!fields.is_empty());
        for field in fields {
            assert!(shown.iter().any(|key| key == field), "{section}: {field} is not in the example");
        }
    }
}

#[test]
fn no_option_has_the_name_of_a_section() {
    let options = options::all();
    assert!(options.len() > 40, "{}", options.len());
    assert!(options.iter().all(|(key, _)| !SECTIONS.contains(&key.as_str())));
}

#[test]
fn a_key_says_what_its_option_would() {
    let text = "port = 99\nprivate-addresses = true\noffer = [\"a/b\", \"c/d\"]\nlead = 4.5\nallow-origin = \"null\"";
    let mut said = arguments(text, &[]);
    said.sort();
    let wanted =
        ["--allow-origin=null", "--lead=4.5", "--offer=a/b", "--offer=c/d", "--port=99", "--private-addresses"];
    assert_eq!(said, wanted);
    assert!(arguments("private-addresses = false", &[]).is_empty());
}

#[test]
fn the_command_line_wins_over_the_file() {
    let text = "port = 99\nhost = \"0.0.0.0\"\noffer = [\"a/b\"]";
    assert_eq!(arguments(text, &["--port", "7", "--offer", "c/d"]), ["--host=0.0.0.0"]);
}

#[test]
fn all_faults_are_told_at_once_with_their_lines() {
    let text = "\
prot = 99
port = 70000
max_listeners = 5

device = \"gpu\"
clips = true
lead = 0.1
offer = 5
[[stations]]
name = \"a\"
prompts = [\"x\", 7]
temprature = 0.5
[[stations]]
prompts = []
guidance = \"much\"
[[stations]]
name = \"b\"
[[stations]]
name = \"c\"
prompts = [\"x\"]
[[stations]]
name = \"c\"
prompts = [\"x\"]
[[schedule]]
station = \"c\"
at = \"at six\"
prompts = [\"x\"]
[[schedule]]
station = \"d\"
at = \"0 6 * * * UTC\"
prompts = [\"x\"]
[[staitons]]
";
    let wanted = [
        (1, "`prot` is not known; the nearest key is `port`."),
        (2, "`port`: 70000 is not in 0..=65535."),
        (3, "`max_listeners` is not known; the nearest key is `max-listeners`."),
        (5, "`device`: it is one of auto, cpu, cuda, metal."),
        (6, "`clips` is one text or number."),
        (7, "`lead`: it must lie between 0.5 and 120 seconds."),
        (11, "`prompts`: a prompt is a text, or has a `text` and a `weight`."),
        (12, "`temprature` is not known; the nearest key is `temperature`."),
        (14, "`prompts`"),
        (15, "`guidance`: invalid type: string \"much\", expected f32."),
        (16, "missing field `prompts`."),
        (21, "`c` is there twice; give each its own name."),
        (26, "`at` is minute, hour, day, month, weekday and zone"),
        (28, "`d` is none of [[stations]]."),
        (32, "`staitons` is not known; the nearest key is `stations`."),
    ];
    let faults = faults(text);
    assert_eq!(faults.len(), wanted.len(), "{faults:#?}");
    for ((line, sentence), fault) in wanted.into_iter().zip(&faults) {
        assert!(fault.starts_with(&format!("x.toml:{line}: {sentence}")), "{fault}, not {line}: {sentence}");
    }
}

#[test]
fn what_is_no_toml_is_told_with_every_line() {
    let faults = faults("port = = 3\nhost = \"x\"\nlead = \"8\nmodle = 1\n");
    let lines: Vec<_> = faults.iter().map(|fault| fault.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["1", "3", "4"], "{faults:#?}");
}

#[test]
fn the_environment_is_put_in_as_it_is() {
    let environment = |name: &str| match name {
        "PORT" => Some("99".to_owned()),
        "SECRET" => Some("${PORT}\"\n".to_owned()),
        _ => None,
    };
    let text = "port = \"${PORT}\"\ntoken = \"a${SECRET}b${PORT}\"\n[[stations]]\nname = \"s${PORT}\"\nprompts = [\"${SECRET}\"]";
    let said = said(Path::new("x.toml"), text, &environment).unwrap();
    let mut arguments: Vec<_> = said.settings.into_iter().flat_map(|setting| setting.arguments).collect();
    arguments.sort();
    assert_eq!(arguments, ["--port=99", "--token=a${PORT}\"\nb99"]);
    assert_eq!(
        (said.timetable.stations[0].name.as_str(), said.timetable.stations[0].prompts[0].text.as_str()),
        ("s99", "${PORT}\"\n")
    );
    let faults = faults("token = \"${NOBODY}\"\nhost = \"${\"");
    assert_eq!(faults[0], "x.toml:1: the environment has no `NOBODY`; set it.");
    assert_eq!(faults[1], "x.toml:2: `${` has no end; write ${NAME}.");
}

#[test]
fn keys_that_differ_between_two_versions_are_named_once() {
    let push = "[[push]]\nstation = \"a\"\nurl = \"http://x/y\"\npassword = \"p\"";
    let (old, new) =
        (read("port = 1\nhost = \"x\"\nlead = 8"), read(&format!("port = 2\nlead = 8\nclips = 3\n{push}")));
    assert_eq!(old.differing(&new), ["clips", "host", "port", "push"]);
    assert!(old.differing(&old).is_empty());
}
