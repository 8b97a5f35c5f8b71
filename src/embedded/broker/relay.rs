//! The way of requests and answers between a client and one mock broker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::faults::{FaultDice, Strike};
use super::frame::{JOIN, PortRewrites, RequestHead, correlation_of_answer, read_frame, refused_join, session_of_join};
use super::sessions::{self, HEARTBEAT, Sessions};

/// What all connections work with.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) rewrites: Arc<PortRewrites>,
    pub(super) dice: Arc<FaultDice>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) sessions: Option<Arc<Sessions>>,
}

/// What is to be done with the answer to a request.
enum OnAnswer {
    Rewrite,
    Pace,
    Delay(Duration),
    Cut,
}

/// JoinGroup, SyncGroup: answered when the whole group has joined, when its leader has assigned.
const JOINS: [i16; 2] = [JOIN, 14];

/// Requests of one connection that are not answered yet, as far as they matter. At most as many as a client has in flight.
#[derive(Default)]
struct Pending {
    on_answer: HashMap<i32, OnAnswer>,
    /// While a join waits the connection is never cut: the mock cluster does not notice, and its assertion ends the whole process when the
    /// member joins again.
    joins: HashMap<i32, Option<WaitingJoin>>,
    /// It carried heartbeats of a member of a group of the new protocol.
    member: bool,
    /// While a heartbeat waits for its answer, and until that has surely reached the client, the connection is not cut either: the mock
    /// cluster does not repeat in a later answer what it has said in a lost one.
    heartbeats: HashSet<i32>,
    heard_at: Option<Instant>,
}

/// A JoinGroup that waits for its answer.
///
/// The mock cluster elects a leader a second before the sessions of those who wait for it are over. Where it stood still for that second it
/// may throw a waiting member out first, without an answer, and librdkafka waits for that for minutes.
#[derive(Clone, Copy)]
struct WaitingJoin {
    version: i16,
    /// How often it is looked at until it is taken for lost. Looks, not time: after a standstill the mock cluster gets its turn first.
    looks_left: u32,
}

/// Between two looks at joins.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Beyond the session, in which the mock cluster surely looks at its members, once a second.
const SESSION_SURELY_OVER: Duration = Duration::from_secs(3);

/// How long an answer may take to the client.
const ANSWER_ARRIVES: Duration = Duration::from_millis(50);

impl Pending {
    fn may_cut(&self, now: Instant) -> bool {
        let arrived = self.heard_at.is_none_or(|at| now.duration_since(at) >= ANSWER_ARRIVES);
        self.joins.is_empty() && self.heartbeats.is_empty() && arrived
    }
}

/// Takes connections until aborted; they end with it.
pub(super) async fn serve(listener: TcpListener, mock_port: u16, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(connection(client, mock_port, shared.clone()));
                }
                // Out of file descriptors, for instance: others must go first.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, mock_port: u16, shared: Shared) {
    // A broker that is down refuses; the client sees its connection closed.
    let Ok(mock) = TcpStream::connect(("127.0.0.1", mock_port)).await else { return };
    let _ = client.set_nodelay(true);
    let _ = mock.set_nodelay(true);
    let (from_client, mut to_client) = client.into_split();
    let (mut from_mock, mut to_mock) = mock.into_split();
    let pending = Mutex::<Pending>::default();
    // The first direction that ends, for whatever reason, ends both: that is what a broken connection is.
    tokio::select! {
        _ = requests(from_client, &mut to_mock, mock_port, &pending, &shared) => {}
        _ = answers(&mut from_mock, &mut to_client, &pending, &shared) => {}
        (correlation, version) = a_lost_join(&pending) => {
            let _ = to_client.write_all(&refused_join(correlation, version)).await;
        }
    }
    // The mock cluster forgets what a member owns when its connection closes, and gives it to others while the member works on. For a
    // broker a connection means nothing, a session does: so long the mock cluster does not hear of the end.
    if let Some(sessions) = shared.sessions.filter(|_| pending.into_inner().member) {
        tokio::time::sleep(sessions.linger()).await;
    }
}

/// Waits until a join has surely lost its answer: the correlation and the version of the request. The client is told what a broker would
/// tell, that it is no member any more, and then cut off: the mock cluster reads nothing more from this connection.
async fn a_lost_join(pending: &Mutex<Pending>) -> (i32, i16) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut pending = pending.lock();
        for (correlation, join) in &mut pending.joins {
            let Some(join) = join else { continue };
            join.looks_left = join.looks_left.saturating_sub(1);
            if join.looks_left == 0 {
                return (*correlation, join.version);
            }
        }
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mock_port: u16,
    pending: &Mutex<Pending>,
    shared: &Shared,
) -> std::io::Result<()> {
    let Shared { dice, cluster, sessions, .. } = shared;
    let mut frame = Vec::new();
    while read_frame(&mut from, &mut frame).await? {
        let Some(head) = RequestHead::of(&frame) else { return Ok(()) };
        let mut anew = None;
        let may_cut = {
            let mut pending = pending.lock();
            if head.answer_names_brokers() {
                pending.on_answer.insert(head.correlation, OnAnswer::Rewrite);
            }
            if let Some(sessions) = sessions.as_ref().filter(|_| head.api == HEARTBEAT) {
                anew = sessions.heard(&frame, mock_port, Instant::now());
                pending.on_answer.insert(head.correlation, OnAnswer::Pace);
                pending.heartbeats.insert(head.correlation);
                pending.member = true;
            }
            if JOINS.contains(&head.api) {
                let looks = |session: Duration| u32::try_from((session + SESSION_SURELY_OVER).as_millis() / LOOK_EVERY.as_millis()).ok();
                let join = session_of_join(&frame).and_then(looks).map(|looks_left| WaitingJoin { version: head.version, looks_left });
                pending.joins.insert(head.correlation, join);
            }
            pending.may_cut(Instant::now())
        };
        if let Some(member) = anew {
            sessions::leave(&member, mock_port).await?;
        }
        match dice.draw(head.api, may_cut) {
            // Pushed before the request goes on, so that this request (or one of its kind that overtakes it) takes it.
            Some(Strike::Refuse(api, error)) => cluster.request_errors(api, vec![error]).await.map_err(std::io::Error::other)?,
            Some(Strike::CutBefore) => return Ok(()),
            Some(Strike::CutAfter) => {
                pending.lock().on_answer.insert(head.correlation, OnAnswer::Cut);
            }
            Some(Strike::Delay(time)) => {
                pending.lock().on_answer.insert(head.correlation, OnAnswer::Delay(time));
            }
            None => {}
        }
        to.write_all(&frame).await?;
    }
    Ok(())
}

async fn answers(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, pending: &Mutex<Pending>, shared: &Shared) -> std::io::Result<()> {
    let Shared { rewrites, dice, sessions, .. } = shared;
    let mut frame = Vec::new();
    while read_frame(from, &mut frame).await? {
        let (what, may_cut) = {
            let mut pending = pending.lock();
            let what = correlation_of_answer(&frame).and_then(|id| {
                pending.joins.remove(&id);
                if pending.heartbeats.remove(&id) {
                    pending.heard_at = Some(Instant::now());
                }
                pending.on_answer.remove(&id)
            });
            (what, pending.may_cut(Instant::now()))
        };
        match what {
            Some(OnAnswer::Rewrite) => rewrites.apply(&mut frame),
            Some(OnAnswer::Pace) => sessions.iter().for_each(|sessions| sessions.pace(&mut frame)),
            Some(OnAnswer::Delay(time)) => tokio::time::sleep(time).await,
            Some(OnAnswer::Cut) if may_cut => return Ok(()),
            Some(OnAnswer::Cut) => dice.spared_commit_answer(),
            None => {}
        }
        to.write_all(&frame).await?;
    }
    Ok(())
}
