//! What `serve` is told about the other processes that it is one server with.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Failure;
use crate::cluster::{Address, ClusterConfig, Name, Role};

/// Options about the cluster.
#[derive(Args, Clone)]
pub(super) struct ClusterArgs {
    /// NATS servers (with JetStream) over which this process and others are one server, such as
    /// nats://10.0.0.1:4222,10.0.0.2,10.0.0.3; tls:// encrypts, and nats://USER:PASSWORD@10.0.0.1
    /// logs in (at all of them). Without it the server is by itself
    #[arg(long, env = "CONTINUO_CLUSTER", hide_env_values = true, value_name = "ADDRESS", value_delimiter = ',')]
    cluster: Vec<Address>,
    /// The cluster's name; clusters of different names may share NATS servers
    #[arg(long, env = "CONTINUO_CLUSTER_NAME", value_name = "NAME", default_value = "continuo")]
    cluster_name: Name,
    /// File of credentials (a `.creds` file, as `nsc` makes it) that the NATS servers ask for
    #[arg(long, env = "CONTINUO_CLUSTER_CREDS", value_name = "FILE")]
    cluster_creds: Option<PathBuf>,
    /// This process's name among the nodes of the cluster [default: the machine's name and the
    /// port]
    #[arg(long, env = "CONTINUO_NODE", value_name = "NAME")]
    node: Option<Name>,
    /// What this process does in the cluster: both make streams and serve listeners; an edge has no
    /// model and serves listeners of what others make
    #[arg(long, env = "CONTINUO_ROLE", value_name = "ROLE", default_value = "both")]
    role: RoleChoice,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum RoleChoice {
    Both,
    Edge,
}

impl ClusterArgs {
    /// How to join, if there is something to join.
    pub(super) fn config(&self, port: u16) -> Result<Option<ClusterConfig>, Failure> {
        if self.cluster.is_empty() {
            if self.node.is_some() || self.cluster_creds.is_some() || self.role == RoleChoice::Edge {
                let sentence = "--node, --role and --cluster-creds are for a node of a cluster; give --cluster too.";
                return Err(Failure(sentence.into()));
            }
            return Ok(None);
        }
        Ok(Some(ClusterConfig {
            servers: self.cluster.clone(),
            credentials: self.cluster_creds.clone(),
            name: self.cluster_name.clone(),
            role: match self.role {
                RoleChoice::Both => Role::Both,
                RoleChoice::Edge => Role::Edge,
            },
            node: self.node.clone().unwrap_or_else(|| Name::of_machine(&machine(), port)),
        }))
    }
}

fn machine() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    "node".into()
}
