//! The worker, after a sweep: books the lots that are past their time.

use pg_stock_core::Micros;
use pg_stock_core::limits::SECOND;

use super::process::{self, text_of};
use crate::error::or_raise;
use crate::stat::{self, WorkerCount};
use crate::{settings, store};

/// At how many levels lots are booked in one transaction.
const LEVELS_MAX: usize = 1_000;
/// Pause before levels are tried again that somebody has locked.
const BUSY_PAUSE: Micros = SECOND / 4;
/// Pause before lots are tried again that could not be booked.
const TROUBLE_PAUSE: Micros = 60 * SECOND;

pub struct Spoiler {
    /// When to look again.
    due: Micros,
}

impl Spoiler {
    /// One that begins with a look.
    pub fn new() -> Self {
        Spoiler { due: store::now() }
    }

    /// Books what is past its time; says when its turn comes again.
    pub fn turn(&mut self) -> Micros {
        let now = store::now();
        // Due, or the clock was stepped back.
        if self.due <= now || self.due > now.saturating_add(look_interval()) {
            self.due = store::now().saturating_add(book());
        }
        self.due
    }
}

/// How often it is looked: a lot past its time is promised to nobody anyway.
fn look_interval() -> Micros {
    settings::poll_interval().max(TROUBLE_PAUSE)
}

/// Books; says after which pause to go on.
fn book() -> Micros {
    let work = || process::active(c"pg_stock: booking lots", || or_raise(store::spoil(LEVELS_MAX)));
    let spoiled = process::attempt(work);
    process::idle();
    if let Ok(spoiled) = &spoiled {
        stat::worked(WorkerCount::LotLevels, spoiled.levels.unsigned_abs());
    }
    match spoiled {
        Ok(spoiled) if spoiled.more && spoiled.levels > 0 => 0,
        Ok(spoiled) if spoiled.failed > 0 => TROUBLE_PAUSE,
        Ok(spoiled) if spoiled.more => BUSY_PAUSE,
        Ok(_) => look_interval(),
        Err(failure) => {
            let next = "It is tried again in a minute; nothing is lost.";
            process::complain("book lots", &text_of(failure), next);
            TROUBLE_PAUSE
        }
    }
}
