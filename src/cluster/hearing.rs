//! What this node hears of the streams of others: one subscription per stream and way to listen,
//! whoever listens here.

mod distant;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::distant::{Away, Distant};
use super::ClusterError;
use super::directory::Directory;
use super::link::{Link, PATIENCE, UNHEARD};
use super::nodes::Nodes;
use super::sending::Subjects;
use super::succession::Succession;
use super::verbs::{Ask, Done, Reply, What};
use crate::station::{Station, StationError, Stream, StreamSpec};

/// Pages and events that wait to be taken.
const WAITING: usize = 256;

/// The streams of others that are heard here.
pub(super) struct Hearing {
    subjects: Subjects,
    node: String,
    link: Arc<Link>,
    nodes: Arc<Nodes>,
    directory: Arc<Directory>,
    succession: Arc<Succession>,
    station: Arc<Station>,
    /// Held while one is begun.
    beginning: tokio::sync::Mutex<()>,
}

impl Hearing {
    pub(super) fn new(
        (subjects, node): (Subjects, &str),
        (link, nodes): (Arc<Link>, Arc<Nodes>),
        directory: Arc<Directory>,
        succession: Arc<Succession>,
        station: &Arc<Station>,
    ) -> Self {
        let beginning = tokio::sync::Mutex::default();
        let station = Arc::clone(station);
        Self { subjects, node: node.to_owned(), link, nodes, directory, succession, station, beginning }
    }

    /// A stream of another node, to be heard here.
    pub(super) async fn hear(&self, id: &str) -> Result<Arc<Stream>, ClusterError> {
        let _beginning = self.beginning.lock().await;
        if let Some(stream) = self.station.relayed(id) {
            return Ok(stream);
        }
        let Some(entry) = self.directory.find(id).await? else {
            return Err(StationError::NotFound(id.to_owned()).into());
        };
        let (heard, inbox) = mpsc::channel(WAITING);
        let node = entry.node.clone();
        let distant = Arc::new(Distant::new(self, entry, heard));
        // Nothing is missed of what happens behind the facts.
        distant.follow_events().await.map_err(|_| ClusterError::Away)?;
        let want = || What::Want { node: self.node.clone(), wishes: Vec::new() };
        let mut answer = distant.ask(want()).await;
        if matches!(answer, Err(ClusterError::Gone(_))) && distant.replace(None).await {
            answer = distant.ask(want()).await;
        }
        let facts = match answer? {
            Ok(Done::Facts { facts, generation }) => (*facts, generation),
            Ok(_) => return Err(ClusterError::Silent(node)),
            Err(refusal) => return Err(refusal.of_station(id).into()),
        };
        Ok(self.station.relay(facts, Arc::new(Away(distant)), inbox))
    }

    /// A new stream of another node, to be heard here.
    pub(super) async fn begin(&self, node: &str, spec: &StreamSpec) -> Result<Arc<Stream>, ClusterError> {
        let asked = || {
            let what = What::Begin(Box::new(spec.clone()));
            ask(&self.link, node, &self.subjects, Ask::new("", what))
        };
        match self.nodes.unless_gone(node, asked).await? {
            Ok(Done::Begun { id }) => self.hear(&id).await,
            Ok(_) => Err(ClusterError::Silent(node.to_owned())),
            Err(refusal) => Err(refusal.of_station("").into()),
        }
    }
}

/// Asks a node about its streams; once more when nothing is heard.
pub(super) async fn ask(link: &Link, node: &str, subjects: &Subjects, ask: Ask) -> Result<Reply, ClusterError> {
    ask_within(PATIENCE, link, node, subjects, ask).await
}

async fn ask_within(
    patience: Duration,
    link: &Link,
    node: &str,
    subjects: &Subjects,
    ask: Ask,
) -> Result<Reply, ClusterError> {
    let client = link.client_soon().await?;
    let silent = || ClusterError::Silent(node.to_owned());
    let ask = Bytes::from(serde_json::to_vec(&ask).map_err(|_| silent())?);
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let request = Request::new().payload(ask.clone()).timeout(Some(left.min(UNHEARD)));
        let answer = client.send_request(subjects.node(node), request).await;
        match answer.map_err(|error| error.kind()) {
            Ok(message) => return serde_json::from_slice(&message.payload).map_err(|_| silent()),
            Err(RequestErrorKind::NoResponders) => return Err(ClusterError::Gone(node.to_owned())),
            Err(RequestErrorKind::TimedOut) if left > UNHEARD => {}
            Err(_) if link.is_up() => return Err(silent()),
            Err(_) => return Err(ClusterError::Away),
        }
    }
}
