//! Plans that stay right, whatever PostgreSQL knows or believes of the tables.
//!
//! A plan is kept for the life of a backend. It may be made while a table is empty, or was restored
//! and never analysed, or when statistics say that all keys are alike; PostgreSQL then finds a
//! sequential scan, or any index, as good as the right one. So a statement of the engine is planned
//! under conditions that are always the same:
//!
//! - every table and index has a fixed size, and no statistics ([`describe`],
//!   [`has_no_statistics`], [`width`]);
//! - costs and allowed kinds of plan are fixed, whatever the session has set: no sequential or
//!   bitmap scan, no hash or merge join ([`Conditions`]);
//! - values of parameters are not looked at, and plans are generic, so that a plan is made once
//!   ([`plan`]).
//!
//! So the same plan comes out on every database, and that can be tested (pgrx-tests/plans.rs). What
//! is planned meanwhile for others, in triggers say, is planned as ever: a statement of the engine
//! is known by the [`MARK`] that its text begins with. The price: a table that really is small must
//! not be joined, but looked up by key (`OFFSET 0` in `sql/expiry.rs`).
//!
//! Seen without it: batches that read the whole ledger for each call, a DELETE by key that walked
//! the whole primary key, the holds of one level looked for among all deadlines. What is taken for
//! true: every table has a million rows on 20,000 pages, columns have one width.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::null_mut;

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::prelude::*;

/// What the text of every statement of the engine begins with, where PostgreSQL sees it;
/// pg_stat_statements shows it.
pub const MARK: &str = "/* pg_stock */ ";

/// Rows that every table is taken to have.
const TUPLES: f64 = 1_000_000.0;
/// Pages that so many rows fill, about 50 on each.
const PAGES: pg_sys::BlockNumber = 20_000;
/// Pages of an index on them.
const INDEX_PAGES: pg_sys::BlockNumber = 5_000;
/// Levels of such an index above its leaves.
const INDEX_HEIGHT: c_int = 2;
/// Bytes of a value, in every column.
const WIDTH: i32 = 16;

thread_local! {
    /// A statement of the engine is being planned.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// The hooks that were there before ours.
static mut EARLIER_PLANNER: pg_sys::planner_hook_type = None;
static mut EARLIER_INFO: pg_sys::get_relation_info_hook_type = None;
static mut EARLIER_STATS: pg_sys::get_relation_stats_hook_type = None;
static mut EARLIER_INDEX_STATS: pg_sys::get_index_stats_hook_type = None;
static mut EARLIER_WIDTH: pg_sys::get_attavgwidth_hook_type = None;

/// Puts the hooks in place; once, when the library is loaded.
pub fn register() {
    // SAFETY: a backend has one thread; PostgreSQL calls the hooks with the arguments of their
    // types.
    unsafe {
        EARLIER_PLANNER = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(plan);
        EARLIER_INFO = pg_sys::get_relation_info_hook;
        pg_sys::get_relation_info_hook = Some(describe);
        EARLIER_STATS = pg_sys::get_relation_stats_hook;
        pg_sys::get_relation_stats_hook = Some(has_no_statistics);
        EARLIER_INDEX_STATS = pg_sys::get_index_stats_hook;
        pg_sys::get_index_stats_hook = Some(index_has_no_statistics);
        EARLIER_WIDTH = pg_sys::get_attavgwidth_hook;
        pg_sys::get_attavgwidth_hook = Some(width);
    }
}

/// Plans a query. Those of others go on as they came, by a way on which nothing of an error is
/// lost: no guard, and nothing here that an error must not jump over.
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    unsafe extern "C-unwind" {
        #[link_name = "standard_planner"]
        fn plan_as_ever(
            query: *mut pg_sys::Query,
            text: *const c_char,
            options: c_int,
            params: pg_sys::ParamListInfo,
        ) -> *mut pg_sys::PlannedStmt;
    }
    // SAFETY: a C string or null; the arguments are passed on as they came.
    unsafe {
        let is_ours =
            !text.is_null() && CStr::from_ptr(text).to_bytes().starts_with(MARK.as_bytes());
        match EARLIER_PLANNER {
            _ if is_ours || IS_OURS.get() => plan_guarded(query, text, options, params, is_ours),
            Some(earlier) => earlier(query, text, options, params),
            None => plan_as_ever(query, text, options, params),
        }
    }
}

/// Plans a query: one of the engine under its conditions and without the values of its parameters;
/// or one of somebody else's while one of the engine is being planned.
#[pg_guard]
unsafe extern "C-unwind" fn plan_guarded(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    params: pg_sys::ParamListInfo,
    is_ours: bool,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the arguments are passed on as they came.
    unsafe {
        let _as_before = Ours { before: IS_OURS.replace(is_ours) };
        let _conditions = is_ours.then(Conditions::fix);
        let params = if is_ours { null_mut() } else { params };
        match EARLIER_PLANNER {
            // An error must not jump over what is put back here.
            Some(earlier) => pg_guard_ffi_boundary(|| earlier(query, text, options, params)),
            None => pg_sys::standard_planner(query, text, options, params),
        }
    }
}

/// Puts back whose statement is being planned: planning may call functions, which plan statements
/// of their own.
struct Ours {
    before: bool,
}

impl Drop for Ours {
    fn drop(&mut self) {
        IS_OURS.set(self.before);
    }
}

/// The settings of the planner, fixed as long as it lives.
struct Conditions {
    switches: [bool; SWITCHES],
    costs: [f64; COSTS],
    limits: [c_int; LIMITS],
}

const SWITCHES: usize = 15;
const COSTS: usize = 6;
const LIMITS: usize = 4;

/// What plans may consist of. None is compiled.
fn switches() -> [(*mut bool, bool); SWITCHES] {
    [
        (&raw mut pg_sys::enable_indexscan, true),
        (&raw mut pg_sys::enable_indexonlyscan, true),
        (&raw mut pg_sys::enable_tidscan, true),
        (&raw mut pg_sys::enable_nestloop, true),
        (&raw mut pg_sys::enable_sort, true),
        (&raw mut pg_sys::enable_incremental_sort, true),
        (&raw mut pg_sys::enable_hashagg, true),
        (&raw mut pg_sys::enable_seqscan, false),
        (&raw mut pg_sys::enable_bitmapscan, false),
        (&raw mut pg_sys::enable_hashjoin, false),
        (&raw mut pg_sys::enable_mergejoin, false),
        (&raw mut pg_sys::enable_material, false),
        (&raw mut pg_sys::enable_memoize, false),
        (&raw mut pg_sys::enable_geqo, false),
        (&raw mut pg_sys::jit_enabled, false),
    ]
}

/// What a step costs, and a table of hashes may take, as PostgreSQL has it by default.
fn costs() -> [(*mut f64, f64); COSTS] {
    [
        (&raw mut pg_sys::seq_page_cost, 1.0),
        (&raw mut pg_sys::random_page_cost, 4.0),
        (&raw mut pg_sys::cpu_tuple_cost, 0.01),
        (&raw mut pg_sys::cpu_index_tuple_cost, 0.005),
        (&raw mut pg_sys::cpu_operator_cost, 0.0025),
        (&raw mut pg_sys::hash_mem_multiplier, 2.0),
    ]
}

/// How much is in memory, and how many tables are joined in any order, as PostgreSQL has it by
/// default.
fn limits() -> [(*mut c_int, c_int); LIMITS] {
    [
        (&raw mut pg_sys::effective_cache_size, 524_288),
        (&raw mut pg_sys::work_mem, 4_096),
        (&raw mut pg_sys::from_collapse_limit, 8),
        (&raw mut pg_sys::join_collapse_limit, 8),
    ]
}

impl Conditions {
    fn fix() -> Self {
        // SAFETY: variables of this backend, which has one thread.
        unsafe {
            Conditions {
                switches: switches().map(|(variable, fixed)| variable.replace(fixed)),
                costs: costs().map(|(variable, fixed)| variable.replace(fixed)),
                limits: limits().map(|(variable, fixed)| variable.replace(fixed)),
            }
        }
    }
}

impl Drop for Conditions {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            switches()
                .iter()
                .zip(self.switches)
                .for_each(|((variable, _), before)| **variable = before);
            costs().iter().zip(self.costs).for_each(|((variable, _), before)| **variable = before);
            limits()
                .iter()
                .zip(self.limits)
                .for_each(|((variable, _), before)| **variable = before);
        }
    }
}

/// Tells the planner how large a table and its indexes are: always the same.
#[pg_guard]
unsafe extern "C-unwind" fn describe(
    root: *mut pg_sys::PlannerInfo,
    relation: pg_sys::Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: PostgreSQL has filled `rel` in for this relation; its list of indexes holds
    // IndexOptInfo.
    unsafe {
        if let Some(earlier) = EARLIER_INFO {
            pg_guard_ffi_boundary(|| earlier(root, relation, inhparent, rel));
        }
        if !IS_OURS.get() {
            return;
        }
        ((*rel).tuples, (*rel).pages, (*rel).allvisfrac) = (TUPLES, PAGES, 0.0);
        (*rel).statlist = null_mut();
        for index in pgrx::PgList::<pg_sys::IndexOptInfo>::from_pg((*rel).indexlist).iter_ptr() {
            ((*index).tuples, (*index).pages, (*index).tree_height) =
                (TUPLES, INDEX_PAGES, INDEX_HEIGHT);
        }
    }
}

/// Tells the planner that nothing is known of the values of a column: true, and no statistics.
#[pg_guard]
unsafe extern "C-unwind" fn has_no_statistics(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
    column: pg_sys::AttrNumber,
    variable: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: the arguments are passed on as they came; `variable` is PostgreSQL's to be filled in.
    unsafe {
        match EARLIER_STATS {
            _ if IS_OURS.get() => forget(variable),
            Some(earlier) => pg_guard_ffi_boundary(|| earlier(root, entry, column, variable)),
            None => false,
        }
    }
}

/// Tells the planner that nothing is known of the values of an index: true, and no statistics.
#[pg_guard]
unsafe extern "C-unwind" fn index_has_no_statistics(
    root: *mut pg_sys::PlannerInfo,
    index: pg_sys::Oid,
    column: pg_sys::AttrNumber,
    variable: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: as above.
    unsafe {
        match EARLIER_INDEX_STATS {
            _ if IS_OURS.get() => forget(variable),
            Some(earlier) => pg_guard_ffi_boundary(|| earlier(root, index, column, variable)),
            None => false,
        }
    }
}

/// Says that there are no statistics: PostgreSQL does not clear the place for them everywhere.
unsafe fn forget(variable: *mut pg_sys::VariableStatData) -> bool {
    unsafe { ((*variable).statsTuple, (*variable).freefunc) = (null_mut(), None) };
    true
}

/// Tells the planner how wide a column is; 0: it may look for itself.
#[pg_guard]
unsafe extern "C-unwind" fn width(relation: pg_sys::Oid, column: pg_sys::AttrNumber) -> i32 {
    // SAFETY: the arguments are passed on as they came.
    unsafe {
        match EARLIER_WIDTH {
            _ if IS_OURS.get() => WIDTH,
            Some(earlier) => pg_guard_ffi_boundary(|| earlier(relation, column)),
            None => 0,
        }
    }
}
