//! What a station asks of the other nodes, where it is one of several.

use futures_util::future::BoxFuture;

use super::{StationError, Stream};

/// Where all nodes of a cluster find each other's streams.
pub trait Directory: Send + Sync {
    /// Whether another node makes the stream of this id.
    fn is_elsewhere(&self, id: &str) -> bool;

    /// Takes a name for the stream that will have this id. The same stream may take it again.
    ///
    /// # Errors
    /// [`StationError::NameTaken`].
    fn claim<'a>(&'a self, name: &'a str, id: &'a str) -> BoxFuture<'a, Result<(), StationError>>;

    /// The stream did not begin.
    fn release<'a>(&'a self, name: &'a str, id: &'a str) -> BoxFuture<'a, ()>;

    /// A stream has begun; when this is done the others find it.
    fn begun<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, ()>;

    /// A stream has ended; when this is done its name is free.
    fn ended<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, ()>;
}
