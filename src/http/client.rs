//! Who a client is: one address for fairness, quotas, running sets and the log.
//!
//! It is the peer's address, unless the peer is a trusted proxy; then it is what the proxy says in
//! `X-Forwarded-For`. That header is read from the right, because each proxy appends the address
//! that it saw itself: what a client wrote into the header stands left of the first address that
//! belongs to no trusted proxy. `Forwarded` and `X-Real-IP` are not read: a proxy that sets one of
//! these headers passes the others on as the client sent them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use warp::Filter;
use warp::http::{HeaderMap, HeaderName};

use crate::studio::Owner;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
/// RFC 1918, RFC 4193 and link-local addresses.
const PRIVATE: [&str; 6] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"];

/// Proxies whose word is taken for who their client is, and for the address that the client used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrustedProxies {
    nets: Vec<IpNet>,
    /// Whatever runs on this machine, under any of its addresses.
    this_machine: bool,
}

impl TrustedProxies {
    /// What is trusted when nothing is said: proxies on this machine. Nobody else can come from its
    /// addresses.
    pub fn on_this_machine() -> Self {
        Self { nets: nets(&LOOPBACK), this_machine: true }
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.nets.extend(more.nets);
        Self { nets: self.nets, this_machine: self.this_machine || more.this_machine }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&address))
    }

    /// Whose request it is that came from `peer` to `local`.
    pub(super) fn client(&self, peer: SocketAddr, local: Option<SocketAddr>, headers: &HeaderMap) -> Client {
        let peer = peer.ip().to_canonical();
        let is_here = self.this_machine && local.is_some_and(|local| local.ip().to_canonical() == peer);
        if !is_here && !self.trusts(peer) {
            return Client { address: peer, proxy: None };
        }
        let mut client = Client { address: peer, proxy: Some(peer) };
        // Several headers are one list, in their order.
        for value in headers.get_all(FORWARDED_FOR).iter().rev() {
            let hops = value.to_str().unwrap_or("unreadable").rsplit(',').map(str::trim);
            for hop in hops.filter(|hop| !hop.is_empty()) {
                // Behind a hop that gives no address nothing is known: the last one that did
                // counts.
                let Some(address) = address_of(hop) else { return client };
                client.address = address;
                if !self.trusts(address) {
                    return client;
                }
            }
        }
        client
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let nets = match text.trim() {
            "none" => return Ok(Self::default()),
            "loopback" => return Ok(Self::on_this_machine()),
            "private" => nets(&PRIVATE),
            other => {
                let net = other.parse().or_else(|_| other.parse::<IpAddr>().map(|one| IpNet::from(one.to_canonical())));
                vec![net.map_err(|_| "send an address, a range such as 10.0.0.0/8, loopback, private or none")?]
            }
        };
        Ok(Self { nets, this_machine: false })
    }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The address of a hop, which may come with a port, in brackets or with a zone.
fn address_of(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    let bare = match hop.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => hop,
    };
    let bare = bare.split_once('%').map_or(bare, |(address, _zone)| address);
    let address = bare.parse().or_else(|_| bare.parse().map(|with_port: SocketAddr| with_port.ip()));
    Some(address.ok()?.to_canonical())
}

/// Whose request it is; in every request's extensions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Client {
    /// In one spelling: an IPv4 address that comes over IPv6 is an IPv4 address.
    pub address: IpAddr,
    /// The trusted proxy that it came through.
    pub proxy: Option<IpAddr>,
}

impl Client {
    /// Whom queues take it for.
    pub fn owner(&self) -> Owner {
        Owner(self.address.to_string())
    }
}

/// The client of a request that came through the front.
pub(super) fn of_request() -> impl Filter<Extract = (Client,), Error = warp::Rejection> + Copy {
    warp::ext::get::<Client>()
}

/// Whom queues take a request for.
pub(super) fn owner() -> impl Filter<Extract = (Owner,), Error = warp::Rejection> + Copy {
    of_request().map(|client: Client| client.owner())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use warp::http::HeaderValue;

    use super::*;

    fn client(trusted: &str, peer: &str, told: &[&str]) -> String {
        let trusted = trusted.split(' ').map(|one| one.parse::<TrustedProxies>().unwrap());
        let trusted = trusted.fold(TrustedProxies::default(), TrustedProxies::and);
        let mut headers = HeaderMap::new();
        for value in told {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let local = "192.0.2.2:8765".parse().unwrap();
        trusted.client(SocketAddr::new(peer.parse().unwrap(), 4000), Some(local), &headers).address.to_string()
    }

    #[test]
    fn a_stranger_is_who_the_connection_says() {
        assert_eq!(client("loopback", "198.51.100.7", &["203.0.113.1"]), "198.51.100.7");
        assert_eq!(client("loopback", "10.0.0.7", &["203.0.113.1"]), "10.0.0.7");
        assert_eq!(client("none", "127.0.0.1", &["203.0.113.1"]), "127.0.0.1");
        assert_eq!(client("none", "::ffff:198.51.100.7", &[]), "198.51.100.7");
    }

    #[test]
    fn a_trusted_proxy_is_believed_from_the_right() {
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.2"] {
            assert_eq!(client("loopback", peer, &["203.0.113.1"]), "203.0.113.1", "{peer}");
            assert_eq!(client("loopback", peer, &["6.6.6.6, 203.0.113.1"]), "203.0.113.1", "{peer}");
        }
        let chain = ["6.6.6.6", "203.0.113.1, 10.1.2.3", "172.18.0.3"];
        assert_eq!(client("loopback private", "127.0.0.1", &chain), "203.0.113.1");
        assert_eq!(client("loopback", "127.0.0.1", &chain), "172.18.0.3");
        assert_eq!(client("10.0.0.0/8 172.18.0.3", "10.9.9.9", &chain), "203.0.113.1");
        // All of them are proxies: it began with the first.
        assert_eq!(client("private", "10.9.9.9", &["10.0.0.5, 10.0.0.6"]), "10.0.0.5");
    }

    #[test]
    fn hops_have_ports_brackets_and_zones_or_are_nonsense() {
        for (told, is) in [
            ("203.0.113.1:5678", "203.0.113.1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::ffff:203.0.113.1", "203.0.113.1"),
            ("fe80::1%eth0", "fe80::1"),
            ("\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("unknown", "127.0.0.1"),
            ("", "127.0.0.1"),
            ("203.0.113.1, ,", "203.0.113.1"),
            ("203.0.113.1, <script>", "127.0.0.1"),
            ("203.0.113.1, caf\u{e9}", "127.0.0.1"),
        ] {
            assert_eq!(client("loopback", "127.0.0.1", &[told]), is, "{told}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["", "10.0.0.0/33", "proxy.example", "10.0.0"] {
            assert!(bad.parse::<TrustedProxies>().is_err(), "{bad}");
        }
    }
}
