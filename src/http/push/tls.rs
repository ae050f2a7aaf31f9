//! Encrypted connections to servers of others, and whom they are believed from.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_native_certs::{load_certs_from_paths, load_native_certs};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Encrypts a connection to a host whose certificate the system believes, or one of the file `ca`.
pub(super) async fn connect(host: &str, ca: Option<&Path>, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let ca = ca.map(Path::to_owned);
    // Read for every connection: the files may have been renewed meanwhile.
    let config = spawn_blocking(|| config(ca)).await.map_err(io::Error::other)??;
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

fn config(ca: Option<PathBuf>) -> io::Result<ClientConfig> {
    let found = ca.as_ref().map_or_else(load_native_certs, |file| load_certs_from_paths(Some(file), None));
    let mut roots = RootCertStore::empty();
    let (known, _) = roots.add_parsable_certificates(found.certs);
    if known == 0 {
        let place = ca.map_or_else(|| "this system".into(), |file| file.display().to_string());
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(io::Error::other(format!("{place} has no certificates to believe a server by{why}")));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
