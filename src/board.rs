//! What backends, workers and the launcher tell each other, in shared memory.
//!
//! A backend that commits a hold says when it is due. If that is earlier than what the worker of
//! its database sleeps for, the worker is woken; if the database has no worker, the launcher is.
//! One that commits any change of a level says that there is something to tell, and wakes the
//! worker if it is the first to say so since the worker looked. All of it is a hint: whatever is
//! lost (a prepared transaction runs no callback of ours) is found by the worker's regular look.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32};

use pg_stock_core::Micros;
use pg_stock_core::facts::NEVER;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::settings;
use crate::shared::{Piece, SharedText, find_or_take};

/// In place of a process: the database wants a worker.
const WANTED: i32 = 0;
/// In place of a process: the database is not to be served.
const NOT_SERVED: i32 = -1;
/// In place of a process: the extension was not there when a worker looked.
const NOTHING_HERE: i32 = -2;
/// In place of a process: the worker left because somebody wanted the database for himself.
const IN_THE_WAY: i32 = -3;
/// As the end of a probe: there is no slot left.
const NO_ROOM: i32 = -4;
/// Bytes of an error's text that are kept.
const ERROR_BYTES: usize = 500;

/// One database.
struct Slot {
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
    /// Somebody waits for what is there; since the worker last looked.
    unpaid: AtomicBool,
    /// What keeps the worker from its work, if something does.
    pause: AtomicI32,
    trouble: Trouble,
}

/// What went wrong, and since when. Who reads while somebody writes may see a mixture.
struct Trouble {
    /// When it failed first since it last succeeded; [`NEVER`]: it did not.
    since: AtomicI64,
    /// How often it failed since.
    failures: AtomicI32,
    text: SharedText<ERROR_BYTES>,
}

/// The process of the launcher, and what its last probe found. The slots of the databases follow.
struct Board {
    launcher: AtomicI32,
    probed: AtomicU32,
    found: AtomicI32,
    /// How many slots there are.
    room: usize,
}

/// Where the board is, in every process.
static BOARD: AtomicPtr<Board> = AtomicPtr::new(null_mut());

thread_local! {
    /// The earliest deadline of the holds that this transaction has opened.
    static OPENED: Cell<Micros> = const { Cell::new(NEVER) };
    /// This transaction has changed levels.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// This transaction left somebody unpaid who waits for what is there.
    static UNPAID: Cell<bool> = const { Cell::new(false) };
}

/// Where it is kept.
pub static PIECE: Piece = Piece { name: c"pg_stock board", size, set_up };

fn size() -> usize {
    size_of::<Board>() + settings::max_databases() * size_of::<Slot>()
}

unsafe fn set_up(place: *mut u8) {
    let board: *mut Board = place.cast();
    let room = settings::max_databases();
    // SAFETY: there is room for the board and so many slots.
    unsafe {
        board.write(Board {
            launcher: AtomicI32::new(0),
            probed: AtomicU32::new(0),
            found: AtomicI32::new(WANTED),
            room,
        });
        let slots = board.add(1).cast::<Slot>();
        (0..room).for_each(|place| slots.add(place).write(Slot::default()));
    }
    BOARD.store(board, SeqCst);
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            database: AtomicU32::new(0),
            process: AtomicI32::new(WANTED),
            wake_at: AtomicI64::new(NEVER),
            earliest: AtomicI64::new(NEVER),
            changed: AtomicBool::new(false),
            unpaid: AtomicBool::new(false),
            pause: AtomicI32::new(0),
            trouble: Trouble {
                since: AtomicI64::new(NEVER),
                failures: AtomicI32::new(0),
                text: SharedText::new(),
            },
        }
    }
}

/// Watches the ends of transactions, once in each backend.
pub fn hook() {
    // SAFETY: the callback has the signature that PostgreSQL asks for, and lives as long as the
    // library.
    unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
}

/// The board, if the library was preloaded.
fn board() -> Option<&'static Board> {
    // SAFETY: null, or shared memory that stays as long as the process does, and holds atomics
    // only.
    unsafe { BOARD.load(SeqCst).as_ref() }
}

/// Notes that this transaction opened a hold; told to the worker when it has committed.
pub fn opened(deadline: Micros) {
    OPENED.set(OPENED.get().min(deadline));
}

/// Notes that this transaction left somebody unpaid who waits for what is there; told to the worker
/// when it has committed.
pub fn left_unpaid() {
    UNPAID.set(true);
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
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if !matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) {
        return;
    }
    let (deadline, changed) = (OPENED.replace(NEVER), CHANGED.replace(false));
    let unpaid = UNPAID.replace(false);
    let anything = changed || deadline < NEVER;
    if anything
        && event == XACT_EVENT_COMMIT
        && let Some(board) = board()
    {
        // SAFETY: set when the backend connected.
        let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
        board.tell(database, deadline, changed);
        if unpaid {
            board.tell_of_unpaid(database);
        }
    }
}

impl Slot {
    /// Gives the slot back.
    fn free(&self) {
        self.earliest.store(NEVER, SeqCst);
        self.changed.store(false, SeqCst);
        self.unpaid.store(false, SeqCst);
        self.pause.store(0, SeqCst);
        self.trouble.end();
        self.process.store(WANTED, SeqCst);
        self.database.store(0, SeqCst);
    }

    /// Gives the slot back, unless a backend has said meanwhile that the extension is there.
    fn free_if_nothing_is_here(&self) {
        if self.process.compare_exchange(NOTHING_HERE, NOT_SERVED, SeqCst, SeqCst).is_ok() {
            self.free();
        }
    }

    /// True where a worker would find something to do.
    fn is_waiting(&self) -> bool {
        self.earliest.load(SeqCst) < NEVER || self.changed.load(SeqCst)
    }
}

impl Trouble {
    /// Notes what went wrong just now.
    fn begin(&self, error: &str, now: Micros) {
        self.text.set_text(error);
        self.failures.fetch_add(1, SeqCst);
        self.since.fetch_min(now, SeqCst);
    }

    fn end(&self) {
        self.since.store(NEVER, SeqCst);
        self.failures.store(0, SeqCst);
        self.text.set_text("");
    }
}

impl Board {
    fn slots(&self) -> &[Slot] {
        // SAFETY: the slots follow the board.
        unsafe { std::slice::from_raw_parts((&raw const *self).add(1).cast(), self.room) }
    }

    fn slot(&self, database: u32) -> Option<&Slot> {
        self.slots().iter().find(|slot| slot.database.load(SeqCst) == database)
    }

    /// The slot of a database, made if there is none; `None` if all are taken.
    fn slot_or_new(&self, database: u32) -> Option<&Slot> {
        find_or_take(self.slots(), |slot| &slot.database, database).map(|(slot, _)| slot)
    }

    fn tell(&self, database: u32, deadline: Micros, changed: bool) {
        let known = self.slot(database);
        let Some(slot) = known.or_else(|| self.slot_or_new(database)) else { return };
        // First what is told, then whom to wake: the worker stores its time first, then looks at
        // what was told.
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

    /// Has the worker of a database pay; what is told besides has made it a slot.
    fn tell_of_unpaid(&self, database: u32) {
        if let Some(slot) = self.slot(database) {
            slot.unpaid.store(true, SeqCst);
            wake(slot.process.load(SeqCst));
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

/// Takes the slot of a database for a worker; `None` if another worker serves it, or no slot is
/// left.
pub fn begin_work(database: u32, process: i32) -> Option<Post> {
    let board = board()?;
    let Some(slot) = board.slot_or_new(database) else {
        report(database, NO_ROOM);
        return None;
    };
    let before = slot.process.load(SeqCst);
    let taken =
        !is_alive(before) && slot.process.compare_exchange(before, process, SeqCst, SeqCst).is_ok();
    // The launcher learns that its probe has become a worker.
    wake(board.launcher.load(SeqCst));
    taken.then_some(Post(slot))
}

/// The process that looked whether the extension is in a database found that it is not.
pub fn report_nothing_here(database: u32) {
    report(database, NOTHING_HERE);
}

/// The process that looked whether the extension is in a database was in somebody's way.
pub fn report_in_the_way(database: u32) {
    report(database, IN_THE_WAY);
}

fn report(database: u32, end: i32) {
    let Some(board) = board() else { return };
    board.found.store(end, SeqCst);
    board.probed.store(database, SeqCst);
    // A slot that a worker or a change has left behind says the same.
    if let Some(slot) = board.slot(database) {
        let before = slot.process.load(SeqCst);
        if !is_alive(before) {
            slot.process.compare_exchange(before, end, SeqCst, SeqCst).ok();
        }
    }
}

/// True where a database has a worker, whichever launcher started it.
pub fn is_served(database: u32) -> bool {
    board()
        .and_then(|board| board.slot(database))
        .is_some_and(|slot| is_alive(slot.process.load(SeqCst)))
}

/// The slot of a database that has one.
pub fn post(database: u32) -> Option<Post> {
    board()?.slot(database).map(Post)
}

impl Post {
    /// The earliest deadline that was committed since this was called last; [`NEVER`] if there was
    /// none.
    pub fn take_earliest(self) -> Micros {
        self.0.earliest.swap(NEVER, SeqCst)
    }

    /// Whether somebody waits for what is there, since the mark was taken.
    pub fn is_unpaid(self) -> bool {
        self.0.unpaid.load(SeqCst)
    }

    /// Takes that mark.
    pub fn take_unpaid(self) -> bool {
        self.0.unpaid.swap(false, SeqCst)
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

    /// Notes what went wrong.
    pub fn note_trouble(self, error: &str, now: Micros) {
        self.0.trouble.begin(error, now);
    }

    /// Notes that nothing is wrong any more, whoever has noted that something was.
    pub fn end_trouble(self) {
        if self.0.trouble.since.load(SeqCst) < NEVER {
            self.0.trouble.end();
        }
    }

    /// Notes what keeps the worker from its work.
    pub fn pause(self, pause: Pause) {
        self.0.pause.store(pause as i32, SeqCst);
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

/// Keeps the slots of these databases, frees those of databases that are gone, and leaves those
/// alone that are not to be served.
pub fn tidy(exists: impl Fn(u32) -> bool, is_served: impl Fn(u32) -> bool) {
    for slot in board().map(Board::slots).unwrap_or_default() {
        let (database, process) = (slot.database.load(SeqCst), slot.process.load(SeqCst));
        if database == 0 || process > 0 {
            continue;
        }
        if !exists(database) {
            slot.free();
        } else if !is_served(database) {
            slot.process.store(NOT_SERVED, SeqCst);
        }
    }
}

/// Why the worker of a database, or the process that looked for the extension there, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The extension is not in the database.
    NothingHere,
    /// Somebody wants the database for himself.
    InTheWay,
    /// All slots are taken.
    NoRoom,
    /// It failed, or was terminated.
    Failed,
}

/// Why it ended. The slot of a database in which the extension is not is given back.
pub fn end(database: u32) -> End {
    let Some(board) = board() else { return End::Failed };
    let slot = board.slot(database);
    let probed = || (board.probed.load(SeqCst) == database).then(|| board.found.load(SeqCst));
    let found = slot.map(|slot| slot.process.load(SeqCst)).or_else(probed);
    board.probed.compare_exchange(database, 0, SeqCst, SeqCst).ok();
    match found {
        Some(NOTHING_HERE) => {
            slot.inspect(|slot| slot.free_if_nothing_is_here());
            End::NothingHere
        }
        Some(IN_THE_WAY) => End::InTheWay,
        Some(NO_ROOM) => End::NoRoom,
        _ => End::Failed,
    }
}

/// Notes why a database has no worker.
pub fn note_trouble(database: u32, error: &str, now: Micros) {
    if let Some(slot) = board().and_then(|board| board.slot(database)) {
        slot.trouble.begin(error, now);
    }
}

/// What keeps a worker from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Nothing does.
    None,
    /// The database is read-only.
    ReadOnly,
    /// The tables are filled by a subscription.
    Subscription,
    /// The ledger's sequence was never called: nothing has happened yet, or the data is being
    /// restored.
    NothingYet,
}

/// How the worker of a database is.
pub struct Status {
    /// Its process, if it has one.
    pub process: Option<i32>,
    /// `working`, or what keeps it from that.
    pub state: &'static str,
    /// Since when it fails, how often, and what it says.
    pub trouble: Option<(Micros, i32, String)>,
}

/// How the worker of this database is; `None` where the library was not preloaded.
pub fn status() -> Option<Status> {
    let board = board()?;
    let absent = || if settings::is_database_served() { "no_worker" } else { "not_served" };
    // SAFETY: a variable of this backend.
    let Some(slot) = board.slot(unsafe { pg_sys::MyDatabaseId }.to_u32()) else {
        return Some(Status { process: None, state: absent(), trouble: None });
    };
    let process = Some(slot.process.load(SeqCst)).filter(|process| is_alive(*process));
    let state = match (process, slot.pause.load(SeqCst)) {
        (None, _) => absent(),
        (Some(_), pause) if pause == Pause::ReadOnly as i32 => "read_only",
        (Some(_), pause) if pause == Pause::Subscription as i32 => "subscription",
        (Some(_), pause) if pause == Pause::NothingYet as i32 => "nothing_yet",
        (Some(_), _) => "working",
    };
    let since = slot.trouble.since.load(SeqCst);
    let trouble = (since < NEVER)
        .then(|| (since, slot.trouble.failures.load(SeqCst), slot.trouble.text.text()));
    Some(Status { process, state, trouble })
}
