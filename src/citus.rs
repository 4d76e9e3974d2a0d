//! Beside Citus: what does it say of a table, and of a transaction?
//!
//! Citus keeps the rows of a distributed table on other nodes and plans statements on it anew:
//! whoever reaches for the table itself finds nothing there. And it commits on other nodes at
//! XACT_EVENT_COMMIT, before our flush. Both concern only tables that were given to it, and
//! transactions that reached for such, so it is asked, of a table when it is checked for the short
//! way, of the transaction at PRE_COMMIT: by two functions of its library, which are looked up
//! among the symbols of this process. Nothing is loaded for that. Where it does not offer them (it
//! may have been built to keep its symbols to itself), everything goes by statements and commits as
//! PostgreSQL does.
//!
//! A distributed table of stock (`direct::distributed` names them) is refused at
//! the start of each call: a row lock or a unique key on one node says nothing about another.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use pgrx::pg_sys;

/// `bool IsCitusTable(Oid)`
type OfTable = unsafe extern "C-unwind" fn(pg_sys::Oid) -> bool;
/// `bool InCoordinatedTransaction(void)`
type OfTransaction = unsafe extern "C-unwind" fn() -> bool;

/// What there is of it.
enum Neighbour {
    /// It is not loaded.
    Absent,
    /// It is loaded, and does not offer both functions.
    Silent,
    /// It can be asked.
    Talking { of_table: OfTable, of_transaction: OfTransaction },
}

/// True where it is loaded and cannot be asked.
pub fn is_silent() -> bool {
    matches!(neighbour(), Neighbour::Silent)
}

/// True where it is loaded and can be asked.
pub fn is_talking() -> bool {
    matches!(neighbour(), Neighbour::Talking { .. })
}

/// Whether a table was given to it: distributed, made a reference table, or added to its metadata.
/// Inside a transaction.
pub fn has(table: pg_sys::Oid) -> bool {
    match neighbour() {
        // SAFETY: Citus's own function, which may look into the catalog, and raise an error.
        Neighbour::Talking { of_table, .. } => unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| of_table(table))
        },
        Neighbour::Absent | Neighbour::Silent => false,
    }
}

/// Whether it takes part in this transaction, or may do so.
pub fn may_coordinate() -> bool {
    match neighbour() {
        Neighbour::Absent => false,
        Neighbour::Silent => true,
        // SAFETY: Citus's own function, which looks at a variable.
        Neighbour::Talking { of_transaction, .. } => unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| of_transaction())
        },
    }
}

fn neighbour() -> &'static Neighbour {
    static FOUND: OnceLock<Neighbour> = OnceLock::new();
    FOUND.get_or_init(look)
}

/// It works only where it is loaded at the start of the server; so what is found once stays so.
fn look() -> Neighbour {
    // SAFETY: a C string that is set at the start of the server, or null.
    let libraries = unsafe {
        let list = pg_sys::shared_preload_libraries_string;
        if list.is_null() { return Neighbour::Absent } else { CStr::from_ptr(list) }
    };
    if !libraries.to_string_lossy().split(',').any(is_citus) {
        return Neighbour::Absent;
    }
    match (symbol(c"IsCitusTable"), symbol(c"InCoordinatedTransaction")) {
        // SAFETY: the signatures of these functions in Citus 10 to 14.
        (Some(of_table), Some(of_transaction)) => unsafe {
            Neighbour::Talking {
                of_table: std::mem::transmute::<*mut c_void, OfTable>(of_table),
                of_transaction: std::mem::transmute::<*mut c_void, OfTransaction>(of_transaction),
            }
        },
        _ => Neighbour::Silent,
    }
}

/// Whether an entry of `shared_preload_libraries` is Citus's library.
fn is_citus(library: &str) -> bool {
    let path = library.trim().trim_matches('"');
    let file = path.rsplit('/').next().unwrap_or(path);
    file.trim_end_matches(".so") == "citus"
}

/// A symbol of the libraries that this process has loaded: PostgreSQL loads each of them for all
/// (RTLD_GLOBAL).
fn symbol(name: &CStr) -> Option<*mut c_void> {
    unsafe extern "C" {
        fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    }
    // SAFETY: looks a name up; no handle stands for the libraries that are loaded.
    let found = unsafe { dlsym(null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
