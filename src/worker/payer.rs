//! The worker, after a sweep: pays those who wait for what is there, where a call could not pay all
//! of them. Each level in a transaction of its own, so that what fails stops neither expiry nor
//! another queue.

use pg_stock_core::Micros;
use pg_stock_core::limits::SECOND;

use super::process::{self, text_of};
use crate::board::Post;
use crate::error::or_raise;
use crate::stat::{self, WorkerCount};
use crate::{settings, store};

/// Pause before a level is tried again that somebody kept locked.
const BUSY_PAUSE: Micros = SECOND / 4;
/// Pause before a queue is tried again that could not be paid.
const TROUBLE_PAUSE: Micros = 60 * SECOND;

pub struct Payer {
    post: Post,
    /// When there is something to pay, or to look for.
    due: Micros,
}

impl Payer {
    /// One that begins with a look at every queue.
    pub fn new(post: Post) -> Self {
        Payer { post, due: store::now() }
    }

    /// Hears that somebody was left unpaid.
    pub fn listen(&mut self) {
        if self.post.take_unpaid() {
            self.due = store::now();
        }
    }

    /// Pays at one level, if somebody waits for what is there; says when its turn comes again.
    pub fn turn(&mut self) -> Micros {
        self.listen();
        let now = store::now();
        // Due, or the clock was stepped back.
        if self.due <= now || self.due > now.saturating_add(look_interval()) {
            self.due = store::now().saturating_add(pay());
        }
        self.due
    }
}

/// How often every queue is looked at without being told: what was restored, or prepared and then
/// committed, tells nobody.
fn look_interval() -> Micros {
    settings::poll_interval().max(TROUBLE_PAUSE)
}

/// Pays; says after which pause to go on.
fn pay() -> Micros {
    let work = || process::active(c"pg_stock: paying those who wait", || or_raise(store::pay()));
    let paid = process::attempt(work);
    process::idle();
    if let Ok(paid) = &paid {
        stat::worked(WorkerCount::LinesPaid, paid.lines.unsigned_abs());
    }
    match paid {
        Ok(paid) if paid.more && paid.lines > 0 => 0,
        Ok(paid) if paid.failed => TROUBLE_PAUSE,
        Ok(paid) if paid.more => BUSY_PAUSE,
        Ok(_) => look_interval(),
        Err(failure) => {
            let next = "It is tried again in a minute; nothing is lost.";
            process::complain("pay those who wait", &text_of(failure), next);
            TROUBLE_PAUSE
        }
    }
}
