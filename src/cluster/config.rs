//! How a node finds its cluster, and what it is called there.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;

use async_nats::ServerAddr;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ClusterError;

/// The longest name of a cluster or node.
const LONGEST: usize = 64;

/// How a node joins its cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// NATS servers; any one that answers will do.
    pub servers: Vec<Address>,
    /// A file of credentials that NATS asks for.
    pub credentials: Option<PathBuf>,
    /// Two clusters of different names share NATS servers without knowing of each other.
    pub name: Name,
    /// No two nodes have the same.
    pub node: Name,
    /// What it does.
    pub role: Role,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It makes streams and serves listeners.
    Both,
    /// It has no model and serves listeners.
    Edge,
}

impl ClusterConfig {
    /// The servers as the client library takes them. `nats://a,b` says of all that they speak as
    /// the first one does.
    pub(super) fn addresses(&self) -> Result<Vec<ServerAddr>, ClusterError> {
        let scheme = self.servers.iter().find_map(|address| address.scheme()).unwrap_or(Address::PLAIN);
        let whole = |address: &Address| match address.scheme() {
            Some(_) => address.0.clone(),
            None => format!("{scheme}://{}", address.0),
        };
        let parsed = self.servers.iter().map(|address| whole(address).parse::<ServerAddr>());
        parsed.collect::<Result<_, _>>().map_err(|error| ClusterError::Options(format!("--cluster: {error}.")))
    }

    /// User and password for all servers: those that the first address with some names.
    pub(super) fn login(&self) -> Result<Option<(String, String)>, ClusterError> {
        let login = |server: &ServerAddr| Some((decoded(server.username()?), decoded(server.password()?)));
        Ok(self.addresses()?.iter().find_map(login))
    }
}

/// What percent signs in an address stand for.
fn decoded(text: &str) -> String {
    // These mean something in forms alone.
    let text = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(text.as_bytes()).map(|(text, _)| text).collect()
}

/// The address of a NATS server. It may hold a password and is not shown.
#[derive(Clone)]
pub struct Address(String);

impl Address {
    const PLAIN: &str = "nats";

    fn scheme(&self) -> Option<&str> {
        self.0.split_once("://").map(|(scheme, _)| scheme)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SENTENCE: &str = "it is the address of a NATS server, such as nats://10.0.0.1:4222 or tls://nats.example";
        let address = Self(text.trim().to_owned());
        let speaks = address.scheme().is_none_or(|scheme| [Self::PLAIN, "tls"].contains(&scheme));
        match address.0.parse::<ServerAddr>() {
            Ok(parsed) if speaks && !parsed.host().is_empty() => Ok(address),
            _ => Err(SENTENCE),
        }
    }
}

/// A word that can stand in a subject of NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a node that was given none: its machine's, and the port by which several on one
    /// differ.
    pub fn of_machine(machine: &str, port: u16) -> Self {
        let plain = |letter: char| if is_plain(letter) { letter } else { '-' };
        Self(format!("{}-{port}", machine.chars().take(LONGEST - 6).map(plain).collect::<String>()))
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=LONGEST).contains(&text.len()) && text.chars().all(is_plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("it has 1 to {LONGEST} letters, digits, - and _"))
    }
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "-_".contains(letter)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(servers: &[&str]) -> ClusterConfig {
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        ClusterConfig {
            servers,
            credentials: None,
            name: "x".parse().unwrap(),
            node: "y".parse().unwrap(),
            role: Role::Both,
        }
    }

    #[test]
    fn servers_without_a_scheme_speak_as_the_first_one_does() {
        for (servers, wanted) in [
            (["nats://a", "b:4333"], [("nats", "a", 4222), ("nats", "b", 4333)]),
            (["tls://a:1", "b"], [("tls", "a", 1), ("tls", "b", 4222)]),
            (["a", "10.0.0.2"], [("nats", "a", 4222), ("nats", "10.0.0.2", 4222)]),
            (["tls://a", "nats://me:secret@b"], [("tls", "a", 4222), ("nats", "b", 4222)]),
        ] {
            let parsed = config(&servers).addresses().unwrap();
            let parsed: Vec<_> = parsed.iter().map(|one| (one.scheme(), one.host(), one.port())).collect();
            assert_eq!(parsed, wanted);
        }
    }

    #[test]
    fn user_and_password_of_one_address_are_for_all() {
        for (servers, wanted) in [
            (["tls://me:secret@a", "b"], Some(("me", "secret"))),
            (["a", "nats://me:p%40ss+w=r&d@b"], Some(("me", "p@ss+w=r&d"))),
            (["a", "b"], None),
        ] {
            let login = config(&servers).login().unwrap();
            assert_eq!(login.as_ref().map(|(user, password)| (user.as_str(), password.as_str())), wanted);
        }
    }

    #[test]
    fn what_is_no_server_and_no_name_is_refused() {
        for bad in ["", "http://a", "nats://", "nats://a:notaport", "ws://a"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        for bad in ["", "a b", "a.b", "a>", "ü"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert_eq!(Name::of_machine("box.example", 8765).as_str(), "box-example-8765");
        assert!(Name::of_machine(&"x".repeat(300), 8765).as_str().parse::<Name>().is_ok());
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", config(&["nats://me:secret@b"])).contains("secret"));
    }
}
