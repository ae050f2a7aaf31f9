//! Where a station is sent, as the operator writes it down.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use warp::http::Uri;

use crate::audio::{BitRates, Format, list};
use crate::http::base64;
use crate::station::Listen;

/// A station, a mount of an Icecast server, and what is said of it there.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Push {
    /// The station's name.
    pub station: String,
    pub(super) encrypted: bool,
    /// Certificates that are believed in place of the system's.
    pub(super) ca: Option<PathBuf>,
    pub(super) host: String,
    pub(super) port: u16,
    /// With its slash.
    pub(super) mount: String,
    pub(super) listen: Listen,
    pub(super) authorization: String,
    /// Headers for directories and players.
    pub(super) about: Vec<(&'static str, String)>,
}

/// Without its secret.
impl fmt::Display for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { station, host, port, mount, .. } = self;
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(f, "`{station}` at {scheme}://{host}:{port}{mount}")
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Deserialize)]
struct Written {
    station: String,
    url: String,
    #[serde(default)]
    ca: Option<PathBuf>,
    #[serde(default = "source")]
    user: String,
    password: String,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    kbps: Option<u32>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    genre: Option<String>,
    #[serde(default)]
    homepage: Option<String>,
    #[serde(default)]
    public: bool,
}

/// Icecast's name for whoever sends.
fn source() -> String {
    "source".into()
}

impl TryFrom<Written> for Push {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { station, url, ca, user, password, .. } = written;
        let Address { encrypted, host, port, mount } =
            address(&url).ok_or("`url` is the address of a mount, such as https://icecast.example:8000/lofi.mp3")?;
        if ca.is_some() && !encrypted {
            return Err("`ca` says whom to believe; that takes a `url` with https".into());
        }
        let listen = listen(written.format.as_deref(), written.kbps)?;
        let said = [
            ("Ice-Name", Some(written.name.unwrap_or_else(|| station.clone()))),
            ("Ice-Description", written.description),
            ("Ice-Genre", written.genre),
            ("Ice-URL", written.homepage),
            ("Ice-Public", Some(u8::from(written.public).to_string())),
            ("Ice-Bitrate", Some(listen.kbps.to_string())),
            ("Ice-Audio-Info", Some(format!("ice-samplerate=48000;ice-bitrate={};ice-channels=2", listen.kbps))),
        ];
        let about: Vec<_> = said.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
        if let Some((name, _)) = about.iter().find(|(_, text)| text.contains(char::is_control)) {
            return Err(format!("what is said as {name} is one line of text"));
        }
        let authorization = format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes()));
        Ok(Self { station, encrypted, ca, host, port, mount, listen, authorization, about })
    }
}

/// What an address says.
struct Address {
    encrypted: bool,
    host: String,
    port: u16,
    mount: String,
}

fn address(url: &str) -> Option<Address> {
    let uri: Uri = url.parse().ok().filter(|uri: &Uri| uri.query().is_none())?;
    let (encrypted, usual) = match uri.scheme_str()? {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return None,
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let mount = Some(uri.path()).filter(|path| path.len() > 1 && !path.ends_with('/'))?;
    let port = authority.port_u16().unwrap_or(usual);
    Some(Address { encrypted, host: host.to_owned(), port, mount: mount.to_owned() })
}

fn listen(format: Option<&str>, kbps: Option<u32>) -> Result<Listen, String> {
    let rates = |format: Format| format.live().map_or(BitRates::None, |live| live.bit_rates());
    let sent =
        || Format::all_live().filter(|format| rates(*format) != BitRates::None && format.missing_feature().is_none());
    // Its titles can be changed while it plays.
    let usual = || sent().find(|format| *format == Format::MP3).or_else(|| sent().next());
    let format = match format {
        Some(name) => sent().find(|format| Some(*format) == Format::named(name)),
        None => usual(),
    };
    let format = format.ok_or_else(|| format!("`format` is {}", list(sent(), "")))?;
    match (rates(format), kbps) {
        (rates, None) => Ok(Listen { format, kbps: rates.usual(), low_latency: false }),
        (rates, Some(kbps)) if rates.nearest(kbps) == kbps => Ok(Listen { format, kbps, low_latency: false }),
        (rates, Some(kbps)) => Err(format!("`kbps` is {kbps}; for {format} it is {rates}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn read(change: serde_json::Value) -> Result<Push, String> {
        let mut written = json!({"station": "lofi", "url": "http://icecast.example:8000/lofi", "password": "hackme"});
        written.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(written).map_err(|error| error.to_string())
    }

    #[test]
    fn a_mount_and_a_password_are_enough() {
        let push = read(json!({})).unwrap();
        assert_eq!((push.host.as_str(), push.port, push.mount.as_str()), ("icecast.example", 8000, "/lofi"));
        assert_eq!(push.authorization, "Basic c291cmNlOmhhY2ttZQ==");
        assert!(push.about.contains(&("Ice-Name", "lofi".into())) && push.about.contains(&("Ice-Public", "0".into())));
        assert_eq!(format!("{push:?}"), "`lofi` at http://icecast.example:8000/lofi");
        assert_eq!(read(json!({"url": "http://[::1]/x"})).unwrap().port, 80);
        let tls = read(json!({"url": "https://icecast.example/x", "ca": "own.pem"})).unwrap();
        assert_eq!(format!("{tls}"), "`lofi` at https://icecast.example:443/x");
        let ogg = read(json!({"format": "ogg", "kbps": 64})).unwrap();
        assert_eq!((ogg.listen.format, ogg.listen.kbps), (Format::OGG, 64));
    }

    #[test]
    fn what_no_server_would_take_is_refused_in_a_sentence() {
        let wrong = ["http://x", "https://x", "http://x/", "ftp://x/y", "http://a:b@x/y", "x/y", "http://x/y?z"];
        for url in wrong {
            assert!(read(json!({"url": url})).unwrap_err().contains("`url` is the address of a mount"), "{url}");
        }
        assert!(read(json!({"ca": "own.pem"})).unwrap_err().contains("with https"));
        assert!(read(json!({"format": "wav"})).unwrap_err().contains("`format` is ogg"));
        assert!(read(json!({"format": "ogg", "kbps": 1000})).unwrap_err().starts_with("`kbps` is 1000; for ogg it is"));
        assert!(read(json!({"name": "a\r\nX-Evil: 1"})).unwrap_err().contains("one line"));
    }
}
