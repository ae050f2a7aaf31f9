//! Which body multiplies fastest here, found out by trying: generations of processors differ in how
//! far ahead memory must be asked for, and some do better with narrower vectors. All bodies give
//! the same bits.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{Bits, Body, CacheLine, PANEL, Quantised, bodies};
use crate::model::kernels::gemm::{Finish, Product, RowMap};
use crate::model::kernels::memory::{HugePageBuf, Probe};

/// Weights that are tried: more than a core's own caches hold.
const BYTES: usize = 16 << 20;
const INPUTS: usize = 1024;
/// Read between two tries, so that the weights come from memory as they do between the steps of a
/// decoder.
const FLUSH: usize = 96 << 20;
const ROUNDS: usize = 5;
/// On a machine so slow or busy nothing is found out by trying on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Another body must be faster by this than the usual one: less is the weather.
const BETTER: f64 = 0.95;

/// The body to multiply with.
pub(super) fn fastest(bits: Bits) -> Body {
    static EIGHT: LazyLock<Body> = LazyLock::new(|| chosen(Bits::Eight));
    static FOUR: LazyLock<Body> = LazyLock::new(|| chosen(Bits::Four));
    match bits {
        Bits::Eight => *EIGHT,
        Bits::Four => *FOUR,
    }
}

fn chosen(bits: Bits) -> Body {
    let mut bodies = bodies();
    if bodies.len() > 1 {
        // The plain loops.
        bodies.pop();
    }
    let usual = bodies[0];
    if bodies.len() == 1 {
        return usual;
    }
    let Ok(times) = tried(bits, &bodies) else { return usual };
    let (fastest, least) = times.iter().enumerate().min_by_key(|(_, time)| **time).unwrap_or((0, &times[0]));
    let is_better = least.as_secs_f64() < BETTER * times[0].as_secs_f64();
    tracing::debug!(?bits, ?times, fastest, is_better, "kernels were tried");
    if is_better { bodies[fastest] } else { usual }
}

/// The least time that each takes for one row.
fn tried(bits: Bits, bodies: &[Body]) -> std::io::Result<Vec<Duration>> {
    let per_panel = Quantised::lines_of(bits, INPUTS);
    let panels = BYTES / 64 / per_panel;
    // Written to: zeros that nobody wrote are one page of memory. As scales these bytes are about
    // one.
    let lines = HugePageBuf::new(panels * per_panel, |lines: &mut [CacheLine]| lines.fill(CacheLine([0x3c; 64])))?;
    let flush = Probe::new(FLUSH)?;
    let mut weight = Quantised { bits, inputs: INPUTS, lines, body: bodies[0] };
    let (x, begun) = (vec![0.5; INPUTS], Instant::now());
    let product = Product {
        inputs: INPUTS,
        outputs: panels * PANEL,
        x: &x,
        map: RowMap::plain(1, INPUTS),
        finish: Finish::Store,
    };
    let mut times = vec![Duration::MAX; bodies.len()];
    for _ in 0..ROUNDS {
        for (body, time) in bodies.iter().zip(&mut times) {
            weight.body = *body;
            flush.pass();
            let begun = Instant::now();
            std::hint::black_box(weight.multiply(product));
            *time = begun.elapsed().min(*time);
        }
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_body_that_is_chosen_is_one_of_this_machine_and_stays_the_same() {
        for bits in [Bits::Four, Bits::Eight] {
            let body = fastest(bits);
            assert!(bodies().iter().any(|other| std::ptr::fn_addr_eq(*other, body)));
            assert!(std::ptr::fn_addr_eq(fastest(bits), body));
        }
        let slow: Body = |bits, rows, lines, tile| (0..3).for_each(|_| super::super::plain(bits, rows, lines, tile));
        let times = tried(Bits::Eight, &[slow, bodies()[0]]).unwrap();
        assert!(times[0] > times[1], "{times:?}");
    }
}
