//! What a connection still has to send, as the body of its HTTP/2 request.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::connection::Connection;

/// Requests on their way to the transport. Bounded by the connection's limit of bytes in flight, which each request holds a part of.
#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Outgoing>,
    taken_whole: u64,
    ended: bool,
    waker: Option<Waker>,
}

struct Outgoing {
    head: Option<Bytes>,
    rows: Bytes,
}

impl Outbox {
    /// Queues a request; they leave in this order.
    pub(super) fn push(&mut self, head: Bytes, rows: Bytes) {
        self.queue.push_back(Outgoing { head: Some(head), rows });
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(first) = self.queue.front_mut() else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
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
        self.0.with_outbox(|outbox| outbox.poll(cx)).map(|data| data.map(|bytes| Ok(Frame::data(bytes))))
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
        outbox.push(Bytes::from_static(b"h1"), Bytes::from_static(b"r1"));
        outbox.push(Bytes::from_static(b"h2"), Bytes::new());
        outbox.push(Bytes::from_static(b"h3"), Bytes::from_static(b"r3"));
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
}
