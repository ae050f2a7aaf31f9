//! Who is in the next step, and who may come in at all. Pure functions of what was measured.

/// A voice whose buffer is below this many seconds is urgent: those far ahead of it wait, so that
/// it gets a quicker step.
const URGENT: f64 = 1.0;
/// Seconds ahead of the most urgent voice from which on a voice waits.
const FAR_AHEAD: f64 = 2.0;

/// Seconds that spare voices count as buffered: live ones of another model that have less go first.
pub(super) const SPARE: f64 = 3.0;

/// Whether a live voice with `buffered` of `lead` seconds is short of sound, so that spare voices
/// must wait.
pub(super) fn short(buffered: f64, lead: f64) -> bool {
    buffered < SPARE.min(0.5 * lead)
}

/// Picks the members of the next step from `(voice, seconds buffered)`, least buffered first.
pub(super) fn batch(mut hungry: Vec<(usize, f64)>) -> Vec<usize> {
    hungry.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let least = hungry.first().map_or(0.0, |first| first.1);
    let limit = if least < URGENT { least + FAR_AHEAD } else { f64::INFINITY };
    hungry.into_iter().filter(|&(_, buffered)| buffered <= limit).map(|(voice, _)| voice).collect()
}

/// Columns of a prefill pass: as many as fit in half a frame while others wait for their steps.
pub(super) fn prefill_columns(others_wait: bool, frame_seconds: f64, column_seconds: f64) -> usize {
    const MOST: f64 = 256.0;
    if !others_wait {
        return MOST as usize;
    }
    if column_seconds <= 0.0 {
        return 32;
    }
    (0.5 * frame_seconds / column_seconds).clamp(8.0, MOST) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_buffered_voice_comes_first() {
        assert_eq!(batch(vec![(0, 5.0), (1, 1.5), (2, 3.0)]), [1, 2, 0]);
    }

    #[test]
    fn a_voice_about_to_run_dry_does_not_share_its_step_with_rich_ones() {
        assert_eq!(batch(vec![(0, 5.0), (1, 0.2), (2, 1.9)]), [1, 2]);
    }

    #[test]
    fn spare_voices_wait_for_live_ones_with_less_than_half_their_lead() {
        assert!(short(2.9, 8.0) && !short(3.1, 8.0));
        assert!(short(0.1, 0.4) && !short(0.3, 0.4));
    }

    #[test]
    fn prefill_leaves_time_for_steps() {
        assert_eq!(prefill_columns(false, 0.02, 0.001), 256);
        assert_eq!(prefill_columns(true, 0.02, 0.001), 10);
        assert_eq!(prefill_columns(true, 0.02, 0.1), 8);
    }
}
