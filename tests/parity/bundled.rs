//! The bundled checkpoint against `MusicgenForConditionalGeneration`: `fixture.safetensors` beside
//! it holds the ids of a prompt, delayed ids, the logits of some columns with and without the
//! prompt, and the sound of some codes.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};
use continuo::model::{Files, ModelError, MusicGen, decoder::Token, kernels::Kernels, weights::Target};

use super::{
    golden::floats,
    steps::{by_channel, by_frame, rows, share},
};

/// Sums of a few hundred f32 products in another order, on logits of about 10.
const LOGITS: f32 = 1e-3;
/// On sound within -1..1.
const SOUND: f32 = 1e-4;

#[test]
fn the_bundled_model_gives_the_logits_and_the_sound_of_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/continuo-mini");
    let fixture = candle_core::safetensors::load(folder.join("fixture.safetensors"), &Device::Cpu).unwrap();
    let text = std::fs::read(folder.join("fixture.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&text).unwrap();
    let prompt = &header.metadata().as_ref().unwrap()["prompt"];
    for kernels in [Kernels::Native, Kernels::Composed] {
        let target = Target { kernels, ..Target::new(&Device::Cpu) };
        let none = |name: &str| Err(ModelError::NoSuchPlace(name.into()));
        check(&MusicGen::load(&Files::Folder(folder.clone()), &none, &target).unwrap(), &fixture, prompt);
    }
}

fn check(model: &MusicGen, fixture: &HashMap<String, Tensor>, prompt: &str) {
    let ids = |name: &str| -> Vec<u32> {
        fixture[name].flatten_all().unwrap().to_vec1::<i64>().unwrap().into_iter().map(|id| id as u32).collect()
    };
    let encoder = model.text.as_ref().unwrap();
    assert_eq!(encoder.tokens(prompt).unwrap(), ids("text.input_ids"));

    let decoder = &model.decoder;
    let (books, card) = (decoder.config().codebooks, decoder.config().card);
    let columns = fixture["lm.delayed_ids"].dims()[1];
    let sequence = by_frame(&ids("lm.delayed_ids"), books, columns).concat();
    let cross = share(&decoder.prepare(&encoder.encode(prompt).unwrap(), 0).unwrap());
    let tokens: Vec<Token<'_>> = [&cross[..], &[]]
        .into_iter()
        .enumerate()
        .flat_map(|(row, cross)| (0..columns).map(move |position| (row, cross, position)))
        .map(|(row, cross, position)| Token {
            row,
            position,
            ids: &sequence[position * books..][..books],
            cross,
            logits: true,
        })
        .collect();
    let found = rows(&decoder.forward(&mut decoder.cache(2, columns).unwrap(), &tokens).unwrap());
    for (row, name) in ["lm.logits_cond", "lm.logits_uncond"].into_iter().enumerate() {
        // [book, column, card]
        let expected: Vec<Vec<Vec<f32>>> = fixture[name].to_vec3().unwrap();
        for (index, column) in ids("lm.columns").into_iter().enumerate() {
            for book in 0..books {
                let found = &found[row * columns + column as usize][book * card..][..card];
                close(found, &expected[book][index], LOGITS, &format!("{name}, column {column}, codebook {book}"));
            }
        }
    }

    let frames = fixture["codec.codes"].dims()[1];
    let codes = by_frame(&ids("codec.codes"), books, frames).concat();
    let sound = by_channel(&model.codec.decode(&model.to_channels(&codes).unwrap()).unwrap());
    close(&floats(&sound), &floats(&fixture["codec.audio"]), SOUND, "sound");
}

fn close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst =
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, x| if x <= worst { worst } else { x });
    assert!(worst <= tolerance, "{what} differs by {worst:e}");
}
