//! What a voice is conditioned on at a given column: a blend of prepared texts, possibly on its way
//! to another one.

use super::{Blend, Condition, WeightedPrompt};

/// A prompt of a voice with its prepared text; an empty text has none.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) prompt: WeightedPrompt,
    pub(super) condition: Option<Condition>,
}

/// A blend that ramps from an old one to a new one.
pub(super) struct Ramp {
    from: Vec<Part>,
    to: Vec<Part>,
    start: u64,
    columns: u64,
}

impl Ramp {
    pub(super) fn constant(parts: Vec<Part>) -> Self {
        Self { from: Vec::new(), to: normalised(parts), start: 0, columns: 0 }
    }

    /// From what is in force at `column` to `parts`, over `columns` columns.
    pub(super) fn towards(&self, parts: Vec<Part>, column: u64, columns: u64) -> Self {
        Self { from: self.parts(column), to: normalised(parts), start: column, columns }
    }

    /// The same ramp when column `by` is renamed to column 0.
    pub(super) fn rebased(&self, by: u64) -> Self {
        Self::constant(self.to.clone()).begin_at(self.parts(by), (self.start + self.columns).saturating_sub(by))
    }

    fn begin_at(mut self, from: Vec<Part>, columns: u64) -> Self {
        self.from = from;
        self.columns = columns;
        self
    }

    /// Every text that is still needed.
    pub(super) fn texts(&self) -> Vec<String> {
        self.from.iter().chain(&self.to).map(|part| part.prompt.text.clone()).collect()
    }

    /// Every part that is still needed.
    pub(super) fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        self.from.iter_mut().chain(self.to.iter_mut())
    }

    /// The blend and the part of the guidance that applies to `column`: a share of empty text takes
    /// that share of the guidance away, since there the conditional branch equals the null branch.
    pub(super) fn at(&self, column: u64) -> (Vec<Blend>, f32) {
        let parts = self.parts(column);
        let described: f32 = parts.iter().filter(|part| part.condition.is_some()).map(|part| part.prompt.weight).sum();
        let blend = parts
            .into_iter()
            .filter_map(|part| {
                let share = part.prompt.weight / described;
                part.condition.map(|condition| Blend { condition, share })
            })
            .collect();
        (blend, described.min(1.0))
    }

    /// Parts with a positive weight; weights sum to 1.
    fn parts(&self, column: u64) -> Vec<Part> {
        let done = column.saturating_sub(self.start);
        if done >= self.columns {
            return self.to.clone();
        }
        let share = done as f32 / self.columns as f32;
        let scaled = |parts: &[Part], by: f32| {
            parts
                .iter()
                .cloned()
                .map(move |mut part| {
                    part.prompt.weight *= by;
                    part
                })
                .collect::<Vec<_>>()
        };
        let mut all = scaled(&self.from, 1.0 - share);
        all.extend(scaled(&self.to, share));
        merged(all)
    }
}

/// One part per text, none without weight.
fn merged(parts: Vec<Part>) -> Vec<Part> {
    let mut merged: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts.into_iter().filter(|part| part.prompt.weight > 0.0) {
        match merged.iter_mut().find(|other| other.prompt.text == part.prompt.text) {
            Some(other) => other.prompt.weight += part.prompt.weight,
            None => merged.push(part),
        }
    }
    merged
}

fn normalised(parts: Vec<Part>) -> Vec<Part> {
    let mut parts = merged(parts);
    let total: f32 = parts.iter().map(|part| part.prompt.weight).sum();
    for part in &mut parts {
        part.prompt.weight /= total;
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn part(text: &str, weight: f32) -> Part {
        let condition = (!text.is_empty()).then(|| Arc::new(text.to_owned()) as Condition);
        Part { prompt: WeightedPrompt { text: text.into(), weight }, condition }
    }

    fn shares(ramp: &Ramp, column: u64) -> Vec<f32> {
        ramp.at(column).0.iter().map(|blend| blend.share).collect()
    }

    #[test]
    fn weights_become_shares() {
        let ramp = Ramp::constant(vec![part("piano", 3.0), part("drums", 1.0), part("none", 0.0)]);
        assert_eq!(shares(&ramp, 7), [0.75, 0.25]);
    }

    #[test]
    fn a_ramp_moves_linearly_and_can_be_redirected() {
        let ramp = Ramp::constant(vec![part("a", 1.0)]).towards(vec![part("b", 1.0)], 100, 10);
        assert_eq!(shares(&ramp, 100), [1.0]);
        assert_eq!(shares(&ramp, 105), [0.5, 0.5]);
        assert_eq!(shares(&ramp, 110), [1.0]);
        let back = ramp.towards(vec![part("a", 1.0)], 105, 10);
        assert_eq!(shares(&back, 110), [0.75, 0.25]);
        assert_eq!(shares(&ramp.rebased(105), 0), [0.5, 0.5]);
        assert_eq!(shares(&ramp.rebased(105), 5), [1.0]);
    }

    #[test]
    fn an_empty_text_takes_its_share_of_the_guidance() {
        let (blend, guidance) = Ramp::constant(vec![part("a", 1.0), part("", 3.0)]).at(0);
        assert_eq!((blend.len(), blend[0].share, guidance), (1, 1.0, 0.25));
        let (blend, _) = Ramp::constant(vec![part("", 1.0)]).at(0);
        assert!(blend.is_empty());
    }
}
