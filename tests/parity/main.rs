//! Parity with the reference implementations: every tensor of every case, within the case's tolerances.
//!
//! The public cases lie beside this file. `CONTINUO_PARITY_DIR=<folder>` runs the same tests on another folder of
//! cases, whose sizes may differ; a case of a kind that is not known is reported and left out.

#![allow(missing_docs, clippy::unwrap_used)]

mod audiocraft;
mod bundled;
mod golden;
mod musicgen;
mod steps;

use std::path::{Path, PathBuf};

use golden::Golden;

#[derive(PartialEq)]
enum Kind {
    MusicGen,
    Audiocraft,
}

/// The folders of all cases of a kind.
fn cases(kind: &Kind) -> Vec<PathBuf> {
    let root = std::env::var("CONTINUO_PARITY_DIR")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity"), PathBuf::from);
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    found.sort();
    if root.join("golden.safetensors").is_file() {
        found.push(root);
    }
    found.retain(|folder| match kind_of(folder) {
        Some(found) => found == *kind,
        None => {
            println!("left out {}: not a case of MusicGen", folder.display());
            false
        }
    });
    found
}

/// Recognised by content, not by name.
fn kind_of(folder: &Path) -> Option<Kind> {
    if !folder.join("golden.safetensors").is_file() || !folder.join("tolerances.json").is_file() {
        return None;
    }
    let golden = Golden::load(folder);
    if golden.has("lm.sequence") && folder.join("state_dict.bin").is_file() {
        Some(Kind::Audiocraft)
    } else if golden.has("lm.delayed_ids") && folder.join("config.json").is_file() {
        Some(Kind::MusicGen)
    } else {
        None
    }
}

#[test]
fn musicgen_checkpoints_agree_with_the_reference() {
    for folder in cases(&Kind::MusicGen) {
        musicgen::check(&Golden::load(&folder));
        println!("{} agrees", folder.display());
    }
}

#[test]
fn audiocraft_checkpoints_agree_with_the_reference() {
    for folder in cases(&Kind::Audiocraft) {
        audiocraft::check(&Golden::load(&folder));
        println!("{} agrees", folder.display());
    }
}

#[test]
fn there_is_a_case_to_test() {
    assert!(!cases(&Kind::MusicGen).is_empty() || !cases(&Kind::Audiocraft).is_empty());
}
