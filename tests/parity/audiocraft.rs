//! Cases in audiocraft's export format, made by its own loader and `LMModel`.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use continuo::model::{
    Files, audiocraft,
    config::{CodecConfig, DecoderConfig},
    decoder::{CrossShare, Decoder, Prompt, Token},
    delay,
    encodec::Codec,
    weights::{Target, Weights},
};

use super::{
    golden::Golden,
    steps::{Voice, by_book, by_frame, generate, rows, share},
};

pub fn check(golden: &Golden) {
    let files = Files::Folder(golden.folder.clone());
    let target = Target::new(&Device::Cpu);
    let part = audiocraft::decoder(&files).unwrap();
    let states = golden.input("text.states");
    let config = DecoderConfig::from_hf(&part.config, states.dim(2).unwrap()).unwrap();
    let decoder = Decoder::new(&config, &Weights::new(&part.tensors, &target)).unwrap();
    let mask = golden.input("text.mask").to_dtype(DType::F32).unwrap();
    let projected = decoder.project(&states).unwrap();
    golden.check("cond.projected", &projected.broadcast_mul(&mask.unsqueeze(2).unwrap()).unwrap());

    let batch = golden.dims("lm.codes")[0];
    let width = states.dim(1).unwrap();
    let lengths: Vec<usize> =
        mask.to_vec2::<f32>().unwrap().iter().map(|row| row.iter().sum::<f32>() as usize).collect();
    let prompt = |index: usize, padded: bool| -> Arc<Prompt> {
        let own = states.get(index).unwrap().narrow(0, 0, lengths[index]).unwrap();
        decoder.prepare(&own, if padded { width - lengths[index] } else { 0 }).unwrap()
    };
    let padded: Vec<Arc<Prompt>> = (0..batch).map(|index| prompt(index, true)).collect();
    let single: Vec<Arc<Prompt>> = (0..batch).map(|index| prompt(index, false)).collect();
    let guidance = part.generation["guidance_scale"].as_f64().unwrap();
    forward(golden, &decoder, guidance, &padded, &single);
    generation(golden, &decoder, guidance, &padded, &single);
    codecs(golden, &target);
    golden.finish();
}

fn forward(golden: &Golden, decoder: &Decoder, guidance: f64, padded: &[Arc<Prompt>], single: &[Arc<Prompt>]) {
    let config = decoder.config();
    let (books, card) = (config.codebooks, config.card);
    let delays = delay::delays(books, config.channels);
    let frames = golden.dims("lm.codes")[2];
    let sequences: Vec<Vec<u32>> = by_frame(&golden.ids("lm.codes"), books, frames)
        .iter()
        .map(|codes| delay::apply(codes, &delays, card as u32))
        .collect();
    golden.check_ids("lm.sequence", &by_book(&sequences, books));
    let columns = delay::columns(frames, &delays);
    let holds = |book: usize, column: usize| delay::frame_at(column, delays[book]).is_some_and(|frame| frame < frames);
    let held = (0..books).flat_map(|book| (0..columns).map(move |column| (book, column)));
    golden.check_ids("lm.sequence_mask", &held.map(|(book, column)| holds(book, column).into()).collect::<Vec<_>>());

    let run = |crosses: &[Vec<CrossShare>]| -> Tensor {
        let mut cache = decoder.cache(crosses.len(), columns).unwrap();
        let tokens: Vec<Token<'_>> = crosses
            .iter()
            .enumerate()
            .flat_map(|(row, cross)| {
                let sequence = &sequences[row];
                sequence.chunks_exact(books).enumerate().map(move |(position, ids)| Token {
                    row,
                    position,
                    ids,
                    cross,
                    logits: true,
                })
            })
            .collect();
        let logits = decoder.forward(&mut cache, &tokens).unwrap();
        assert_eq!(rows(&logits).len(), crosses.len() * columns);
        logits.reshape((crosses.len(), columns, books, card)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap()
    };
    let cond = run(&padded.iter().map(share).collect::<Vec<_>>());
    let uncond = run(&vec![Vec::new(); sequences.len()]);
    golden.check("lm.logits_cond", &cond);
    golden.check("lm.logits_uncond", &uncond);
    golden.check("lm.logits_cond_unpadded", &run(&single.iter().map(share).collect::<Vec<_>>()));
    golden.check("lm.logits_guided", &(&uncond + ((&cond - &uncond).unwrap() * guidance).unwrap()).unwrap());
    // Moved back to frames: codebook k of frame f is predicted by the column before the one that
    // holds it.
    let moved: Vec<Tensor> =
        (0..books).map(|book| cond.narrow(1, book, 1).unwrap().narrow(2, delays[book], frames).unwrap()).collect();
    golden.check("lm.predictions_cond", &Tensor::cat(&moved, 1).unwrap());
}

fn generation(golden: &Golden, decoder: &Decoder, guidance: f64, padded: &[Arc<Prompt>], single: &[Arc<Prompt>]) {
    let config = decoder.config();
    let delays = delay::delays(config.codebooks, config.channels);
    let length = |name: &str| delay::columns(golden.dims(name)[2], &delays);
    let voice = |prompt: &Arc<Prompt>, codes: &[u32], name: &str| Voice {
        prompt: Some(prompt.clone()),
        guidance: guidance as f32,
        codes: codes.to_vec(),
        length: length(name),
    };
    let prompt_frames = golden.dims("gen.cont.prompt_codes")[2];
    let prompt_codes = by_frame(&golden.ids("gen.cont.prompt_codes"), config.codebooks, prompt_frames);
    let mut voices: Vec<Voice> = padded.iter().map(|prompt| voice(prompt, &[], "gen.batch.codes")).collect();
    voices.extend(single.iter().map(|prompt| voice(prompt, &[], "gen.single.codes")));
    voices.extend(prompt_codes.iter().enumerate().map(|(index, codes)| voice(&single[index], codes, "gen.cont.codes")));
    let codes: Vec<Vec<u32>> =
        generate(decoder, &voices).iter().map(|columns| delay::remove(columns, &delays)).collect();
    let (batch, rest) = codes.split_at(padded.len());
    let (alone, cont) = rest.split_at(single.len());
    for (name, codes) in [("batch", batch), ("single", alone), ("cont", cont)] {
        golden.check_ids(&format!("gen.{name}.codes"), &by_book(codes, config.codebooks));
    }
}

fn codecs(golden: &Golden, target: &Target) {
    if !golden.has("codec.wave") {
        return;
    }
    let wave = golden.input("codec.wave").transpose(1, 2).unwrap();
    for name in golden.names("codec.") {
        let Some(mode) = name.strip_prefix("codec.").and_then(|name| name.strip_suffix(".codes")) else { continue };
        if mode.starts_with("rand") {
            continue;
        }
        let files = Files::Folder(golden.folder.join(format!("own-codec-{mode}")));
        let part = audiocraft::codec(&files).unwrap();
        let config = CodecConfig::from_hf(&part.config).unwrap();
        let codec = Codec::new(&config, &Weights::new(&part.tensors, target).at("audio_encoder")).unwrap();
        let codes = codec.encode(&wave).unwrap().transpose(1, 2).unwrap();
        golden.check_ids(&name, &codes.flatten_all().unwrap().to_vec1::<u32>().unwrap());
        for random in golden.names("codec.rand") {
            let Some(random) = random.strip_prefix("codec.").and_then(|name| name.strip_suffix(".codes")) else {
                continue;
            };
            let input = format!("codec.{random}.codes");
            let (books, frames) = (golden.dims(&input)[1], golden.dims(&input)[2]);
            let codes = by_frame(&golden.ids(&input), books, frames).concat();
            let codes = Tensor::from_vec(codes, (1, frames, books), &Device::Cpu).unwrap();
            golden.check(
                &format!("codec.{mode}.{random}.audio"),
                &codec.decode(&codes).unwrap().transpose(1, 2).unwrap(),
            );
        }
    }
}
