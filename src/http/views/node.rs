//! The nodes of a cluster as operators see them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::cluster::Node;

/// The nodes of a cluster, by name.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct NodeList {
    /// The cluster's name; `null` of a server by itself.
    pub cluster: Option<String>,
    /// Name of the node that answers.
    pub node: Option<String>,
    pub nodes: Vec<Node>,
}
