//! Parity with the reference implementations: every tensor of every case, within the case's
//! tolerances.
//!
//! The public cases lie beside this file. `CONTINUO_PARITY_DIR=<folder>` runs the same tests on
//! another folder of cases, whose sizes may differ; a case of a kind that is not known is reported
//! and left out.

#![allow(missing_docs, clippy::unwrap_used)]

mod audiocraft;
mod bundled;
mod golden;
mod melodyflow;
mod musicgen;
mod sinc;
mod stable_audio;
mod stable_audio_api;
mod steps;
mod two_sided;

use std::path::{Path, PathBuf};

use golden::Golden;

#[derive(PartialEq, Eq)]
enum Kind {
    MusicGen,
    Audiocraft,
    MelodyFlow,
    StableAudio,
    StableAudioApi,
}

/// The folders of all cases of a kind, up to two levels deep.
fn cases(kind: &Kind) -> Vec<PathBuf> {
    let root = std::env::var("CONTINUO_PARITY_DIR")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity"), PathBuf::from);
    let mut found: Vec<PathBuf> = folders(&root).iter().flat_map(|folder| folders(folder)).collect();
    found.extend(folders(&root));
    found.push(root);
    found.sort();
    found.retain(|folder| kind_of(folder).as_ref() == Some(kind));
    found
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Recognised by content, not by name.
fn kind_of(folder: &Path) -> Option<Kind> {
    if folder.join("handlers.json").is_file() && folder.join("audio.safetensors").is_file() {
        return Some(Kind::StableAudioApi);
    }
    if !folder.join("golden.safetensors").is_file() {
        return None;
    }
    let golden = Golden::load(folder);
    if golden.has("dit.velocity") && folder.join("state_dict.bin").is_file() {
        Some(Kind::MelodyFlow)
    } else if folder.join("model/model_config.json").is_file() {
        Some(Kind::StableAudio)
    } else if golden.has("lm.sequence") && folder.join("state_dict.bin").is_file() {
        Some(Kind::Audiocraft)
    } else if golden.has("lm.delayed_ids") && folder.join("config.json").is_file() {
        Some(Kind::MusicGen)
    } else {
        println!("left out {}: not a case that is known here", folder.display());
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
fn melodyflow_checkpoints_agree_with_the_reference() {
    for folder in cases(&Kind::MelodyFlow) {
        melodyflow::check(&Golden::load(&folder));
        println!("{} agrees", folder.display());
    }
}

#[test]
fn stable_audio_checkpoints_agree_with_the_reference() {
    for folder in cases(&Kind::StableAudio) {
        let golden = Golden::load(&folder);
        stable_audio::check(&golden);
        if folder.join("api.safetensors").is_file() {
            stable_audio_api::check_runs(&golden);
        }
        println!("{} agrees", folder.display());
    }
}

#[test]
fn loops_and_uploads_are_handled_as_the_original_handles_them() {
    for folder in cases(&Kind::StableAudioApi) {
        stable_audio_api::check_handlers(&folder);
        println!("{} agrees", folder.display());
    }
}

#[test]
fn a_trainings_checkpoint_goes_over_the_model_that_it_began_with() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/stable-audio-small");
    stable_audio::check_tuned(&folder.join("case-a"), &folder.join("tuned.ckpt"));
}

#[test]
fn there_is_a_case_to_test() {
    let kinds = [Kind::MusicGen, Kind::Audiocraft, Kind::MelodyFlow, Kind::StableAudio];
    assert!(kinds.iter().any(|kind| !cases(kind).is_empty()));
}
