//! What backends, workers and the launcher tell each other, in shared memory.
//!
//! A backend that commits a hold says when it is due. If that is earlier than what the worker of its database sleeps
//! for, the worker is woken; if the database has no worker, the launcher is. One that commits
//! any change of a level says that there is something to tell, and wakes the worker if it is the first to say so since
//! the worker looked. All of it is a hint: whatever is lost (a prepared transaction runs no callback of ours) is found by
//! the worker's regular look.

use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32};

use pg_stock_core::Micros;
use pg_stock_core::facts::NEVER;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init, pg_sys};

/// Databases that can be served at once; max_worker_processes is reached long before.
const SLOTS: usize = 128;
/// In place of a process: the database wants a worker.
const WANTED: i32 = 0;
/// In place of a process: the database is not to be served.
const NOT_SERVED: i32 = -1;
/// In place of a process: the extension was not there when a worker looked.
const NOTHING_HERE: i32 = -2;
/// In place of a process: the worker left because somebody wanted the database for himself.
const IN_THE_WAY: i32 = -3;

/// One database.
pub struct Slot {
    /// Its oid; 0: the slot is free.
    database: AtomicU32,
    /// Its worker's process, or what stands there in place of one.
    process: AtomicI32,
    /// Until when the worker sleeps.
    wake_at: AtomicI64,
    /// The earliest deadline that was committed since the worker last took it.
    earliest: AtomicI64,
    /// Levels were changed since the worker last looked.
    changed: AtomicBool,
}

/// All databases, and the process of the launcher.
pub struct Board {
    launcher: AtomicI32,
    slots: [Slot; SLOTS],
}

// SAFETY: atomics only.
unsafe impl PGRXSharedMemory for Board {}

impl Default for Board {
    fn default() -> Self {
        let slot = |_| Slot {
            database: AtomicU32::new(0),
            process: AtomicI32::new(WANTED),
            wake_at: AtomicI64::new(NEVER),
            earliest: AtomicI64::new(NEVER),
            changed: AtomicBool::new(false),
        };
        Board { launcher: AtomicI32::new(0), slots: std::array::from_fn(slot) }
    }
}

// SAFETY: no other shared memory has this name.
static BOARD: PgAtomic<Board> = unsafe { PgAtomic::new(c"pg_stock board") };
/// Set in the postmaster, inherited by every process: there is a board.
static PRELOADED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The earliest deadline of the holds that this transaction has opened.
    static OPENED: Cell<Micros> = const { Cell::new(NEVER) };
    /// This transaction has changed levels.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Asks for the shared memory, while the library is preloaded.
pub fn request() {
    pg_shmem_init!(BOARD);
    PRELOADED.store(true, SeqCst);
}

/// Watches the ends of transactions, once in each backend.
pub fn hook() {
    // SAFETY: the callback has the signature that PostgreSQL asks for, and lives as long as the library.
    unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
}

/// The board, if the library was preloaded.
fn board() -> Option<&'static Board> {
    PRELOADED.load(SeqCst).then(|| BOARD.get())
}

/// Notes that this transaction opened a hold; told to the worker when it has committed.
pub fn opened(deadline: Micros) {
    OPENED.set(OPENED.get().min(deadline));
}

/// Notes that this transaction changed levels; told to the worker when it has committed.
pub fn changed() {
    CHANGED.set(true);
}

/// True where this transaction has changed levels.
pub fn has_changed_levels() -> bool {
    CHANGED.get()
}

#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if !matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) {
        return;
    }
    let (deadline, changed) = (OPENED.replace(NEVER), CHANGED.replace(false));
    let anything = changed || deadline < NEVER;
    if anything
        && event == XACT_EVENT_COMMIT
        && let Some(board) = board()
    {
        // SAFETY: set when the backend connected.
        board.tell(unsafe { pg_sys::MyDatabaseId }.to_u32(), deadline, changed);
    }
}

impl Slot {
    /// True where a worker would find something to do.
    fn is_waiting(&self) -> bool {
        self.earliest.load(SeqCst) < NEVER || self.changed.load(SeqCst)
    }
}

impl Board {
    fn slot(&self, database: u32) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.database.load(SeqCst) == database)
    }

    /// The slot of a database, made if there is none; `None` if all are taken.
    fn slot_or_new(&self, database: u32) -> Option<&Slot> {
        let take = |slot: &&Slot| match slot.database.compare_exchange(0, database, SeqCst, SeqCst) {
            Ok(_) => true,
            // Somebody else was faster, with the same database perhaps.
            Err(found) => found == database,
        };
        self.slot(database).or_else(|| self.slots.iter().find(take))
    }

    fn tell(&self, database: u32, deadline: Micros, changed: bool) {
        let known = self.slot(database);
        let Some(slot) = known.or_else(|| self.slot_or_new(database)) else { return };
        // First what is told, then whom to wake: the worker stores its time first, then looks at what was told.
        slot.earliest.fetch_min(deadline, SeqCst);
        let first = changed && !slot.changed.load(SeqCst) && !slot.changed.swap(true, SeqCst);
        let anew = |from| slot.process.compare_exchange(from, WANTED, SeqCst, SeqCst).is_ok();
        match slot.process.load(SeqCst) {
            // The change proves that the extension is here now.
            NOTHING_HERE if anew(NOTHING_HERE) => wake(self.launcher.load(SeqCst)),
            WANTED if known.is_none() => wake(self.launcher.load(SeqCst)),
            worker if first || deadline < slot.wake_at.load(SeqCst) => wake(worker),
            _ => {}
        }
    }
}

/// Sets the latch of a process, if it is still there.
fn wake(process: i32) {
    // SAFETY: the result is a process of this cluster or null; a latch may be set at any time.
    unsafe {
        if process > 0
            && let Some(backend) = pg_sys::BackendPidGetProc(process).as_mut()
        {
            pg_sys::SetLatch(&mut backend.procLatch);
        }
    }
}

/// True if there is such a process in this cluster.
fn is_alive(process: i32) -> bool {
    // SAFETY: asks for a process of this cluster.
    process > 0 && unsafe { !pg_sys::BackendPidGetProc(process).is_null() }
}

/// The worker's side of its slot.
#[derive(Clone, Copy)]
pub struct Post(&'static Slot);

/// Takes the slot of a database for a worker; `None` if all are taken, or another worker serves the database.
pub fn begin_work(database: u32, process: i32) -> Option<Post> {
    let slot = board()?.slot_or_new(database)?;
    let before = slot.process.load(SeqCst);
    let taken = !is_alive(before) && slot.process.compare_exchange(before, process, SeqCst, SeqCst).is_ok();
    taken.then_some(Post(slot))
}

/// True where a database has a worker, whichever launcher started it.
pub fn is_served(database: u32) -> bool {
    board().and_then(|board| board.slot(database)).is_some_and(|slot| is_alive(slot.process.load(SeqCst)))
}

/// The slot of a database that has one.
pub fn post(database: u32) -> Option<Post> {
    board()?.slot(database).map(Post)
}

impl Post {
    /// The earliest deadline that was committed since this was called last; [`NEVER`] if there was none.
    pub fn take_earliest(self) -> Micros {
        self.0.earliest.swap(NEVER, SeqCst)
    }

    /// Takes the mark that levels were changed.
    pub fn take_changed(self) {
        self.0.changed.store(false, SeqCst);
    }

    /// True if levels were changed since the mark was taken.
    pub fn has_changed(self) -> bool {
        self.0.changed.load(SeqCst)
    }

    /// Says until when the worker sleeps; gives the time to which it must shorten that.
    pub fn sleep_until(self, time: Micros) -> Micros {
        let time = time.min(self.0.earliest.load(SeqCst));
        self.0.wake_at.store(time, SeqCst);
        time.min(self.0.earliest.load(SeqCst))
    }

    /// The worker ends because the extension is not here.
    pub fn leave_nothing_here(self) {
        self.0.process.store(NOTHING_HERE, SeqCst);
    }

    /// The worker ends because somebody wants the database for himself.
    pub fn leave_the_way(self) {
        self.0.process.store(IN_THE_WAY, SeqCst);
    }

    /// The worker ends, whatever the cause: unless it said why, the database wants another.
    pub fn end_work(self, process: i32) {
        self.0.process.compare_exchange(process, WANTED, SeqCst, SeqCst).ok();
        // The launcher that started this worker may not be the one that runs now.
        if let Some(board) = board() {
            wake(board.launcher.load(SeqCst));
        }
    }
}

/// Makes this process the one that is woken where a database wants a worker.
pub fn begin_launching(process: i32) {
    if let Some(board) = board() {
        board.launcher.store(process, SeqCst);
    }
}

/// True where a backend has committed something and nobody serves its database yet.
pub fn is_wanted(database: u32) -> bool {
    board()
        .and_then(|board| board.slot(database))
        .is_some_and(|slot| slot.process.load(SeqCst) == WANTED && slot.is_waiting())
}

/// Keeps the slots of these databases, frees those of databases that are gone, and leaves those alone that are not
/// to be served.
pub fn tidy(exists: impl Fn(u32) -> bool, is_served: impl Fn(u32) -> bool) {
    let slots = board().map(|board| board.slots.as_slice()).unwrap_or_default();
    for slot in slots {
        let (database, process) = (slot.database.load(SeqCst), slot.process.load(SeqCst));
        if database == 0 || process > 0 {
            continue;
        }
        if !exists(database) {
            slot.earliest.store(NEVER, SeqCst);
            slot.changed.store(false, SeqCst);
            slot.process.store(WANTED, SeqCst);
            slot.database.store(0, SeqCst);
        } else if !is_served(database) {
            slot.process.store(NOT_SERVED, SeqCst);
        }
    }
}

/// Why the worker of a database ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The extension is not in the database.
    NothingHere,
    /// Somebody wants the database for himself.
    InTheWay,
    /// It failed, or was terminated.
    Failed,
}

/// Why the worker of a database ended.
pub fn end(database: u32) -> End {
    match board().and_then(|board| board.slot(database)).map(|slot| slot.process.load(SeqCst)) {
        Some(NOTHING_HERE) => End::NothingHere,
        Some(IN_THE_WAY) => End::InTheWay,
        _ => End::Failed,
    }
}
