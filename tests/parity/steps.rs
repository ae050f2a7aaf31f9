//! Running a decoder as the engine does: many voices in one batch, joining at different times,
//! column by column.

use std::sync::Arc;

use candle_core::Tensor;
use continuo::model::{
    decoder::{CrossShare, Decoder, Prompt, Token},
    delay, sampler,
};

/// A greedy generation.
pub struct Voice {
    /// Nothing for a voice without a description.
    pub prompt: Option<Arc<Prompt>>,
    /// 1 for none.
    pub guidance: f32,
    /// Codes `[frames][books]` to continue.
    pub codes: Vec<u32>,
    /// Columns to fill, the start column included.
    pub length: usize,
}

pub fn share(prompt: &Arc<Prompt>) -> Vec<CrossShare> {
    vec![CrossShare { prompt: prompt.clone(), share: 1.0 }]
}

/// Sound `[streams, samples, channels of each]` as `[channels, samples]`.
pub fn by_channel(sound: &Tensor) -> Tensor {
    sound.transpose(1, 2).unwrap().flatten(0, 1).unwrap()
}

/// Columns `[length][books]` of every voice. Voice `n` joins `2 n` passes after the first; a
/// voice's prompt is read in one pass with the others' steps.
pub fn generate(decoder: &Decoder, voices: &[Voice]) -> Vec<Vec<u32>> {
    let config = decoder.config();
    let (books, pad) = (config.codebooks, config.card as u32);
    let delays = delay::delays(books, config.channels);
    let window = voices.iter().map(|voice| voice.length).max().unwrap();
    let mut cache = decoder.cache(2 * voices.len(), window).unwrap();
    let crosses: Vec<Vec<CrossShare>> =
        voices.iter().map(|voice| voice.prompt.as_ref().map_or_else(Vec::new, share)).collect();
    let forced = |voice: &Voice, column, book| delay::forced(column, book, voice.length, &delays, &voice.codes, pad);
    let mut columns: Vec<Vec<u32>> = voices
        .iter()
        .map(|voice| {
            let given = 1 + voice.codes.len() / books;
            (0..given * books).map(|at| forced(voice, at / books, at % books).unwrap()).collect()
        })
        .collect();
    let mut read = vec![0; voices.len()];
    for pass in 0.. {
        let mut tokens = Vec::new();
        let mut stepped = Vec::new();
        for (index, voice) in voices.iter().enumerate() {
            let have = columns[index].len() / books;
            if have == voice.length {
                continue;
            }
            if pass < 2 * index {
                continue;
            }
            stepped.push(index);
            for (row, cross) in [(2 * index, &crosses[index][..]), (2 * index + 1, &[])] {
                let wanted = if cross.is_empty() { row % 2 == 1 } else { row % 2 == 0 || voice.guidance != 1.0 };
                if voice.prompt.is_some() && voice.guidance == 1.0 && row % 2 == 1 || !wanted {
                    continue;
                }
                tokens.extend((read[index]..have).map(|position| Token {
                    row,
                    position,
                    ids: &columns[index][position * books..][..books],
                    cross,
                    logits: position + 1 == have,
                }));
            }
        }
        if tokens.is_empty() && columns.iter().zip(voices).all(|(c, voice)| c.len() / books == voice.length) {
            break;
        }
        if tokens.is_empty() {
            continue;
        }
        let logits = decoder.forward(&mut cache, &tokens).unwrap();
        drop(tokens);
        let mut rows = rows(&logits).into_iter();
        for index in stepped {
            let voice = &voices[index];
            let first = rows.next().unwrap();
            let mixed = if voice.prompt.is_some() && voice.guidance != 1.0 {
                sampler::guide(&first, &rows.next().unwrap(), voice.guidance)
            } else {
                first
            };
            let column = columns[index].len() / books;
            read[index] = column;
            for (book, logits) in mixed.chunks(config.card).enumerate() {
                let code = forced(voice, column, book).unwrap_or_else(|| sampler::arg_max(logits).unwrap());
                columns[index].push(code);
            }
        }
    }
    columns
}

/// One vector per row of `[rows, ..]`.
pub fn rows(x: &Tensor) -> Vec<Vec<f32>> {
    x.flatten_from(1).unwrap().to_vec2().unwrap()
}

/// `[batch * books, frames]` numbers from one `[frames][books]` list per batch entry.
pub fn by_book(lists: &[Vec<u32>], books: usize) -> Vec<u32> {
    let mut out = Vec::new();
    for list in lists {
        for book in 0..books {
            out.extend(list.iter().skip(book).step_by(books));
        }
    }
    out
}

/// One `[frames][books]` list per batch entry from numbers `[batch, books, frames]`.
pub fn by_frame(numbers: &[u32], books: usize, frames: usize) -> Vec<Vec<u32>> {
    numbers
        .chunks(books * frames)
        .map(|entry| (0..frames).flat_map(|frame| (0..books).map(move |book| entry[book * frames + frame])).collect())
        .collect()
}
