//! What is kept of each socket, so that no one of them, and no client, holds more than its part:
//! the sessions whose rooms it is in, the events that are being answered, and the bytes that it was
//! sent and has not taken.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use tokio::sync::watch;
use warp::http::Extensions;

use super::super::client::Client;
use super::super::connection::Connection;
use super::super::meter::Meter;
use crate::budget::{Budget, Exhausted};
use crate::studio::SessionId;

/// Rooms of one socket; the one joined longest ago is left for another.
const ROOMS: usize = 64;
/// Events of one socket that may be in the works.
const ANSWERING: usize = 256;
/// Sockets in all, and of one client.
const SOCKETS: usize = 8192;
const SOCKETS_OF_ONE: usize = 1024;
/// Handshakes that nobody made use of yet, in all and of one client, and how long they count.
const UNUSED: usize = 1024;
const UNUSED_OF_ONE: usize = 128;
const FRESH: Duration = Duration::from_secs(45);
/// Connections that are kept for sockets which have not entered.
const EARLY: usize = 256;
/// Bytes that a socket may have left untaken when another large message is due.
const BEHIND: u64 = 8 << 20;
/// How often it is looked whether a large message was taken, and how long that may take.
const LOOK: Duration = Duration::from_millis(100);
const TAKEN_WITHIN: Duration = Duration::from_secs(300);
/// A message is in memory as a packet, as a text and in the socket's buffer.
const COPIES: u64 = 3;

/// All sockets.
pub(super) struct Members {
    pub(super) budget: Budget,
    sockets: Mutex<HashMap<Sid, Member>>,
    unused: Mutex<VecDeque<(Instant, IpAddr)>>,
    /// Connections of sockets that have not entered yet, or that are none: anybody may send a name.
    early: Mutex<VecDeque<(Sid, Carrier)>>,
}

struct Member {
    client: IpAddr,
    since: Instant,
    /// Whether it was told that it has joined; before that nothing can be sent to it.
    welcomed: watch::Sender<bool>,
    rooms: VecDeque<SessionId>,
    answering: usize,
    /// Bytes of large messages that were handed to the socket.
    sent: u64,
    /// Bytes that left by polls.
    polled: u64,
    carrier: Option<Carrier>,
}

/// The connection of a WebSocket.
struct Carrier {
    meter: Arc<Meter>,
    /// What had been written when it was first seen.
    before: u64,
}

impl Member {
    fn new(client: IpAddr) -> Self {
        Self {
            client,
            since: Instant::now(),
            welcomed: watch::Sender::new(false),
            rooms: VecDeque::new(),
            answering: 0,
            sent: 0,
            polled: 0,
            carrier: None,
        }
    }

    fn taken(&self) -> u64 {
        let carried = |carrier: &Carrier| carrier.meter.written().saturating_sub(carrier.before);
        self.polled + self.carrier.as_ref().map_or(0, carried)
    }
}

/// While it lives, an event is being answered.
pub(super) struct Turn<'a>(&'a Members, Sid);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(member) = self.0.sockets().get_mut(&self.1) {
            member.answering -= 1;
        }
    }
}

impl Members {
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, sockets: Mutex::default(), unused: Mutex::default(), early: Mutex::default() }
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<Sid, Member>> {
        // Numbers and names, whole between any two statements.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unused(&self) -> MutexGuard<'_, VecDeque<(Instant, IpAddr)>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn early(&self) -> MutexGuard<'_, VecDeque<(Sid, Carrier)>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more of a client may come in.
    pub(super) fn admits(&self, client: IpAddr) -> bool {
        let mut unused = self.unused();
        while unused.front().is_some_and(|(since, _)| since.elapsed() > FRESH) {
            unused.pop_front();
        }
        let of_one = unused.iter().filter(|(_, other)| *other == client).count();
        if unused.len() >= UNUSED || of_one >= UNUSED_OF_ONE {
            return false;
        }
        let mut sockets = self.sockets();
        // Those whose connection ended between entering and the welcome leave no other way.
        sockets.retain(|_, member| *member.welcomed.borrow() || member.since.elapsed() < FRESH);
        if sockets.len() >= SOCKETS
            || sockets.values().filter(|member| member.client == client).count() >= SOCKETS_OF_ONE
        {
            return false;
        }
        unused.push_back((Instant::now(), client));
        true
    }

    /// A socket that made use of its handshake, before it is told that it has joined.
    pub(super) fn enter(&self, socket: &SocketRef) {
        let extensions = &socket.req_parts().extensions;
        self.take_in(socket.id, client_of(extensions));
        // One that began with polls and has changed over already came by another connection than
        // its first.
        let is_carried = self.sockets().get(&socket.id).is_some_and(|member| member.carrier.is_some());
        if let Some(connection) = extensions.get::<Connection>().filter(|_| !is_carried)
            && socket.transport_type() == socketioxide::TransportType::Websocket
        {
            self.carried_by(socket.id, connection);
        }
    }

    fn take_in(&self, socket: Sid, client: IpAddr) {
        let mut unused = self.unused();
        if let Some(index) = unused.iter().position(|(_, other)| *other == client) {
            unused.remove(index);
        }
        let mut early = self.early();
        let carrier = early.iter().position(|(other, _)| *other == socket).and_then(|index| early.remove(index));
        let mut sockets = self.sockets();
        let member = sockets.entry(socket).or_insert_with(|| Member::new(client));
        if let Some((_, carrier)) = carrier {
            member.carrier = Some(carrier);
        }
    }

    /// A socket was told that it has joined, and can be sent to.
    pub(super) fn welcome(&self, socket: Sid) {
        if let Some(member) = self.sockets().get(&socket) {
            member.welcomed.send_replace(true);
        }
    }

    /// Its messages go over this connection from now on.
    pub(super) fn carried_by(&self, socket: Sid, connection: &Connection) {
        let meter = Arc::clone(&connection.meter);
        self.carry(socket, Carrier { before: meter.written(), meter });
    }

    fn carry(&self, socket: Sid, carrier: Carrier) {
        // Held throughout: between the two looks the socket could enter.
        let mut early = self.early();
        if let Some(member) = self.sockets().get_mut(&socket) {
            member.carrier = Some(carrier);
            return;
        }
        if early.len() >= EARLY {
            early.pop_front();
        }
        early.push_back((socket, carrier));
    }

    /// A poll has fetched so many bytes.
    pub(super) fn polled(&self, socket: Sid, bytes: u64) {
        if let Some(member) = self.sockets().get_mut(&socket) {
            member.polled += bytes;
        }
    }

    pub(super) fn leave(&self, socket: Sid) {
        self.sockets().remove(&socket);
    }

    /// Joins the room of a session.
    pub(super) fn join(&self, socket: &SocketRef, session: &SessionId) {
        let left = {
            let mut sockets = self.sockets();
            let Some(member) = sockets.get_mut(&socket.id) else { return };
            member.rooms.retain(|room| room != session);
            member.rooms.push_back(session.clone());
            if member.rooms.len() > ROOMS { member.rooms.pop_front() } else { None }
        };
        socket.join(session.to_string());
        if let Some(left) = left {
            socket.leave(left.to_string());
        }
    }

    /// A message of a socket is whole.
    pub(super) fn used(&self, socket: Sid) {
        if let Some(Member { carrier: Some(carrier), .. }) = self.sockets().get(&socket) {
            carrier.meter.used();
        }
    }

    /// Begins to answer an event, unless too many of its socket are being answered or the socket is
    /// gone.
    pub(super) async fn turn(&self, socket: Sid) -> Option<Turn<'_>> {
        self.used(socket);
        let mut welcomed = self.sockets().get(&socket)?.welcomed.subscribe();
        // A quick client answers its welcome while that is still being noted.
        welcomed.wait_for(|&welcomed| welcomed).await.ok()?;
        let mut sockets = self.sockets();
        let member = sockets.get_mut(&socket)?;
        if member.answering >= ANSWERING {
            return None;
        }
        member.answering += 1;
        Some(Turn(self, socket))
    }

    /// Ends a socket that does not keep up.
    pub(super) fn cut(&self, socket: SocketRef) {
        let meter = self.sockets().get(&socket.id).and_then(|member| Some(Arc::clone(&member.carrier.as_ref()?.meter)));
        tracing::debug!(socket = %socket.id, "a socket does not keep up and is closed");
        if let Some(meter) = meter {
            meter.cut();
        }
        // Its queue may be full; then its connection's end is its end.
        let _ = socket.disconnect();
    }

    /// Bytes that it was sent and has not taken.
    fn behind(&self, socket: Sid) -> u64 {
        let mut sockets = self.sockets();
        let Some(member) = sockets.get_mut(&socket) else { return 0 };
        let behind = member.sent.saturating_sub(member.taken());
        if behind == 0 {
            // What else goes over the connection must not count in advance.
            (member.sent, member.polled) = (0, 0);
            if let Some(carrier) = &mut member.carrier {
                carrier.before = carrier.meter.written();
            }
        }
        behind
    }

    /// Sends a large message to a session's room. Sockets that have not taken the one before are
    /// closed.
    ///
    /// # Errors
    /// [`Exhausted`] when there is no memory for it.
    pub(super) async fn send(
        self: &Arc<Self>,
        io: &SocketIo,
        session: &SessionId,
        event: &str,
        (data, bytes): (&impl Serialize, u64),
    ) -> Result<(), Exhausted> {
        let share = self.budget.take(COPIES * bytes).await?;
        let mut waiting = Vec::new();
        for member in io.to(session.to_string()).sockets() {
            if self.behind(member.id) > BEHIND {
                self.cut(member);
                continue;
            }
            if let Some(kept) = self.sockets().get_mut(&member.id) {
                kept.sent += bytes;
            }
            waiting.push(member);
        }
        if let Err(error) = io.to(session.to_string()).emit(event, data).await {
            tracing::debug!(%error, event, "some sockets were not told");
        }
        let members = Arc::clone(self);
        tokio::spawn(async move {
            let _share = share;
            let began = Instant::now();
            while !waiting.is_empty() {
                tokio::time::sleep(LOOK).await;
                waiting.retain(|socket| socket.connected() && members.behind(socket.id) > 0);
                if began.elapsed() > TAKEN_WITHIN {
                    waiting.drain(..).for_each(|socket| members.cut(socket));
                }
            }
        });
        Ok(())
    }
}

/// Whose request it is, by its extensions.
pub(super) fn client_of(extensions: &Extensions) -> IpAddr {
    extensions.get::<Client>().map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_client_cannot_take_the_places_of_all() {
        let members = Members::new(Budget::new(1 << 20));
        let [greedy, other] = ["203.0.113.1", "203.0.113.2"].map(|text| text.parse().unwrap());
        // Handshakes alone.
        assert_eq!((0..UNUSED).filter(|_| members.admits(greedy)).count(), UNUSED_OF_ONE);
        assert!(members.admits(other));
        // And sockets that were made of them.
        for _ in 0..UNUSED_OF_ONE {
            members.take_in(Sid::new(), greedy);
        }
        while members.admits(greedy) {
            members.take_in(Sid::new(), greedy);
        }
        assert_eq!(members.sockets().len(), SOCKETS_OF_ONE);
        assert!(members.admits(other));
    }

    #[test]
    fn a_connection_of_a_name_that_is_no_socket_is_not_kept_for_long() {
        let members = Members::new(Budget::new(1 << 20));
        let carrier = || Carrier { meter: Arc::default(), before: 0 };
        let real = Sid::new();
        for _ in 0..10 * EARLY {
            members.carry(Sid::new(), carrier());
        }
        members.carry(real, carrier());
        assert!(members.sockets().is_empty() && members.early().len() == EARLY);
        // One that enters after its connection has come has it.
        members.take_in(real, Ipv4Addr::LOCALHOST.into());
        assert!(members.sockets()[&real].carrier.is_some());
        assert_eq!(members.early().len(), EARLY - 1);
    }
}
