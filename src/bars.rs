//! Tempo and bars: what a prompt names, how long bars last, how many fit.

/// Numbers of bars that a loop may have, the longest first.
pub const BARS: [u32; 4] = [8, 4, 2, 1];

/// The fastest tempo that is taken for one.
const FASTEST: f64 = 100_000.0;

/// The tempo that a prompt names: the first number before `bpm` (`128bpm`, `92.5 BPM`, `87,5 bpm`)
/// or, where none stands there, right behind it (`bpm: 128`). 0 is none.
pub fn tempo(prompt: &str) -> Option<f64> {
    let prompt = prompt.to_ascii_lowercase();
    let mut rest = prompt.as_str();
    while let Some(at) = rest.find("bpm") {
        let (before, behind) = (&rest[..at], &rest[at + 3..]);
        if let Some(bpm) = number_before(before).or_else(|| number_behind(behind)) {
            return Some(bpm).filter(|bpm| *bpm > 0.0 && *bpm < FASTEST);
        }
        rest = behind;
    }
    None
}

/// The number that a text ends with, but for white space or a hyphen.
fn number_before(text: &str) -> Option<f64> {
    let text = text.trim_end();
    let text = text.strip_suffix(['-', '_', '.']).map_or(text, str::trim_end);
    let digits_of = |text: &str| text.bytes().rev().take_while(u8::is_ascii_digit).count();
    let last = text.len() - digits_of(text);
    if last == text.len() {
        return None;
    }
    let first = text[..last].strip_suffix(['.', ',']).map(|whole| whole.len() - digits_of(whole));
    let whole = first.and_then(|first| Some((first, text[first..last - 1].parse::<u32>().ok()?)));
    match whole {
        // In a list, as in `kick 4,120bpm`, the comma ends something else.
        Some((_, whole)) if text.as_bytes()[last - 1] == b',' && (whole < 20 || text.len() - last > 2) => {
            text[last..].parse().ok()
        }
        Some((first, _)) => text[first..].replace(',', ".").parse().ok(),
        None => text[last..].parse().ok(),
    }
}

/// The number that a text begins with, but for a sign that says so.
fn number_behind(text: &str) -> Option<f64> {
    let text = text.trim_start();
    let text = text.strip_prefix([':', '=']).map_or(text, str::trim_start);
    let digits_of = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits_of(text);
    let fraction = text[whole..].strip_prefix(['.', ',']).map_or(0, digits_of);
    let fraction = if text[whole..].starts_with(',') && fraction > 2 { 0 } else { fraction };
    let length = if fraction > 0 { whole + 1 + fraction } else { whole };
    text[..length].replace(',', ".").parse().ok().filter(|_| whole > 0)
}

/// Seconds of a bar of four beats.
pub fn bar_seconds(bpm: f64) -> f64 {
    4.0 * (60.0 / bpm)
}

/// The most bars of [`BARS`] that last no longer than `seconds`; 1 when none does.
pub fn fitting_bars(bpm: f64, seconds: f64) -> u32 {
    BARS.into_iter().find(|bars| bar_seconds(bpm) * f64::from(*bars) <= seconds).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_names_its_tempo() {
        let cases = [
            ("techno 128bpm", Some(128.0)),
            ("90 BPM lofi", Some(90.0)),
            ("92.5 bpm house", Some(92.5)),
            ("120.0 BPM", Some(120.0)),
            ("87,5 bpm", Some(87.5)),
            ("12.5bpm", Some(12.5)),
            ("bpm: 128, dark", Some(128.0)),
            ("dub (BPM=70.25)", Some(70.25)),
            ("techno bpm 131 loud", Some(131.0)),
            ("bpm 87,5", Some(87.5)),
            ("drums in 4, 120bpm", Some(120.0)),
            ("kick 4,120bpm", Some(120.0)),
            ("take 2.120 bpm", Some(2.12)),
            ("a 128-bpm loop", Some(128.0)),
            ("at 100. BPM", Some(100.0)),
            ("120-130 bpm", Some(130.0)),
            ("bpm then 100bpm", Some(100.0)),
            ("techno", None),
            ("bpm", None),
            ("bpm: fast", None),
            ("0bpm", None),
            ("0.0 bpm", None),
            (".bpm", None),
            ("\u{e9}bpm", None),
            ("loops at 99999999999 bpm", None),
        ];
        for (prompt, bpm) in cases {
            assert_eq!(tempo(prompt), bpm, "{prompt}");
        }
    }
}
