//! What the station tells of its streams.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::super::link::PATIENCE;
use super::Directory;
use crate::station::{self, StationError, Stream};

impl station::Directory for Directory {
    fn is_elsewhere(&self, id: &str) -> bool {
        self.known(id).is_some_and(|entry| entry.node != self.node && !self.nodes.is_gone(&entry.node))
    }

    fn claim<'a>(&'a self, name: &'a str, id: &'a str) -> BoxFuture<'a, Result<(), StationError>> {
        self.take(name, id).boxed()
    }

    fn release<'a>(&'a self, name: &'a str, id: &'a str) -> BoxFuture<'a, ()> {
        async move {
            let _ = timeout(PATIENCE, self.give_back(name, id)).await;
        }
        .boxed()
    }

    fn begun<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, ()> {
        async move {
            // What does not succeed is done in the next round.
            let written = async {
                let name = match stream.name() {
                    Some(name) => self.take(name, stream.id()).await.ok().map(|()| name),
                    None => None,
                };
                self.write_down(stream, name).await
            };
            let _ = timeout(PATIENCE, written).await;
        }
        .boxed()
    }

    fn ended<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, ()> {
        async move {
            let row = self.rows().get(stream.id()).map(|row| (row.entry.clone(), row.revision));
            if let Some((entry, revision)) = row.filter(|(entry, _)| entry.process == self.process) {
                self.own().remove(stream.id());
                // For a while it may be asked why it ended; nobody can ask for what was deleted.
                let is_known = self.station.upgrade().is_some_and(|station| station.get(stream.id()).is_ok());
                // What does not succeed is done in the next round.
                let _ = match is_known {
                    true => timeout(PATIENCE, self.take_name(entry, revision)).await,
                    false => timeout(PATIENCE, self.take_away(&entry, revision)).await,
                };
            }
        }
        .boxed()
    }
}
