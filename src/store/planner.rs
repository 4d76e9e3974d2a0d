//! Plans that stay right. A plan is kept for the life of a backend, and may be made while a table is empty: PostgreSQL
//! then finds a sequential scan, or any index, as good as the right one, and goes on with it when the table has grown
//! to millions of rows. So the planner is told, while it plans a statement of the engine, that no table is small.

use std::cell::Cell;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// Rows that every table is taken to have at least.
const LEAST_TUPLES: f64 = 1_000_000.0;
/// Pages that so many rows fill, about 50 on each.
const LEAST_PAGES: pg_sys::BlockNumber = 20_000;
/// Pages of an index on them.
const LEAST_INDEX_PAGES: pg_sys::BlockNumber = 5_000;
/// Levels of such an index above its leaves.
const LEAST_TREE_HEIGHT: i32 = 2;

thread_local! {
    static ASSUMING: Cell<bool> = const { Cell::new(false) };
}

/// The hook that was there before ours.
static mut EARLIER: pg_sys::get_relation_info_hook_type = None;

/// Tells the planner so as long as it lives. It must not conclude that such a statement is worth compiling, or that rows
/// are worth being sorted into the order of their pages first: none of ours reads so many.
pub struct LargeTables {
    assuming: bool,
    compiling: bool,
    gathering: bool,
}

impl LargeTables {
    /// From now on.
    pub fn assume() -> Self {
        // SAFETY: a backend has one thread; the planner reads the variables.
        let (compiling, gathering) = unsafe {
            let enabled = (pg_sys::jit_enabled, pg_sys::enable_bitmapscan);
            (pg_sys::jit_enabled, pg_sys::enable_bitmapscan) = (false, false);
            enabled
        };
        LargeTables { assuming: ASSUMING.replace(true), compiling, gathering }
    }
}

impl Drop for LargeTables {
    fn drop(&mut self) {
        ASSUMING.set(self.assuming);
        // SAFETY: as above.
        unsafe { (pg_sys::jit_enabled, pg_sys::enable_bitmapscan) = (self.compiling, self.gathering) };
    }
}

/// Puts the hook in place; once, when the library is loaded.
pub fn hook() {
    // SAFETY: a backend has one thread; PostgreSQL calls the hook with the arguments of its type.
    unsafe {
        EARLIER = pg_sys::get_relation_info_hook;
        pg_sys::get_relation_info_hook = Some(enlarge);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn enlarge(
    root: *mut pg_sys::PlannerInfo,
    relation: pg_sys::Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: PostgreSQL has filled `rel` in for this relation; its list of indexes holds IndexOptInfo.
    unsafe {
        if let Some(earlier) = EARLIER {
            earlier(root, relation, inhparent, rel);
        }
        if !ASSUMING.get() {
            return;
        }
        (*rel).tuples = (*rel).tuples.max(LEAST_TUPLES);
        (*rel).pages = (*rel).pages.max(LEAST_PAGES);
        for index in pgrx::PgList::<pg_sys::IndexOptInfo>::from_pg((*rel).indexlist).iter_ptr() {
            (*index).tuples = (*index).tuples.max(LEAST_TUPLES);
            (*index).pages = (*index).pages.max(LEAST_INDEX_PAGES);
            (*index).tree_height = (*index).tree_height.max(LEAST_TREE_HEIGHT);
        }
    }
}
