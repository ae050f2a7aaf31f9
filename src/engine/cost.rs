//! What a model's work costs on this machine.

use super::ModelInfo;

/// Measured cost of a model's work: a step takes `fixed + row * rows` seconds. All figures fade
/// slowly, so that a machine that becomes busy or free is noticed.
#[derive(Default)]
pub(super) struct CostModel {
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_squared: f64,
    rows_seconds: f64,
    decode_frame: f64,
    prefill_column: f64,
    /// What the thread does per voice of a step besides.
    voice: f64,
}

const FADE: f64 = 0.995;

impl CostModel {
    pub(super) fn step(&mut self, rows: usize, seconds: f64) {
        let rows = rows as f64;
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.seconds, seconds),
            (&mut self.rows_squared, rows * rows),
            (&mut self.rows_seconds, rows * seconds),
        ] {
            *sum = *sum * FADE + value;
        }
    }

    pub(super) fn decode(&mut self, frames: usize, seconds: f64) {
        fade(&mut self.decode_frame, seconds / frames.max(1) as f64);
    }

    pub(super) fn prefill(&mut self, columns: usize, seconds: f64) {
        fade(&mut self.prefill_column, seconds / columns.max(1) as f64);
    }

    /// Notes what a turn with a step of `voices` took beyond the backend's work.
    pub(super) fn rest(&mut self, voices: usize, seconds: f64) {
        fade(&mut self.voice, seconds.max(0.0) / voices.max(1) as f64);
    }

    /// Mean seconds of a step, lately.
    pub(super) fn step_seconds(&self) -> f64 {
        if self.weight > 0.0 { self.seconds / self.weight } else { 0.0 }
    }

    /// Mean seconds of reading one column ahead, lately; 0 before it is known.
    pub(super) fn prefill_seconds(&self) -> f64 {
        self.prefill_column
    }

    /// Predicted seconds of a step with this many rows.
    fn predict(&self, rows: f64) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        let (mean_rows, mean) = (self.rows / self.weight, self.seconds / self.weight);
        let spread = self.rows_squared / self.weight - mean_rows * mean_rows;
        if spread < 0.05 {
            // Only one batch size was seen: the truth lies between "all fixed" and "all per row".
            return mean * (0.5 + 0.5 * rows / mean_rows);
        }
        let per_row = ((self.rows_seconds / self.weight - mean * mean_rows) / spread).clamp(0.0, mean / mean_rows);
        mean + per_row * (rows - mean_rows)
    }

    /// Share of real time that `voices` voices with `rows` rows in all need; 1 is the limit.
    pub(super) fn load(&self, info: &ModelInfo, voices: usize, rows: usize) -> f64 {
        if voices == 0 {
            return 0.0;
        }
        let refill = info.keep as f64 / (info.window - info.keep).max(1) as f64;
        let per_voice = self.decode_frame + refill * self.prefill_column + self.voice;
        info.frame_rate() * (self.predict(rows as f64) + voices as f64 * per_voice)
    }
}

fn fade(mean: &mut f64, value: f64) {
    *mean = if *mean == 0.0 { value } else { 0.95 * *mean + 0.05 * value };
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::standin::Standin;
    use super::*;

    #[test]
    fn the_cost_of_a_row_is_learnt_from_batches_of_different_size() {
        let mut cost = CostModel::default();
        for rows in [1, 2, 4, 8, 2, 4] {
            cost.step(rows, 0.004 + 0.001 * rows as f64);
        }
        let info = Standin::default().info().clone();
        // 50 steps of 4 + 12 ms.
        assert!((cost.load(&info, 6, 12) - 0.8).abs() < 1e-6, "{}", cost.load(&info, 6, 12));
    }
}
