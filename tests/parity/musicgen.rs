//! Cases in the Hugging Face layout, made by `MusicgenForConditionalGeneration`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use continuo::model::{
    Files, ModelError, MusicGen,
    decoder::{CrossShare, Part, Prompt, Token},
    delay,
    encodec::fused_weight,
    kernels::Kernels,
    sampler::{Shaping, probabilities},
    t5::bucket,
    weights::{Target, TensorSource, Weights},
};

use super::{
    golden::{Golden, floats},
    steps::{Voice, by_book, by_channel, by_frame, generate, share},
};

pub fn check(golden: &Golden) {
    let renamed = tempfile::tempdir().unwrap();
    let hub = hub_layout(&golden.folder, renamed.path());
    for (label, folder, kernels) in [
        ("native", golden.folder.clone(), Kernels::Native),
        ("composed", golden.folder.clone(), Kernels::Composed),
        ("hub layout", hub, Kernels::Native),
    ] {
        if !folder.is_dir() {
            continue;
        }
        golden.label(label);
        let model = load(golden, &folder, kernels);
        let prompts = text(golden, &model);
        conditions(golden, &model);
        teacher_forcing(golden, &model, &prompts);
        generation(golden, &model, &prompts);
        codec(golden, &model, &folder);
    }
    golden.label("");
    delay_pattern(golden);
    sampling(golden);
    golden.finish();
}

/// The same checkpoint as older versions of the reference write it: in a folder of its own, or,
/// where that holds no weights, made in `scratch` from those of the case, which differ by names
/// alone: those of the weight norm's parts, and of the text encoder's table, which is stored under
/// either of two.
fn hub_layout(case: &Path, scratch: &Path) -> PathBuf {
    let folder = case.join("hub-layout");
    if !folder.is_dir() || folder.join("model.safetensors").is_file() {
        return folder;
    }
    for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        std::fs::copy(&file, scratch.join(file.file_name().unwrap())).unwrap();
    }
    let old = |name: String| {
        name.replace("parametrizations.weight.original0", "weight_g")
            .replace("parametrizations.weight.original1", "weight_v")
            .replace("text_encoder.shared.weight", "text_encoder.encoder.embed_tokens.weight")
    };
    let weights = candle_core::safetensors::load(case.join("model.safetensors"), &Device::Cpu).unwrap();
    let weights: HashMap<String, Tensor> = weights.into_iter().map(|(name, weight)| (old(name), weight)).collect();
    candle_core::safetensors::save(&weights, scratch.join("model.safetensors")).unwrap();
    scratch.to_owned()
}

fn target(kernels: Kernels) -> Target {
    Target { kernels, ..Target::new(&Device::Cpu) }
}

fn load(golden: &Golden, folder: &Path, kernels: Kernels) -> MusicGen {
    let none = |name: &str| Err(ModelError::NoSuchPlace(name.into()));
    // Other layouts of the same weights come without a tokenizer of their own.
    let copy = tempfile::tempdir().unwrap();
    let own: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in own.into_iter().filter(|path| path.is_file()).chain([golden.folder.join("tokenizer.json")]) {
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    MusicGen::load(&Files::Folder(copy.path().to_owned()), &none, &target(kernels)).unwrap()
}

/// Text tensors; gives the prepared prompts.
fn text(golden: &Golden, model: &MusicGen) -> Vec<Arc<Prompt>> {
    let encoder = model.text.as_ref().unwrap();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(golden.folder.join(name)).unwrap()).unwrap()
    };
    for case in read("tokenizer_cases.json").as_array().unwrap() {
        let expected: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let found = encoder.tokens(case["text"].as_str().unwrap()).unwrap();
        golden.expect(found == expected, format!("tokens of {:?}: {found:?}, expected {expected:?}", case["text"]));
    }
    let texts: Vec<String> = serde_json::from_value(read("prompts.json")).unwrap();
    let mut rows: Vec<Vec<u32>> = texts.iter().map(|text| encoder.tokens(text).unwrap()).collect();
    let length = rows.iter().map(Vec::len).max().unwrap();
    let mask: Vec<Vec<u32>> =
        rows.iter().map(|row| (0..length).map(|at| u32::from(at < row.len())).collect()).collect();
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    for row in &mut rows {
        row.resize(length, 0);
    }
    golden.check_ids("text.input_ids", &rows.concat());
    golden.check_ids("text.attention_mask", &mask.concat());
    let valid: Vec<bool> = mask.concat().iter().map(|keep| *keep == 1).collect();
    let states = encoder
        .t5
        .forward(&rows, Some(&mask), &mut |name, x| {
            if name == "embed" {
                golden.check("text.t5_embed", x);
            } else if golden.has(&format!("text.t5_{name}")) {
                golden.check_rows(&format!("text.t5_{name}"), x, &valid);
            }
        })
        .unwrap();
    golden.check_rows("text.t5_hidden", &states, &valid);

    let long = golden.ids("text.t5_long_input_ids");
    golden.check("text.t5_long_hidden", &encoder.t5.forward(&[long], None, &mut |_, _| {}).unwrap());
    let count = golden.dims("text.rel_pos_bucket")[0] as i64;
    let config = &model.config.text;
    let buckets = (0..count).map(|index| {
        let distance = index - count / 2;
        bucket(distance, config.relative_attention_num_buckets, config.relative_attention_max_distance) as u32
    });
    golden.check_ids("text.rel_pos_bucket", &buckets.collect::<Vec<_>>());

    // For guidance, the reference appends as many rows of zeros.
    let both = Tensor::cat(&[&states, &states.zeros_like().unwrap()], 0).unwrap();
    let mut valid_or_null = valid.clone();
    valid_or_null.resize(2 * valid.len(), true);
    golden.check_rows("cond.states", &both, &valid_or_null);
    let mut both_masks = mask.concat();
    both_masks.resize(2 * both_masks.len(), 0);
    golden.check_ids("cond.mask", &both_masks);

    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let alone = encoder.encode(text).unwrap();
            let in_batch = states.get(index).unwrap().narrow(0, 0, lengths[index]).unwrap();
            let worst = floats(&(&alone - in_batch).unwrap().abs().unwrap()).into_iter().fold(0.0, f32::max);
            golden.expect(worst < 2e-5, format!("text {index} differs by {worst:e} alone"));
            model.decoder.prepare(&alone, 0).unwrap()
        })
        .collect()
}

fn conditions(golden: &Golden, model: &MusicGen) {
    let projected = model.decoder.project(&golden.input("cond.states")).unwrap();
    golden.check("cond.projected", &projected);
    let mask = golden.input("cond.mask").to_dtype(DType::F32).unwrap().unsqueeze(2).unwrap();
    golden.check("cond.cross_states", &projected.broadcast_mul(&mask).unwrap());
}

/// The sequences of `lm.*` as tokens: conditional rows first, then null rows.
fn teacher_forcing(golden: &Golden, model: &MusicGen, prompts: &[Arc<Prompt>]) {
    let decoder = &model.decoder;
    let (books, card) = (decoder.config().codebooks, decoder.config().card);
    let (batch, frames) = (golden.dims("lm.codes")[0], golden.dims("lm.codes")[2]);
    let delays = delay::delays(books, decoder.config().channels);
    let sequences: Vec<Vec<u32>> = by_frame(&golden.ids("lm.codes"), books, frames)
        .iter()
        .map(|codes| delay::apply(codes, &delays, card as u32))
        .collect();
    golden.check_ids("lm.delayed_ids", &by_book(&sequences, books));
    let positions: Vec<usize> = golden.ids("lm.pos_index").into_iter().map(|position| position as usize).collect();
    golden.check("lm.pos_rows", &decoder.positions(&positions).unwrap());

    let columns = sequences[0].len() / books;
    let crosses: Vec<Vec<CrossShare>> = prompts.iter().map(share).chain((0..batch).map(|_| Vec::new())).collect();
    let token = |row: usize, position: usize| Token {
        row,
        position,
        ids: &sequences[row % batch][position * books..][..books],
        cross: &crosses[row],
        logits: true,
    };
    let all: Vec<Token<'_>> = (0..2 * batch)
        .flat_map(|row| (0..columns).map(move |position| (row, position)))
        .map(|(r, p)| token(r, p))
        .collect();
    let mut cache = decoder.cache(2 * batch, columns).unwrap();
    let hidden = decoder.config().hidden;
    let conditional = |x: &Tensor| {
        x.reshape((2 * batch, columns, hidden)).unwrap().narrow(0, 0, batch).unwrap().contiguous().unwrap()
    };
    let logits = decoder
        .forward_with(&mut cache, &all, &mut |part, layer, x| match part {
            Part::Embed => golden.check("lm.input_embed", &conditional(x)),
            Part::Norm => {
                golden.check("lm.final_norm", &conditional(x));
                let null = x.reshape((2 * batch, columns, hidden)).unwrap().narrow(0, batch, 1).unwrap();
                golden.check("lm.final_norm_uncond", &null);
            }
            Part::Fc2 => {
                let name = format!("lm.layer{layer}_out");
                if golden.has(&name) {
                    golden.check(&name, &conditional(x));
                }
            }
            _ => {}
        })
        .unwrap();
    // [row, column, book, card] to the reference's [batch, book, column, card].
    let shaped = logits.reshape((2 * batch, columns, books, card)).unwrap().transpose(1, 2).unwrap();
    let (cond, uncond) = (shaped.narrow(0, 0, batch).unwrap(), shaped.narrow(0, batch, batch).unwrap());
    golden.check("lm.logits_cond", &cond);
    golden.check("lm.logits_uncond", &uncond);
    let scale = f64::from(model.config.generation.guidance);
    golden.check("lm.logits_guided", &(&uncond + ((&cond - &uncond).unwrap() * scale).unwrap()).unwrap());

    // Stepping, chunked prefill and rewinding give the same logits as reading everything at once.
    let whole: Vec<Vec<f32>> = logits.reshape((2 * batch * columns, books * card)).unwrap().to_vec2().unwrap();
    let mut cache = decoder.cache(2 * batch, columns).unwrap();
    let mut read = |from: usize, to: usize, what: &str| {
        let tokens: Vec<Token<'_>> = (0..2 * batch)
            .flat_map(|row| (from..to).map(move |position| (row, position)))
            .map(|(r, p)| token(r, p))
            .collect();
        let found = super::steps::rows(&decoder.forward(&mut cache, &tokens).unwrap());
        for (token, found) in tokens.iter().zip(found) {
            let expected = &whole[token.row * columns + token.position];
            let same = if decoder.target().kernels == Kernels::Native {
                found == *expected
            } else {
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4)
            };
            golden.expect(same, format!("{what}: row {} differs at {}", token.row, token.position));
        }
    };
    let chunk = 5.min(columns);
    read(0, chunk, "prefill");
    for position in chunk..columns {
        read(position, position + 1, "stepping");
    }
    let back = columns / 3;
    for position in back..columns {
        read(position, position + 1, "after rewinding");
    }
    read(back, columns, "reading again in one chunk");
}

fn generation(golden: &Golden, model: &MusicGen, prompts: &[Arc<Prompt>]) {
    let decoder = &model.decoder;
    let config = decoder.config();
    let (books, channels) = (config.codebooks, config.channels);
    let delays = delay::delays(books, channels);
    let guidance = model.config.generation.guidance;
    let frames = |name: &str| golden.dims(name)[2];
    let length = |name: &str| delay::columns(frames(name), &delays);

    // The audio prompts of the continuation.
    let input = golden.input("gen.cont.input_values");
    let (continued, samples) = (input.dim(0).unwrap(), input.dim(2).unwrap());
    let waves: Vec<f32> = floats(&input);
    let prompt_codes: Vec<Vec<u32>> = waves
        .chunks(channels * samples)
        .map(|wave| {
            let wave: Vec<Vec<f32>> = wave.chunks(samples).map(<[f32]>::to_vec).collect();
            model.encode(&wave).unwrap()
        })
        .collect();
    golden.check_ids("gen.cont.prompt_codes", &by_book(&prompt_codes, books));

    let voice = |prompt: Option<usize>, guidance: f32, codes: &[u32], name: &str| Voice {
        prompt: prompt.map(|index| prompts[index].clone()),
        guidance,
        codes: codes.to_vec(),
        length: length(name),
    };
    let mut voices = Vec::new();
    let batch = golden.dims("gen.text.codes")[0];
    voices.extend((0..batch).map(|index| voice(Some(index), guidance, &[], "gen.text.codes")));
    let unguided = golden.dims("gen.noguide.codes")[0];
    voices.extend((0..unguided).map(|index| voice(Some(index), 1.0, &[], "gen.noguide.codes")));
    let unconditional = golden.dims("gen.uncond.codes")[0];
    voices.extend((0..unconditional).map(|_| voice(None, 1.0, &[], "gen.uncond.codes")));
    // The case does not say which texts its continuations have: all are tried, one must agree.
    for codes in &prompt_codes {
        voices.extend((0..batch).map(|index| voice(Some(index), guidance, codes, "gen.cont.codes")));
    }

    let mut columns = generate(decoder, &voices);
    let expected = by_frame(&golden.ids("gen.cont.delayed"), books, golden.dims("gen.cont.delayed")[1]);
    let tried = columns.split_off(batch + unguided + unconditional);
    for (tried, expected) in tried.chunks(batch).zip(&expected) {
        columns.push(tried.iter().find(|columns| *columns == expected).unwrap_or(&tried[0]).clone());
    }
    let codes: Vec<Vec<u32>> = columns.iter().map(|columns| delay::remove(columns, &delays)).collect();
    let (text, rest) = codes.split_at(batch);
    let (noguide, rest) = rest.split_at(unguided);
    let (uncond, cont) = rest.split_at(unconditional);
    golden.check_ids("gen.text.delayed", &by_book(&columns[..batch], books));
    golden.check_ids("gen.cont.delayed", &by_book(&columns[columns.len() - continued..], books));
    for (name, codes) in [("text", text), ("noguide", noguide), ("uncond", uncond), ("cont", cont)] {
        golden.check_ids(&format!("gen.{name}.codes"), &by_book(codes, books));
        let audio = format!("gen.{name}.audio");
        if golden.has(&audio) {
            let decode =
                |codes: &Vec<u32>| by_channel(&model.codec.decode(&model.to_channels(codes).unwrap()).unwrap());
            let waves: Vec<Tensor> = codes.iter().map(decode).collect();
            golden.check(&audio, &Tensor::stack(&waves, 0).unwrap());
        }
    }
    // A voice alone gives the same ids as in the batch.
    let last = voices.len() - 1;
    golden.expect(generate(decoder, &voices[last..])[0] == tried[tried.len() - 1], "a voice alone differs");
}

fn codec(golden: &Golden, model: &MusicGen, folder: &Path) {
    let codec = &model.codec;
    let wave = golden.input("codec.wave").transpose(1, 2).unwrap();
    let to_books =
        |codes: Tensor| -> Vec<u32> { codes.transpose(1, 2).unwrap().flatten_all().unwrap().to_vec1().unwrap() };
    let latents = codec.encoder.forward(&wave).unwrap();
    golden.check("codec.enc_emb", &latents.transpose(1, 2).unwrap());
    golden.check_ids("codec.codes", &to_books(codec.encode(&wave).unwrap()));
    let odd = golden.ids("codec.odd_len")[0] as usize;
    golden.check_ids(
        "codec.codes_odd",
        &to_books(codec.encode(&wave.narrow(1, 0, odd).unwrap().contiguous().unwrap()).unwrap()),
    );

    let source = Files::Folder(folder.to_owned()).weights(DType::F32, &Device::Cpu).unwrap();
    let target = target(Kernels::Native);
    let weights = Weights::new(&source as &dyn TensorSource, &target).at("audio_encoder.decoder.layers");
    let up = if model.config.codec.lstm_layers > 0 { 3 } else { 2 };
    for (name, layer) in [("codec.fused_conv_in", 0), ("codec.fused_up0", up)] {
        let shape: [usize; 3] = golden.dims(name).try_into().unwrap();
        golden.check(name, &fused_weight(&weights.at(format!("{layer}.conv")), shape).unwrap());
    }

    for name in golden.names("codec.rand") {
        let Some(base) = name.strip_suffix(".codes") else { continue };
        let dims = golden.dims(&name);
        let (books, frames) = (dims[1], dims[2]);
        let codes = by_frame(&golden.ids(&name), books, frames).concat();
        let codes = Tensor::from_vec(codes, (1, frames, books), &Device::Cpu).unwrap();
        let latents = codec.quantizer.decode(&codes).unwrap();
        golden.check(&format!("{base}.quantized"), &latents.transpose(1, 2).unwrap());
        let taps = golden.names("codec.act");
        let (per, first) = (2 + model.config.codec.residual_layers, up - 1);
        let wave = codec
            .decoder
            .push(
                &mut codec.decoder.start(),
                Some(&latents),
                true,
                Some(&mut |path: &[usize], x: &Tensor| {
                    let tap = match path {
                        [0] => "conv_in".to_owned(),
                        [1] if first == 2 => "lstm".to_owned(),
                        [n] if *n >= first && (n - first) % per == 1 => format!("up{}_convtr", (n - first) / per),
                        [n] if *n >= first && (n - first) % per == per - 1 => format!("up{}", (n - first) / per),
                        _ => return,
                    };
                    let name = format!("codec.act{frames}.{tap}");
                    if taps.contains(&name) {
                        golden.check(&name, &x.transpose(1, 2).unwrap());
                    }
                }),
            )
            .unwrap()
            .unwrap();
        golden.check(&format!("{base}.audio"), &wave.transpose(1, 2).unwrap());
        for chunk in [1, 3, 16] {
            let mut state = codec.decoder.start();
            let mut parts = Vec::new();
            let mut at = 0;
            while at < frames {
                let count = chunk.min(frames - at);
                let piece = codes.narrow(1, at, count).unwrap().contiguous().unwrap();
                parts.extend(codec.push(&mut state, &piece, at + count == frames).unwrap());
                at += count;
            }
            let streamed = Tensor::cat(&parts, 1).unwrap().transpose(1, 2).unwrap();
            golden.check(&format!("{base}.audio"), &streamed);
        }
    }
}

/// ASCII pictures of these lie in `delay.rs`.
fn delay_pattern(golden: &Golden) {
    for name in golden.names("delay.") {
        let Some(base) = name.strip_suffix(".pattern") else { continue };
        let (books, length) = (golden.dims(&name)[0], golden.dims(&name)[1]);
        let given = golden.dims(&format!("{base}.in"))[1];
        let input = by_frame(&golden.ids(&format!("{base}.in")), books, given).concat();
        let (pad, prompt) = (input[0], &input[books..]);
        // The case does not say how many channels there are, but equal delays of a pair show in the
        // pattern.
        let pattern: Vec<i64> = golden.input(&name).flatten_all().unwrap().to_vec1().unwrap();
        let found = [1, 2].into_iter().any(|channels| {
            let delays = delay::delays(books, channels);
            let forced = |book: usize, column: usize| delay::forced(column, book, length, &delays, prompt, pad);
            let whole = (0..books).flat_map(|book| (0..length).map(move |column| (book, column)));
            let same = whole.map(|(b, c)| forced(b, c).map_or(-1, i64::from)).eq(pattern.iter().copied());
            let start: Vec<u32> = (0..books)
                .flat_map(|book| (0..given).map(move |column| (book, column)))
                .map(|(book, column)| forced(book, column).unwrap_or(input[column * books + book]))
                .collect();
            same && start == golden.ids(&format!("{base}.start"))
        });
        golden.expect(found, format!("{base} differs"));
    }
}

fn sampling(golden: &Golden) {
    for name in golden.names("sampler.") {
        let Some((group, parameters)) = name.split_once("probs_") else { continue };
        let source = if group.ends_with("ties_") { "sampler.ties_logits" } else { "sampler.logits" };
        let mut shaping = Shaping { temperature: 1.0, top_k: 0, top_p: 1.0 };
        for parameter in parameters.split('_') {
            let value: f32 = parameter[1..].parse().unwrap();
            match &parameter[..1] {
                "t" => shaping.temperature = value,
                "k" => shaping.top_k = value as usize,
                "p" => shaping.top_p = value,
                other => panic!("{name} has an unknown parameter {other}"),
            }
        }
        let logits = floats(&golden.input(source));
        let found = probabilities(&logits, shaping).unwrap();
        golden.check(&name, &Tensor::new(found, &Device::Cpu).unwrap());
    }
}
