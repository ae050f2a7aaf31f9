//! Who sent an event, and who hears of a session: sockets of this node, and those of other nodes
//! through them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;

use super::super::client::Client;
use super::push::to_one;
use super::socket::Gary;
use crate::studio::{Owner, SessionId};

/// What another node tells its sockets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// The one that asked is in the session's room from now on.
    Join(String),
    /// It is not any more.
    Leave(String),
    /// To it alone.
    One(String, Value),
    /// To all in a session's room.
    Room(String, String, Value),
    /// To all in a session's room, how this clip ended: a node that has somebody there says so once
    /// he knows it.
    End(String, String, String, Value),
}

impl Said {
    /// As a line.
    pub(super) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// Who sent an event.
pub(super) enum Asker<'a> {
    /// A socket of this node.
    Here(&'a SocketRef),
    /// One of another node.
    Far(Far),
}

/// A socket of another node, and what it is told.
pub(super) struct Far {
    pub(super) node: String,
    pub(super) owner: Owner,
    said: Mutex<Vec<Said>>,
    /// Another node may do it.
    is_full: AtomicBool,
}

impl Far {
    pub(super) fn new(node: String, owner: Owner) -> Self {
        Self { node, owner, said: Mutex::default(), is_full: AtomicBool::new(false) }
    }

    /// There is no place here for what it asks for.
    pub(super) fn refuse(&self) {
        self.is_full.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    pub(super) fn say(&self, said: Said) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(said);
    }

    /// All that it was told.
    pub(super) fn lines(self) -> String {
        let said = self.said.into_inner().unwrap_or_else(PoisonError::into_inner);
        said.iter().map(Said::line).collect()
    }
}

impl Asker<'_> {
    pub(super) fn owner(&self) -> Owner {
        match self {
            Self::Here(socket) => {
                let client = socket.req_parts().extensions.get::<Client>();
                client.map_or_else(|| Owner(socket.id.to_string()), Client::owner)
            }
            Self::Far(far) => far.owner.clone(),
        }
    }

    /// The socket, if it is one of this node.
    pub(super) fn id(&self) -> Option<Sid> {
        match self {
            Self::Here(socket) => Some(socket.id),
            Self::Far(_) => None,
        }
    }

    pub(super) fn far(&self) -> Option<&Far> {
        match self {
            Self::Here(_) => None,
            Self::Far(far) => Some(far),
        }
    }

    /// Joins the room of a session.
    pub(super) fn join(&self, gary: &Gary, session: &SessionId) {
        match self {
            Self::Here(socket) => gary.members.join(socket, session),
            Self::Far(far) => {
                gary.bridge.expect(session, &far.node);
                far.say(Said::Join(session.to_string()));
            }
        }
    }

    pub(super) fn leave(&self, session: &SessionId) {
        match self {
            Self::Here(socket) => socket.leave(session.to_string()),
            Self::Far(far) => far.say(Said::Leave(session.to_string())),
        }
    }

    /// Tells it alone.
    pub(super) fn tell(&self, event: &str, data: &Value) {
        match self {
            Self::Here(socket) => to_one(socket, event, data),
            Self::Far(far) => far.say(Said::One(event.to_owned(), data.clone())),
        }
    }
}
