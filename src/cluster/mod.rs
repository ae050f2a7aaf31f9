//! Several processes as one server: the nodes of a cluster, which find each other over NATS.
//!
//! Nothing here runs without `serve --cluster`. This is the one room that knows NATS; the others
//! hold a [`Cluster`]. While no NATS server answers, what a node plays goes on, and what needs the
//! others is [`ClusterError::Away`]; nobody has to do anything for it to come back.

mod calls;
mod config;
mod directory;
mod error;
mod hearing;
mod homes;
mod kept;
mod link;
mod nodes;
mod once;
mod sending;
mod shelf;
mod succession;
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub use self::calls::{Answer, Call, Received, Respond, whole};
pub use self::config::{Address, ClusterConfig, Name, Role};
use self::directory::Directory;
pub use self::directory::Entry;
pub use self::error::ClusterError;
use self::hearing::Hearing;
pub use self::homes::Home;
use self::homes::Homes;
use self::link::{Link, Trouble};
pub use self::nodes::Node;
use self::nodes::Nodes;
use self::sending::{Sending, Subjects};
use self::shelf::Shelf;
use self::succession::Succession;
use crate::station::{Station, StationError, Stream, StreamSpec};
use crate::studio::{ClipId, Copies, SessionId, Studio};

/// Words of nodes may come so much later than they should, while servers of NATS agree anew.
const LATE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// This process as a node of its cluster.
pub struct Cluster {
    config: ClusterConfig,
    link: Arc<Link>,
    nodes: Arc<Nodes>,
    directory: Arc<Directory>,
    succession: Arc<Succession>,
    homes: Arc<Homes>,
    sending: Arc<Sending>,
    hearing: Hearing,
    /// They end with it.
    _tasks: JoinSet<()>,
}

impl Cluster {
    /// Joins, as soon as a NATS server answers; does not wait for it. From now on the names of the
    /// station's streams are those of the whole cluster. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ClusterError::Options`].
    pub async fn join(config: ClusterConfig, station: &Arc<Station>) -> Result<Self, ClusterError> {
        let link = Arc::new(Link::open(&config).await?);
        let nodes = Arc::new(Nodes::new(&config, Arc::clone(&link), Arc::clone(station)));
        let directory = Arc::new(Directory::new(&config, Arc::clone(&link), Arc::clone(&nodes), station));
        station.share(Arc::clone(&directory) as Arc<dyn crate::station::Directory>);
        let place = || (Subjects(config.name.to_string()), config.node.as_str());
        let homes = Arc::new(Homes::new(&config, Arc::clone(&link), Arc::clone(&nodes)));
        let shelf = Arc::new(Shelf::new(place().0, Arc::clone(&link), station));
        station.copy_journals_to(Arc::clone(&shelf) as Arc<dyn crate::station::Shelf>);
        let both = || (Arc::clone(&link), Arc::clone(&nodes));
        let succession = Succession::new(place(), both(), Arc::clone(&directory), Arc::clone(&shelf), station);
        let succession = Arc::new(succession);
        let heir = || Arc::clone(&succession);
        let hearing = Hearing::new(place(), both(), Arc::clone(&directory), heir(), station);
        let sending = Arc::new(Sending::new(place(), Arc::clone(&link), Arc::clone(&directory), heir(), station));
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&sending).keep());
        tasks.spawn(shelf.keep());
        tasks.spawn(heir().keep());
        tasks.spawn(Arc::clone(&nodes).keep());
        tasks.spawn(Arc::clone(&directory).keep());
        tasks.spawn(Arc::clone(&homes).run());
        Ok(Self { config, link, nodes, directory, succession, homes, sending, hearing, _tasks: tasks })
    }

    /// Waits until this node reaches the others and knows which stations they play, for so long at
    /// most: stations of prompt sets that all nodes have begin at one of them.
    pub async fn reached_within(&self, patience: Duration) {
        let reached = async {
            self.nodes.heard_itself().await;
            self.directory.until(|| self.directory.is_current()).await;
        };
        // Whoever does not reach them plays alone.
        let _ = timeout(patience, reached).await;
    }

    /// Has the calls of other nodes answered like this. Must be called within a tokio runtime.
    pub fn answer(&self, respond: Respond) {
        tokio::spawn(calls::answer(
            Arc::clone(&self.link),
            self.subject(self.node()),
            respond,
            Arc::clone(&self.nodes),
        ));
    }

    /// Asks another node. One whose NATS server has just died answers again in a moment.
    ///
    /// # Errors
    /// [`ClusterError::Away`], [`ClusterError::Silent`], [`ClusterError::Gone`].
    pub async fn ask(&self, node: &str, call: &Call) -> Result<Answer, ClusterError> {
        self.nodes.unless_gone(node, || calls::ask(&self.link, node, self.subject(node), call)).await
    }

    /// Whether a node is certainly not there: it would have been heard by now.
    pub fn is_gone(&self, node: &str) -> bool {
        self.nodes.is_gone(node)
    }

    fn subject(&self, node: &str) -> String {
        format!("continuo.{}.node.{node}.http", self.config.name)
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        self.config.name.as_str()
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        self.config.node.as_str()
    }

    /// Whether it has no model.
    pub fn is_edge(&self) -> bool {
        self.config.role == Role::Edge
    }

    /// Nodes that make streams, those with most room first, and this one before others that have as
    /// much.
    ///
    /// # Errors
    /// [`ClusterError::NoEngine`] when there are none, [`ClusterError::Away`],
    /// [`ClusterError::NameTaken`].
    pub fn engines(&self) -> Result<Vec<Node>, ClusterError> {
        let mut engines = self.nodes()?;
        engines.retain(|node| node.role != Role::Edge);
        engines.sort_by_key(|node| (std::cmp::Reverse(node.room), node.name != self.node()));
        if engines.is_empty() { Err(ClusterError::NoEngine) } else { Ok(engines) }
    }

    /// The same; where there is none, one is waited for: while servers of NATS agree anew, words of
    /// nodes come late.
    ///
    /// # Errors
    /// Those of [`Cluster::engines`].
    pub async fn engines_soon(&self) -> Result<Vec<Node>, ClusterError> {
        let until = Instant::now() + LATE;
        loop {
            match self.engines() {
                Err(ClusterError::NoEngine) if Instant::now() < until => sleep(LOOK).await,
                engines => return engines,
            }
        }
    }

    /// Nodes that make clips, those where fewest wait first, and this one before others that have
    /// as few.
    ///
    /// # Errors
    /// Those of [`Cluster::engines_soon`].
    pub async fn makers(&self) -> Result<Vec<Node>, ClusterError> {
        Ok(self.by_clips(self.engines_soon().await?))
    }

    fn by_clips(&self, mut engines: Vec<Node>) -> Vec<Node> {
        engines.sort_by_key(|node| (node.clips, node.name != self.node()));
        engines
    }

    /// Nodes by which a new clip is made sooner than here, those where fewest wait first, and then
    /// this one; this one alone while it has a free place.
    pub fn sooner(&self) -> Vec<String> {
        let own = self.nodes.busy();
        let others = self.by_clips(self.engines().unwrap_or_default()).into_iter();
        let sooner = others.filter(|node| node.name != self.node() && own.is_some_and(|own| node.clips < own));
        sooner.map(|node| node.name).chain([self.node().to_owned()]).collect()
    }

    /// A node has taken a clip on.
    pub fn gave_clip(&self, node: &str) {
        self.nodes.gave_clip(node);
    }

    /// Where copies of sessions go, so that other nodes can go on with them.
    pub fn copies(&self) -> Arc<dyn Copies> {
        Arc::clone(&self.homes) as Arc<dyn Copies>
    }

    /// The clips of this node are made by this studio, whose copies are [`Cluster::copies`].
    pub fn makes_clips(&self, studio: &Arc<Studio>) {
        self.nodes.makes_clips(studio);
        self.homes.serve(studio);
    }

    /// Where a session lives, if it is known.
    ///
    /// # Errors
    /// [`ClusterError::Away`], [`ClusterError::NameTaken`].
    pub async fn home(&self, session: &SessionId) -> Result<Option<Home>, ClusterError> {
        self.homes.find(session).await
    }

    /// The session of a clip, if it is known.
    ///
    /// # Errors
    /// [`ClusterError::Away`], [`ClusterError::NameTaken`].
    pub async fn session_of(&self, clip: ClipId) -> Result<Option<SessionId>, ClusterError> {
        self.homes.session_of(clip).await
    }

    /// Goes on here with a session whose home is gone. Says whether it is here.
    ///
    /// # Errors
    /// [`ClusterError::NotTaken`].
    pub async fn take(&self, session: &SessionId) -> Result<bool, ClusterError> {
        self.homes.take(session, false).await.map_err(|Trouble(reason)| {
            tracing::warn!(session = session.as_str(), "a session cannot go on here: {reason}");
            ClusterError::NotTaken
        })
    }

    /// Begins a stream at another node that has room for it, to be heard here.
    ///
    /// # Errors
    /// Why the last of them refused it; [`ClusterError::NoEngine`], [`ClusterError::Away`],
    /// [`ClusterError::Silent`].
    pub async fn begin(&self, spec: &StreamSpec) -> Result<Arc<Stream>, ClusterError> {
        let others: Vec<Node> =
            self.engines_soon().await?.into_iter().filter(|node| node.name != self.node()).collect();
        // Who has no room may still let it wait.
        let with_room = others.iter().filter(|node| node.room > 0).count().max(1);
        let mut refused = Err(ClusterError::NoEngine);
        for node in others.iter().take(with_room) {
            match self.hearing.begin(&node.name, spec).await {
                Err(error) if error.is_refusal() => refused = Err(error),
                begun => return begun,
            }
        }
        refused
    }

    /// Whether this node reaches the others.
    ///
    /// # Errors
    /// [`ClusterError::Away`], [`ClusterError::NameTaken`].
    pub fn reach(&self) -> Result<(), ClusterError> {
        self.nodes.reach()
    }

    /// The nodes that are there, by name.
    ///
    /// # Errors
    /// [`ClusterError::Away`], [`ClusterError::NameTaken`].
    pub fn nodes(&self) -> Result<Vec<Node>, ClusterError> {
        self.nodes.list()
    }

    /// What is known of a stream of any node without asking anybody.
    pub fn known(&self, id: &str) -> Option<Entry> {
        self.directory.known(id)
    }

    /// A stream that another node plays.
    ///
    /// # Errors
    /// [`ClusterError::Away`], [`ClusterError::NameTaken`].
    pub async fn find(&self, id: &str) -> Result<Option<Entry>, ClusterError> {
        self.directory.find(id).await
    }

    /// A station that another node plays.
    ///
    /// # Errors
    /// [`ClusterError::Away`], [`ClusterError::NameTaken`].
    pub async fn find_named(&self, name: &str) -> Result<Option<Entry>, ClusterError> {
        self.directory.find_named(name).await
    }

    /// A stream that another node plays, to be heard here.
    ///
    /// # Errors
    /// [`ClusterError::Away`], [`ClusterError::Silent`], [`ClusterError::Station`].
    pub async fn hear(&self, id: &str) -> Result<Arc<Stream>, ClusterError> {
        self.hearing.hear(id).await
    }

    /// A station that another node plays, to be heard here.
    ///
    /// # Errors
    /// Those of [`Cluster::hear`].
    pub async fn hear_named(&self, name: &str) -> Result<Arc<Stream>, ClusterError> {
        match self.find_named(name).await? {
            Some(entry) => self.hear(&entry.id).await,
            None => Err(StationError::NotFound(name.to_owned()).into()),
        }
    }

    /// Hands this node's streams to the others before it ends: those who hear them there hear them
    /// go on.
    pub async fn hand_over(&self) {
        self.nodes.closes();
        self.succession.hand_over(&self.sending).await;
    }

    /// Tells the others that this node is gone. They would notice by themselves after some seconds.
    pub async fn leave(&self) {
        self.directory.leave().await;
        self.homes.leave().await;
        self.nodes.leave().await;
    }
}
