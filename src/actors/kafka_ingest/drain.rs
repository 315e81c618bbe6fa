//! The end of a service that goes in good order: read no more, let what is in flight settle, commit, leave.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::{Handler, Message, ResponseFuture};

use super::KafkaIngest;

/// How long a drain waits for reports after the last batch is through, before it commits what there is.
const LAST_REPORTS: Duration = Duration::from_millis(500);
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// Stop reading, wait until what is in flight is settled, commit, leave.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Drained")]
pub struct Drain {
    /// When to give up.
    pub deadline: Instant,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::MessageResponse)]
pub struct Drained {
    /// Nothing is in flight.
    pub empty: bool,
    /// All that was settled is committed.
    pub committed: bool,
}

impl Handler<Drain> for KafkaIngest {
    type Result = ResponseFuture<Drained>;

    fn handle(&mut self, Drain { deadline }: Drain, _: &mut Self::Context) -> Self::Result {
        self.drain.stop();
        let (drained, credit, duties) = (self.drained.clone(), self.parts.credit.clone(), Arc::clone(&self.duties));
        let undecided = Arc::clone(&self.parts.letters_undecided);
        let (finish, member_end) = (self.finish.take(), Arc::clone(&self.member_end));
        Box::pin(async move {
            let empty = until(deadline, || drained.is_stopped() && credit.used() == 0).await;
            until(deadline, || undecided() == 0).await;
            let reports = deadline.min(Instant::now() + LAST_REPORTS);
            until(reports, || duties.all_settled()).await;
            let end = || *member_end.lock().unwrap_or_else(PoisonError::into_inner);
            // The time to commit is short when the pipeline has used it up, but there is some.
            let last = deadline.max(Instant::now() + LAST_REPORTS);
            let asked = finish.is_some_and(|finish| finish.try_send(last).is_ok());
            let committed = asked && until(last, || end().is_some()).await && end() == Some(true);
            Drained { empty, committed }
        })
    }
}

/// Waits for a condition; true when it came to be before the deadline.
async fn until(deadline: Instant, condition: impl Fn() -> bool) -> bool {
    while !condition() {
        if Instant::now() >= deadline {
            return condition();
        }
        tokio::time::sleep(DRAIN_STEP).await;
    }
    true
}
