//! The delay pattern: which frame's code each codebook holds in each column of the decoder's input.
//!
//! ```text
//! column    0  1  2  3  4  5      (mono, four codebooks, P = pad id, digits are frames)
//! book 0    P  0  1  2  3  4
//! book 1    P  P  0  1  2  3
//! book 2    P  P  P  0  1  2
//! book 3    P  P  P  P  0  1
//! ```
//! Stereo books come in pairs, left before right, and a pair shares its delay. See MusicGen (arXiv
//! 2306.05284).

/// Delay of every codebook in columns: 0, 1, 2, .. for mono, 0, 0, 1, 1, .. for stereo.
pub fn delays(codebooks: usize, channels: usize) -> Vec<usize> {
    (0..codebooks).map(|book| book / channels.max(1)).collect()
}

/// The frame that codebook `book` holds in `column`, if any has begun there.
pub fn frame_at(column: usize, delay: usize) -> Option<usize> {
    column.checked_sub(1 + delay)
}

/// Columns that hold `frames` frames completely, the start column included.
pub fn columns(frames: usize, delays: &[usize]) -> usize {
    1 + frames + delays.iter().copied().max().unwrap_or(0)
}

/// Lays codes `[frames][books]` out as columns `[columns][books]`, with the pad id wherever no code
/// belongs.
pub fn apply(codes: &[u32], delays: &[usize], pad: u32) -> Vec<u32> {
    let books = delays.len();
    let frames = codes.len() / books;
    let mut out = vec![pad; columns(frames, delays) * books];
    for (frame, codes) in codes.chunks_exact(books).enumerate() {
        for (book, code) in codes.iter().enumerate() {
            out[(1 + frame + delays[book]) * books + book] = *code;
        }
    }
    out
}

/// Reads the complete frames out of columns `[columns][books]` that begin with the start column.
pub fn remove(columns: &[u32], delays: &[usize]) -> Vec<u32> {
    let books = delays.len();
    let most = delays.iter().copied().max().unwrap_or(0);
    let frames = (columns.len() / books).saturating_sub(1 + most);
    (0..frames * books)
        .map(|index| {
            let (frame, book) = (index / books, index % books);
            columns[(1 + frame + delays[book]) * books + book]
        })
        .collect()
}

/// What is forced at `column` of `book` when a generation is to fill `length` columns after a
/// prompt of codes `[frames][books]`; `None` where a code is to be generated.
///
/// Below twice the number of delays the reference applies no pattern at all, and nothing is forced.
pub fn forced(column: usize, book: usize, length: usize, delays: &[usize], prompt: &[u32], pad: u32) -> Option<u32> {
    let books = delays.len();
    let most = delays.iter().copied().max().unwrap_or(0);
    if length < 2 * most + 1 {
        return None;
    }
    match frame_at(column, delays[book]) {
        None => Some(pad),
        Some(frame) if frame < prompt.len() / books => Some(prompt[frame * books + book]),
        Some(frame) if 1 + frame + most >= length => Some(pad),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applying_and_removing_gives_the_codes_back() {
        for channels in [1, 2] {
            let delays = delays(4 * channels, channels);
            let codes: Vec<u32> = (0..7 * delays.len() as u32).collect();
            let columns = apply(&codes, &delays, 999);
            assert_eq!(columns.len(), 11 * delays.len());
            assert_eq!(remove(&columns, &delays), codes);
            assert!(columns[..delays.len()].iter().all(|id| *id == 999));
        }
    }
}
