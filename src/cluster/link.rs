//! The connection to NATS, which comes and goes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::jetstream::kv;
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::{Client, ConnectOptions, Event};
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{ClusterConfig, ClusterError};
use crate::telemetry::CLUSTER_CONNECTED;

/// How long a server may take to answer a newcomer.
const GREETING: Duration = Duration::from_secs(2);
/// A server that says nothing for two of these is given up.
const PING: Duration = Duration::from_secs(2);
/// Pauses between two servers that do not answer grow from the first to the second.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// A connection that is made again within this time was never lost, as far as anybody else is
/// concerned.
pub(super) const BLINK: Duration = Duration::from_secs(2);
/// How long anything that is asked of NATS may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What was asked of a NATS server that died is asked again after so long.
pub(super) const UNHEARD: Duration = Duration::from_millis(1500);
/// Servers of NATS that agree anew on who orders what is kept answer nothing for so long, and are
/// asked again every so often.
const AGREEING: Duration = Duration::from_secs(5);
const BREATH: Duration = Duration::from_millis(100);

/// What was asked of NATS went wrong; the sentence is the library's.
#[derive(Debug)]
pub(super) struct Trouble(pub(super) String);

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A connection that is made again for as long as it takes.
pub(super) struct Link {
    client: Client,
    jetstream: Context,
    /// Counts connections; `None` while there is none.
    connection: watch::Receiver<Option<u64>>,
    /// When the last one was lost.
    lost_at: Arc<Mutex<Option<Instant>>>,
    /// When the present one was made.
    up_at: Arc<Mutex<Option<Instant>>>,
    /// Copies that are kept of everything.
    replicas: usize,
}

impl Link {
    /// Begins to connect.
    pub(super) async fn open(config: &ClusterConfig) -> Result<Self, ClusterError> {
        let addresses = config.addresses()?;
        // A cluster of NATS keeps three copies, so that one of its servers may die.
        let replicas = if addresses.len() >= 3 { 3 } else { 1 };
        let (told, connection) = watch::channel(None);
        let lost_at = Arc::new(Mutex::new(None));
        let lost = Arc::clone(&lost_at);
        let up_at = Arc::new(Mutex::new(None));
        let up = Arc::clone(&up_at);
        let mut options = ConnectOptions::new();
        if let Some((user, password)) = config.login()? {
            options = options.user_and_password(user, password);
        }
        if let Some(file) = &config.credentials {
            options = options.credentials_file(file).await.map_err(|error| {
                ClusterError::Options(format!("--cluster-creds: {} cannot be read: {error}.", file.display()))
            })?;
        }
        let refusals = Mutex::default();
        let options = options
            .name(format!("continuo {}", config.node))
            .retry_on_initial_connect()
            .connection_timeout(GREETING)
            .ping_interval(PING)
            .request_timeout(Some(PATIENCE))
            .reconnect_delay_callback(backoff)
            .event_callback(move |event| {
                note(&told, (&lost, &up), &refusals, &event);
                std::future::ready(())
            });
        let client = options.connect(addresses).await;
        let client: Client = client.map_err(|error| ClusterError::Options(format!("--cluster: {error}.")))?;
        let mut jetstream = async_nats::jetstream::new(client.clone());
        jetstream.set_timeout(PATIENCE);
        Ok(Self { client, jetstream, connection, lost_at, up_at, replicas })
    }

    /// Waits for a connection, and gives its number.
    pub(super) async fn connected(&self) -> u64 {
        match self.connection.clone().wait_for(Option::is_some).await.map(|number| *number) {
            Ok(Some(number)) => number,
            // Nobody can tell of another any more.
            _ => std::future::pending().await,
        }
    }

    /// Waits until the connection of this number is no more.
    pub(super) async fn lost(&self, number: u64) {
        if self.connection.clone().wait_for(|now| *now != Some(number)).await.is_err() {
            std::future::pending().await
        }
    }

    /// The connection, or the next one if it comes at once.
    ///
    /// # Errors
    /// [`ClusterError::Away`] while there is none.
    pub(super) async fn client_soon(&self) -> Result<Client, ClusterError> {
        if !self.is_down() {
            // Where it fails the next line says so.
            let _ = timeout(BLINK, self.connected()).await;
        }
        self.client()
    }

    /// Asks NATS for something that it keeps, or to keep something, and again while its servers agree
    /// anew: what may be asked twice, each time for so long.
    ///
    /// # Errors
    /// [`ClusterError::Away`] when there is no connection, or no answer for too long.
    pub(super) async fn answered<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        patience: Duration,
        ask: impl Fn() -> F,
    ) -> Result<T, ClusterError> {
        let until = Instant::now() + AGREEING;
        loop {
            let reason = match timeout(patience, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Trouble(reason))) => reason,
                Err(error) => error.to_string(),
            };
            if self.is_down() || Instant::now() >= until {
                tracing::warn!(reason, "NATS does not answer");
                return Err(ClusterError::Away);
            }
            sleep(BREATH).await;
        }
    }

    /// Whether there has been no connection for a while.
    pub(super) fn is_down(&self) -> bool {
        let lost_at = *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        !self.is_up() && lost_at.is_none_or(|at| at.elapsed() > BLINK)
    }

    /// The connection.
    ///
    /// # Errors
    /// [`ClusterError::Away`] while there is none.
    pub(super) fn client(&self) -> Result<Client, ClusterError> {
        if self.is_up() { Ok(self.client.clone()) } else { Err(ClusterError::Away) }
    }

    /// A subject that nobody else has, for what is answered.
    pub(super) fn new_inbox(&self) -> String {
        self.client.new_inbox()
    }

    /// Whether there is a connection.
    pub(super) fn is_up(&self) -> bool {
        self.connection.borrow().is_some()
    }

    pub(super) fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    /// Copies that NATS keeps.
    pub(super) fn replicas(&self) -> usize {
        self.replicas
    }

    /// For how long there has been this connection.
    pub(super) fn up_for(&self) -> Duration {
        let at = *self.up_at.lock().unwrap_or_else(PoisonError::into_inner);
        at.filter(|_| self.is_up()).map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// A bucket, made where there is none yet.
    pub(super) async fn bucket(&self, config: kv::Config) -> Result<kv::Store, Trouble> {
        if let Ok(bucket) = self.jetstream.get_key_value(&config.bucket).await {
            return Ok(bucket);
        }
        let config = kv::Config { num_replicas: self.replicas, ..config };
        // Of two nodes that make it at the same time both succeed: they ask for the same.
        Ok(self.jetstream.create_key_value(config).await?)
    }

    /// The same for a bucket of objects.
    pub(super) async fn objects(&self, config: object_store::Config) -> Result<ObjectStore, Trouble> {
        if let Ok(bucket) = self.jetstream.get_object_store(&config.bucket).await {
            return Ok(bucket);
        }
        let config = object_store::Config { num_replicas: self.replicas, ..config };
        Ok(self.jetstream.create_object_store(config).await?)
    }
}

fn backoff(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(8);
    (MIN_BACKOFF * 2u32.pow(doublings)).min(MAX_BACKOFF)
}

fn note(
    told: &watch::Sender<Option<u64>>,
    (lost, up): (&Mutex<Option<Instant>>, &Mutex<Option<Instant>>),
    refusals: &Mutex<HashSet<String>>,
    event: &Event,
) {
    let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
    let connections = match event {
        Event::Connected => 1,
        Event::Disconnected | Event::Closed => 0,
        // It is tried again and again; each reason is told once.
        Event::ClientError(error) => {
            if refusals.insert(error.to_string()) {
                tracing::warn!("no connection to NATS comes about: {error}; trying again");
            }
            return;
        }
        other => {
            tracing::warn!("NATS: {other}");
            return;
        }
    };
    refusals.clear();
    gauge!(CLUSTER_CONNECTED).set(f64::from(connections));
    if connections == 0 {
        tracing::warn!("the connection to NATS is lost; what plays here goes on");
        *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        told.send_replace(None);
    } else {
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        *up.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        told.send_replace(Some(number));
    }
}

/// Connections of this process so far.
static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_asked_ever_less_often() {
        let pauses: Vec<Duration> = (0..12).map(backoff).collect();
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[11]), (MIN_BACKOFF, MAX_BACKOFF));
        assert_eq!(backoff(usize::MAX), MAX_BACKOFF);
    }
}
