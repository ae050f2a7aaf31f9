//! Long playlists are compressed for who takes that. Six hours of segments are 150 KB, and each
//! line is nearly the one before; a player that knows no delta updates fetches all of it every
//! three seconds.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::task::spawn_blocking;

/// Shorter ones fit into a few packets as they are.
const WORTH_IT: usize = 8 << 10;

/// Whether an `Accept-Encoding` (RFC 9110 section 12.5.3) lets gzip through.
pub(super) fn takes_gzip(accepts: &str) -> bool {
    let quality = |name: &str| {
        accepts.split(',').find_map(|coding| {
            let (coding, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let weight = weight.trim().to_ascii_lowercase();
            let quality = || weight.strip_prefix("q=").and_then(|number| number.trim().parse().ok()).unwrap_or(0.0);
            coding.trim().eq_ignore_ascii_case(name).then(quality)
        })
    };
    quality("gzip").or_else(|| quality("*")).is_some_and(|quality: f32| quality > 0.0)
}

/// The text compressed, or as it is; and whether it is compressed.
pub(super) async fn gzip(text: Bytes) -> (Bytes, bool) {
    if text.len() < WORTH_IT {
        return (text, false);
    }
    let plain = text.clone();
    let compressed = spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
        encoder.write_all(&plain)?;
        encoder.finish()
    });
    match compressed.await {
        Ok(Ok(compressed)) => (compressed.into(), true),
        _ => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_goes_to_who_says_that_it_takes_it() {
        for (accepts, takes) in [
            ("gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("deflate;q=1, GZip;q=0.5", true),
            ("*", true),
            ("br, *;q=0.1", true),
            ("identity", false),
            ("", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("gzip;q=much", false),
            ("xgzip", false),
        ] {
            assert_eq!(takes_gzip(accepts), takes, "{accepts}");
        }
    }
}
