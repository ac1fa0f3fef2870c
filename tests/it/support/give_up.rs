//! Callers that give up.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Polls the future so many times, and drops it when it is not ready by then: at once, or when it could go on.
pub async fn give_up<T>(future: impl Future<Output = T>, polls: usize, at_once: bool) -> Option<T> {
    let (mut future, mut polled) = (pin!(future), 0);
    poll_fn(|cx| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(cx) {
            Poll::Pending if at_once && polled == polls => Poll::Ready(None),
            poll => poll.map(Some),
        }
    })
    .await
}
