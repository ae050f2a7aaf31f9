//! The codes of one voice since its last reset, as columns of the delay pattern, with a bounded
//! past.
//!
//! Column 0 is the start column; column `c` holds the code of frame `c - 1 - delay[k]` of codebook
//! `k`. This is the voice's memory: PCM, codec state and KV can all be made again from it.
//!
//! ```text
//! delays 0 1 2 3     column  0   1   2   3   4   5
//!                    k = 0   pad f0  f1  f2  f3  f4
//!                    k = 1   pad pad f0  f1  f2  f3
//!                    k = 2   pad pad pad f0  f1  f2
//!                    k = 3   pad pad pad pad f0  f1   -> f0, f1 are complete
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::ModelInfo;

/// Codes of frames that are complete although columns behind them are still to be sampled.
#[derive(Default)]
struct Settled {
    /// The frame behind the last of them.
    end: u64,
    /// `[frames][codebooks]`, flattened.
    codes: Vec<u32>,
}

impl Settled {
    fn code(&self, frame: u64, k: usize, books: usize) -> Option<u32> {
        let first = self.end - (self.codes.len() / books) as u64;
        let at = usize::try_from(frame.checked_sub(first)?).ok()?;
        self.codes.get(at * books + k).copied()
    }
}

pub(super) struct Codes {
    delays: Vec<usize>,
    max_delay: u64,
    pad: u32,
    /// `[frames][codebooks]` codes that the voice continues from: never sampled, whatever a column
    /// says.
    given: Arc<[u32]>,
    /// Frames before a cut whose codes fall into columns behind it: see [`Codes::cut_square`].
    settled: Settled,
    /// Absolute index of the oldest column kept.
    first: u64,
    ids: VecDeque<u32>,
}

impl Codes {
    /// The start column, and as many columns as `given` frames fill without a gap. The rest of
    /// those frames, delayed into columns that are still to be sampled, is forced when these come,
    /// as the reference does it.
    pub(super) fn new(info: &ModelInfo, given: Arc<[u32]>) -> Self {
        let mut codes = Self {
            delays: info.delays.clone(),
            max_delay: info.max_delay() as u64,
            pad: info.card,
            given,
            settled: Settled::default(),
            first: 0,
            ids: std::iter::repeat_n(info.card, info.codebooks).collect(),
        };
        let nothing = vec![info.card; info.codebooks];
        for _ in 0..codes.given_frames() {
            codes.push(&nothing, None);
        }
        codes
    }

    /// Frames that the voice continues from.
    pub(super) fn given_frames(&self) -> u64 {
        (self.given.len() / self.delays.len()) as u64
    }

    /// Columns that were sampled.
    pub(super) fn sampled(&self) -> u64 {
        self.columns().saturating_sub(1 + self.given_frames())
    }

    /// Known columns, counted from column 0 (forgotten ones included).
    pub(super) fn columns(&self) -> u64 {
        self.first + (self.ids.len() / self.delays.len()) as u64
    }

    /// Frames of which every codebook is known.
    pub(super) fn complete_frames(&self) -> u64 {
        (self.columns() - 1).saturating_sub(self.max_delay)
    }

    /// The fewest columns that make the first `frames` frames complete and let generation go on
    /// from there.
    pub(super) fn columns_for(&self, frames: u64) -> u64 {
        if frames == 0 { 1 } else { frames + 1 + self.max_delay }
    }

    /// Appends a sampled column; places outside `0..end` frames become the pad id, as the reference
    /// forces them.
    pub(super) fn push(&mut self, column: &[u32], end: Option<u64>) {
        let index = self.columns();
        let books = self.delays.len();
        for (k, (&code, &delay)) in column.iter().zip(&self.delays).enumerate() {
            let frame = (index - 1).checked_sub(delay as u64).filter(|&frame| end.is_none_or(|end| frame < end));
            self.ids.push_back(match frame {
                Some(frame) if frame < self.given_frames() => self.given[frame as usize * books + k],
                Some(frame) => self.settled.code(frame, k, books).unwrap_or(code),
                None => self.pad,
            });
        }
    }

    /// Forgets the columns from `columns` on, but none of those that were given.
    pub(super) fn truncate(&mut self, columns: u64) {
        let columns = columns.max(1 + self.given_frames());
        if columns < 1 + self.settled.end {
            self.settled = Settled::default();
        }
        self.keep_columns(columns);
    }

    fn keep_columns(&mut self, columns: u64) {
        let keep = columns.saturating_sub(self.first) as usize * self.delays.len();
        self.ids.truncate(keep);
    }

    /// Keeps `frames` complete frames and nothing of any other, so that a window which begins with
    /// the newest column looks like the beginning of a voice. What the delay pattern puts of these
    /// frames into columns that are now to be sampled again stays as it was.
    pub(super) fn cut_square(&mut self, frames: u64) {
        let mut codes = Vec::new();
        for frame in frames.saturating_sub(self.max_delay).max(self.first)..frames {
            self.frame(frame, &mut codes);
        }
        self.settled = Settled { end: frames, codes };
        self.keep_columns(1 + frames);
    }

    /// Forgets the columns before `column`; at least one stays.
    pub(super) fn forget_before(&mut self, column: u64) {
        let column = column.min(self.columns() - 1);
        if column > self.first {
            self.ids.drain(..(column - self.first) as usize * self.delays.len());
            self.first = column;
        }
    }

    fn id(&self, column: u64, k: usize) -> u32 {
        self.ids[(column - self.first) as usize * self.delays.len() + k]
    }

    /// Appends to `out` the ids to feed for `column` in a window whose position 0 is `start`:
    /// position 0 is always a start column, and frames before the window are pads, exactly as if
    /// the voice had begun with frame `start`.
    pub(super) fn window_column(&self, column: u64, start: u64, out: &mut Vec<u32>) {
        for (k, &delay) in self.delays.iter().enumerate() {
            let inside = column > start && column > delay as u64 && column - 1 - delay as u64 >= start;
            out.push(if inside { self.id(column, k) } else { self.pad });
        }
    }

    /// Appends the codes of a frame to `out`: of one that is complete, or was before a square cut.
    pub(super) fn frame(&self, frame: u64, out: &mut Vec<u32>) {
        let (end, books) = (self.columns(), self.delays.len());
        for (k, &delay) in self.delays.iter().enumerate() {
            let column = frame + 1 + delay as u64;
            let settled = if column < end { None } else { self.settled.code(frame, k, books) };
            out.push(settled.unwrap_or_else(|| self.id(column, k)));
        }
    }

    /// The oldest frame whose codes are kept.
    pub(super) fn first_frame(&self) -> u64 {
        self.first.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::standin::Standin;
    use super::*;

    fn codes() -> Codes {
        Codes::new(Standin::default().info(), Arc::new([]))
    }

    #[test]
    fn a_frame_is_complete_once_its_last_codebook_is_known() {
        let mut codes = codes();
        for column in 1..=6 {
            codes.push(&[10 * column, 10 * column + 1, 10 * column + 2, 10 * column + 3], None);
        }
        assert_eq!(codes.complete_frames(), 3);
        let mut frame = Vec::new();
        codes.frame(2, &mut frame);
        assert_eq!(frame, [30, 41, 52, 63]);
    }

    #[test]
    fn places_outside_the_piece_are_pads() {
        let mut codes = codes();
        let pad = Standin::default().info().card;
        for _ in 0..5 {
            codes.push(&[1, 2, 3, 4], Some(2));
        }
        let mut fed = Vec::new();
        codes.window_column(1, 0, &mut fed);
        codes.window_column(3, 0, &mut fed);
        codes.window_column(5, 0, &mut fed);
        assert_eq!(fed, [1, pad, pad, pad, pad, 2, 3, pad, pad, pad, pad, 4]);
    }

    #[test]
    fn given_frames_are_forced_in_the_columns_that_their_delay_reaches() {
        let info = Standin::default().info().clone();
        let mut codes = Codes::new(&info, (10..18).collect());
        assert_eq!((codes.columns(), codes.sampled()), (3, 0));
        for _ in 0..4 {
            codes.push(&[1, 2, 3, 4], Some(3));
        }
        let mut frames = Vec::new();
        (0..3).for_each(|frame| codes.frame(frame, &mut frames));
        assert_eq!(frames, [10, 11, 12, 13, 14, 15, 16, 17, 1, 2, 3, 4]);
        codes.truncate(1);
        assert_eq!((codes.columns(), codes.sampled()), (3, 0));
    }

    #[test]
    fn behind_a_square_cut_a_window_looks_like_a_beginning_and_the_frames_before_it_stay() {
        let mut codes = codes();
        let pad = Standin::default().info().card;
        for column in 1..=12 {
            codes.push(&[10 * column, 10 * column + 1, 10 * column + 2, 10 * column + 3], None);
        }
        let frames = |codes: &Codes, count: u64| {
            let mut all = Vec::new();
            (0..count).for_each(|frame| codes.frame(frame, &mut all));
            all
        };
        let before = frames(&codes, 6);
        codes.cut_square(6);
        assert_eq!(codes.columns(), 7);
        for _ in 0..4 {
            codes.push(&[1, 2, 3, 4], None);
        }
        assert_eq!((frames(&codes, 6), codes.complete_frames()), (before, 7));
        let mut fed = Vec::new();
        for column in 6..=8 {
            codes.window_column(column, 6, &mut fed);
        }
        assert_eq!(fed, [pad, pad, pad, pad, 1, pad, pad, pad, 1, 2, pad, pad]);
        // Taken back further, nothing of it is left.
        codes.truncate(5);
        for _ in 0..6 {
            codes.push(&[5, 6, 7, 8], None);
        }
        assert_eq!(frames(&codes, 6)[4 * 4..], [5, 6, 7, 8, 5, 6, 7, 8]);
    }

    #[test]
    fn a_later_window_looks_like_a_beginning() {
        let mut codes = codes();
        let pad = Standin::default().info().card;
        for column in 1..=9 {
            codes.push(&[10 * column, 10 * column + 1, 10 * column + 2, 10 * column + 3], None);
        }
        codes.forget_before(4);
        let mut fed = Vec::new();
        for column in 4..=7 {
            codes.window_column(column, 4, &mut fed);
        }
        assert_eq!(fed, [pad, pad, pad, pad, 50, pad, pad, pad, 60, 61, pad, pad, 70, 71, 72, pad]);
    }
}
