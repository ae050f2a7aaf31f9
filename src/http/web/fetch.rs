//! Sound from the web, for a server that must not be made to look into its own network.
//!
//! A YouTube address goes through `yt-dlp` when that is installed; any other http(s) address is
//! fetched directly. Names are resolved once, here, and private addresses refused unless the server
//! allows them: redirects included, and a name cannot point elsewhere between the check and the
//! connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Bytes of a file at most, and time for it.
const MOST: u64 = 96 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// Hosts that `yt-dlp` is asked for.
const YOUTUBE: [&str; 6] =
    ["youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "youtu.be", "www.youtu.be"];

/// Where a sound is.
#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// A video, by its address in one spelling.
    Video(String),
    /// A file.
    File(String),
}

impl Place {
    /// Reads an address.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.trim().parse().ok()?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority()?.as_str().contains('@') {
            return None;
        }
        let host = uri.host()?.to_ascii_lowercase();
        if !YOUTUBE.contains(&host.as_str()) {
            return Some(Self::File(url.trim().to_owned()));
        }
        let named = |name: &str| {
            let pairs = super::super::query::pairs(uri.query().unwrap_or_default());
            pairs.into_iter().find(|(is, _)| is == name).map(|(_, value)| value)
        };
        let mut path = uri.path().trim_matches('/').split('/');
        let first = path.next().unwrap_or_default();
        let id = match first {
            _ if host.ends_with("youtu.be") => Some(first.to_owned()),
            "watch" => named("v"),
            "shorts" | "embed" | "live" | "v" => path.next().map(str::to_owned),
            _ => None,
        }?;
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let fits = id.len() == 11 && id.chars().all(letter);
        fits.then(|| Self::Video(format!("https://www.youtube.com/watch?v={id}")))
    }

    /// Fetches the sound: of a video `seconds` from `from` on, of a file all of it. Says where in
    /// what came `from` is.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn fetch(&self, from: f64, seconds: f64, means: &Means<'_>) -> Result<(Vec<u8>, f64), String> {
        match self {
            Self::Video(url) => Ok((video(means.yt_dlp, url, from, seconds).await?, 0.0)),
            Self::File(url) => {
                let (url, private) = (url.clone(), means.private_addresses);
                let fetched = tokio::task::spawn_blocking(move || file(&url, private)).await;
                Ok((fetched.map_err(|error| error.to_string())??, from))
            }
        }
    }
}

/// With what sounds are fetched, and from where.
pub(super) struct Means<'a> {
    /// The program that knows video sites.
    pub(super) yt_dlp: &'a Path,
    /// Whether private networks may be looked into.
    pub(super) private_addresses: bool,
}

/// A folder for what a download leaves on the way; it goes whatever happens to whoever wanted it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn video(program: &Path, url: &str, from: f64, seconds: f64) -> Result<Vec<u8>, String> {
    let scratch = Scratch(std::env::temp_dir().join(format!("continuo-{}", uuid::Uuid::new_v4().simple())));
    std::fs::create_dir(&scratch.0).map_err(|error| format!("no temporary folder can be made ({error})."))?;
    // Its configuration is its user's, and could ask for anything.
    let run = Command::new(program)
        .args(["--ignore-config", "--quiet", "--no-warnings", "--no-playlist", "-x", "--audio-format", "wav"])
        .args(["--download-sections", &format!("*{from}-{}", from + seconds), "-o"])
        .arg(scratch.0.join("sound.%(ext)s"))
        .args(["--", url])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(2 * PATIENCE, run).await {
        Err(_) => return Err("it took too long.".to_owned()),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let advice = "install it, or send the address of an audio file";
            return Err(format!("yt-dlp is not installed on the server; {advice}."));
        }
        Ok(Err(error)) => return Err(format!("yt-dlp cannot be run ({error}).")),
        Ok(Ok(output)) => output,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().rev().find(|line| !line.trim().is_empty());
    let said: Option<String> = said.map(|line| line.trim_start_matches("ERROR: ").chars().take(300).collect());
    if !output.status.success() {
        return Err(said.unwrap_or_else(|| format!("yt-dlp ended with {}.", output.status)));
    }
    let path = scratch.0.join("sound.wav");
    match tokio::fs::metadata(&path).await {
        Ok(file) if file.len() > MOST => Err(format!("the sound has more than {} MB.", MOST >> 20)),
        Ok(_) => tokio::fs::read(&path).await.map_err(|error| format!("the sound cannot be read ({error}).")),
        // It is silent about places behind the end.
        Err(_) => Err(said.unwrap_or_else(|| "yt-dlp found no sound there.".to_owned())),
    }
}

fn file(url: &str, private: bool) -> Result<Vec<u8>, String> {
    let config = Config::builder().timeout_global(Some(PATIENCE)).proxy(None).max_redirects(5).build();
    let resolver = Guard { private, inner: DefaultResolver::default() };
    let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
    let sentence = |error: ureq::Error| match error {
        ureq::Error::Io(error) => format!("{error}."),
        ureq::Error::BodyExceedsLimit(_) => format!("the file has more than {} MB.", MOST >> 20),
        error => format!("{error}."),
    };
    let mut response = agent.get(url).call().map_err(sentence)?;
    response.body_mut().with_config().limit(MOST).read_to_vec().map_err(sentence)
}

/// Resolves names, and lets public addresses pass.
#[derive(Debug)]
struct Guard {
    private: bool,
    inner: DefaultResolver,
}

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let all = self.inner.resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        for address in all.iter().filter(|address| self.private || is_public(address.ip())) {
            allowed.push(*address);
        }
        if allowed.is_empty() {
            let sentence = "the address is in a private network; the server does not look there";
            return Err(ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, sentence)));
        }
        Ok(allowed)
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => public_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => public_v4(ip),
            None => public_v6(ip),
        },
    }
}

fn public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let special = a == 0 || a >= 240 || (a == 192 && b == 0 && c == 0) || (a == 198 && (b == 18 || b == 19));
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || shared
        || special)
}

fn public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    // Global unicast is 2000::/3; of it, 6to4 and Teredo wrap other addresses, and 2001:db8::/32 is
    // for examples.
    first & 0xe000 == 0x2000 && first != 0x2002 && !(first == 0x2001 && (second == 0 || second == 0xdb8))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_read_by_their_parts() {
        let video = Place::Video("https://www.youtube.com/watch?v=dQw4w9WgXcQ".into());
        for url in [
            "https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=10",
            "https://youtu.be/dQw4w9WgXcQ?si=x",
            "http://m.youtube.com/shorts/dQw4w9WgXcQ",
        ] {
            assert_eq!(Place::parse(url).as_ref(), Some(&video), "{url}");
        }
        for bad in [
            "",
            "ftp://a/b",
            "file:///etc/passwd",
            "https://youtube.com/",
            "https://youtu.be/--exec",
            "http://u:p@a/",
            "x",
        ] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
        // A name that only contains the other.
        assert!(matches!(Place::parse("https://notyoutube.com/watch?v=dQw4w9WgXcQ"), Some(Place::File(_))));
    }

    #[test]
    fn only_public_addresses_are_public() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "224.0.0.1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["1.1.1.1", "93.184.216.34", "2606:4700::1111"] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[tokio::test]
    async fn a_server_does_not_look_into_its_own_network() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x.wav", listener.local_addr().unwrap());
        let means = Means { yt_dlp: Path::new("yt-dlp"), private_addresses: false };
        let error = Place::parse(&url).unwrap().fetch(0.0, 1.0, &means).await.unwrap_err();
        assert!(error.contains("private network"), "{error}");
    }
}
