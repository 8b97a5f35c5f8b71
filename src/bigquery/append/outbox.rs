//! What a connection still has to send, as the body of its HTTP/2 request.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::connection::Connection;
use crate::bigquery::Gate;

/// Requests on their way to the transport. Bounded by the connection's limit of bytes in flight, which each request holds a part of.
#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Outgoing>,
    taken_whole: u64,
    ended: bool,
    withheld: bool,
    waker: Option<Waker>,
}

struct Outgoing {
    head: Option<Bytes>,
    rows: Bytes,
    gate: Option<Arc<dyn Gate>>,
}

impl Outbox {
    /// Queues a request; they leave in this order. Where its gate is closed when its turn comes, the body ends before it: requests behind
    /// it may rely on the schema that it carries.
    pub(super) fn push(&mut self, head: Bytes, rows: Bytes, gate: Option<Arc<dyn Gate>>) {
        self.queue.push_back(Outgoing { head: Some(head), rows, gate });
        self.wake();
    }

    /// No further request comes, and what was not taken never leaves: the request's body ends here.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.queue.clear();
        self.wake();
    }

    /// How many requests the transport has taken to their last byte. One that it took in part cannot be read by the server.
    pub(super) fn taken_whole(&self) -> u64 {
        self.taken_whole
    }

    /// Whether the body ended before a request whose gate was closed.
    pub(super) fn is_withheld(&self) -> bool {
        self.withheld
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(first) = self.queue.front_mut() else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if first.head.is_some() && first.gate.as_ref().is_some_and(|gate| !gate.is_open()) {
            self.withheld = true;
            self.ended = true;
            self.queue.clear();
            return Poll::Ready(None);
        }
        if let Some(head) = first.head.take() {
            if first.rows.is_empty() {
                self.queue.pop_front();
                self.taken_whole += 1;
            }
            return Poll::Ready(Some(head));
        }
        let rows = std::mem::take(&mut first.rows);
        self.queue.pop_front();
        self.taken_whole += 1;
        Poll::Ready(Some(rows))
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The body of a connection's AppendRows request: gRPC messages without a codec, so that rows are not copied.
pub(super) struct OutboxBody(pub(super) Arc<Connection>);

impl Body for OutboxBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_outbox(|outbox| outbox.poll(cx)).map(|data| data.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_when_its_last_byte_is_taken() {
        let mut outbox = Outbox::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(outbox.poll(&mut cx).is_pending());
        outbox.push(Bytes::from_static(b"h1"), Bytes::from_static(b"r1"), None);
        outbox.push(Bytes::from_static(b"h2"), Bytes::new(), None);
        outbox.push(Bytes::from_static(b"h3"), Bytes::from_static(b"r3"), None);
        let mut taken = Vec::new();
        for whole in [0, 1, 2, 2] {
            if let Poll::Ready(Some(bytes)) = outbox.poll(&mut cx) {
                taken.push(bytes);
            }
            assert_eq!(outbox.taken_whole(), whole);
        }
        assert_eq!(taken, ["h1", "r1", "h2", "h3"]);
        outbox.end();
        assert_eq!(outbox.poll(&mut cx), Poll::Ready(None));
        assert_eq!(outbox.taken_whole(), 2);
    }

    #[derive(Debug)]
    struct Switch(std::sync::atomic::AtomicBool);

    impl Gate for Switch {
        fn is_open(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }

    /// What waited for room in the transport is asked again when its turn comes: a request in part goes on, the next one does not begin.
    #[test]
    fn a_request_whose_gate_closed_while_it_waited_does_not_leave() {
        let gate = Arc::new(Switch(true.into()));
        let mut outbox = Outbox::default();
        let mut cx = Context::from_waker(Waker::noop());
        for (head, rows) in [("h1", "r1"), ("h2", "r2"), ("h3", "r3")] {
            outbox.push(Bytes::from(head), Bytes::from(rows), Some(gate.clone()));
        }
        assert_eq!(outbox.poll(&mut cx), Poll::Ready(Some(Bytes::from("h1"))));
        gate.0.store(false, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(outbox.poll(&mut cx), Poll::Ready(Some(Bytes::from("r1"))), "half a request cannot be read");
        assert_eq!(outbox.poll(&mut cx), Poll::Ready(None));
        gate.0.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(outbox.poll(&mut cx), Poll::Ready(None), "the body has ended");
        assert!(outbox.is_withheld() && outbox.taken_whole() == 1);
    }
}
