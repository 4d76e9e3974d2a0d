//! Shared memory: the pieces that the library asks for while it is preloaded.

use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU8, AtomicU32};

use pgrx::pg_sys;
use pgrx::prelude::*;

/// A piece of shared memory. The postmaster sets it up when the server starts, and again after a
/// crash; its children inherit the address.
pub struct Piece {
    /// Its name.
    pub name: &'static CStr,
    /// How many bytes it has.
    pub size: fn() -> usize,
    /// Fills it, and remembers where it is.
    pub set_up: unsafe fn(*mut u8),
}

/// All of them.
static PIECES: OnceLock<&'static [&'static Piece]> = OnceLock::new();

fn pieces() -> &'static [&'static Piece] {
    PIECES.get().copied().unwrap_or_default()
}

/// The hooks that were there before ours.
static mut EARLIER_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut EARLIER_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Asks for pieces of shared memory, while the library is preloaded; once.
pub fn request(pieces: &'static [&'static Piece]) {
    PIECES.get_or_init(|| pieces);
    // SAFETY: hooks of the types that PostgreSQL asks for, put in place before it has shared
    // memory.
    unsafe {
        EARLIER_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(reserve);
        EARLIER_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(set_up);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn reserve() {
    unsafe {
        if let Some(earlier) = EARLIER_REQUEST {
            earlier();
        }
        pieces().iter().for_each(|piece| pg_sys::RequestAddinShmemSpace((piece.size)()));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn set_up() {
    unsafe {
        if let Some(earlier) = EARLIER_STARTUP {
            earlier();
        }
        for piece in pieces() {
            let mut found = false;
            let place = pg_sys::ShmemInitStruct(piece.name.as_ptr(), (piece.size)(), &mut found);
            (piece.set_up)(place.cast());
        }
    }
}

/// The place of a database among those that databases take without a lock, taken if it has none
/// (the other value); `None` where all are taken. `owner` is the oid of whose place it is, 0 of
/// nobody's.
pub fn find_or_take<T>(
    places: &[T],
    owner: impl Fn(&T) -> &AtomicU32,
    database: u32,
) -> Option<(&T, bool)> {
    let known = places.iter().find(|place| owner(place).load(SeqCst) == database);
    known.map(|place| (place, false)).or_else(|| {
        places.iter().find_map(|place| {
            match owner(place).compare_exchange(0, database, SeqCst, SeqCst) {
                Ok(_) => Some((place, true)),
                // Somebody else was faster, with the same database perhaps.
                Err(found) => (found == database).then_some((place, false)),
            }
        })
    })
}

/// A text in shared memory, cut to so many bytes. Who reads while somebody writes may see a
/// mixture.
pub struct SharedText<const BYTES: usize> {
    length: AtomicU32,
    bytes: [AtomicU8; BYTES],
}

impl<const BYTES: usize> SharedText<BYTES> {
    /// An empty one.
    pub const fn new() -> Self {
        SharedText { length: AtomicU32::new(0), bytes: [const { AtomicU8::new(0) }; BYTES] }
    }

    /// Puts a text in the place of what it was.
    pub fn set_text(&self, text: &str) {
        self.set(&text.as_bytes()[..text.floor_char_boundary(BYTES)]);
    }

    /// The text that it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.get()).into_owned()
    }

    /// Puts bytes in the place of what it was.
    pub fn set(&self, text: &[u8]) {
        let length = text.len().min(BYTES);
        self.length.store(0, SeqCst);
        text.iter().zip(&self.bytes).for_each(|(byte, place)| place.store(*byte, SeqCst));
        self.length.store(length as u32, SeqCst);
    }

    /// What it is.
    pub fn get(&self) -> Vec<u8> {
        let length = self.length.load(SeqCst) as usize;
        self.bytes.iter().take(length).map(|byte| byte.load(SeqCst)).collect()
    }
}
