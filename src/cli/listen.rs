//! `--host` and `--port`: every address that they stand for.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};

/// Listens on an address (IPv6 with brackets or without) or on every address of a name: `localhost`
/// has two on most machines, and browsers try either. Must be called within a tokio runtime.
///
/// # Errors
/// When the name has no address, or one cannot be listened on for another reason than that this
/// machine lacks it.
pub(super) async fn listen(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    let host = host.trim();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in lookup_host((bare, port)).await? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let (mut listeners, mut missing, mut port) = (Vec::new(), io::ErrorKind::NotFound.into(), port);
    for mut address in addresses {
        address.set_port(port);
        match TcpListener::bind(address).await {
            Ok(listener) => {
                // Of port 0 the system's choice holds for all.
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            Err(error) if is_missing(&error) => missing = error,
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() { Err(missing) } else { Ok(listeners) }
}

/// An address of a name that this machine does not have, such as `::1` where IPv6 is switched off.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn hosts_are_addresses_with_or_without_brackets_and_names() {
        let has_v6 = TcpListener::bind("[::1]:0").await.is_ok();
        for (host, is_v6) in [("127.0.0.1", false), ("::1", true), ("[::1]", true), ("localhost", false)] {
            if is_v6 && !has_v6 {
                continue;
            }
            let listeners = listen(host, 0).await.unwrap();
            let ports: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
            assert!(ports.iter().all(|port| *port == ports[0]), "{host}: {ports:?}");
            for listener in &listeners {
                TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            }
        }
        assert!(listen("no such host", 0).await.is_err());
        let taken = listen("127.0.0.1", 0).await.unwrap();
        assert!(listen("127.0.0.1", taken[0].local_addr().unwrap().port()).await.is_err());
    }
}
