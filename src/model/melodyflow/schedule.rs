//! The grid of flow steps: short steps near noise, long ones near data.

/// How strongly the grid sways.
const SWAY: f64 = -0.8;

/// `steps + 1` flow steps from `from` to `to`. Both directions between two values have the same
/// points.
pub fn grid(from: f32, to: f32, steps: usize) -> Vec<f32> {
    swayed(from, to, steps, SWAY)
}

/// [`grid`] with another sway; 0 makes it uniform.
pub fn swayed(from: f32, to: f32, steps: usize, sway: f64) -> Vec<f32> {
    let (low, high) = (f64::from(from.min(to)), f64::from(from.max(to)));
    let point = |k: usize| {
        let u = k as f64 / steps as f64;
        let u = if from <= to { u } else { 1.0 - u };
        let u = u + sway * ((std::f64::consts::FRAC_PI_2 * u).cos() - 1.0 + u);
        (low + (high - low) * u) as f32
    };
    (0..=steps).map(point).collect()
}
