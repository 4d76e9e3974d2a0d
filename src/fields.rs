//! Errors of PostgreSQL keep all their fields on their way through Rust.
//!
//! pgrx turns an error that PostgreSQL raises inside a call of ours (by a trigger of a DBA's, by a
//! check) into a panic, which unwinds, and raises it again where our function was called. On that
//! way an SQLSTATE that pgrx does not list becomes XX000, the names of constraint, table, schema,
//! column and type and the context are lost, and text that is not UTF-8 is mangled. So the error is
//! copied when it is raised, and what was lost is put back when it is raised again. Both moments
//! are told to us by PostgreSQL, which calls the error context callbacks of all that is under way.
//!
//! The callback's node is left in place while a panic unwinds: the error is raised again after
//! that. It lies in the memory context of the call, which outlives both.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use pgrx::pg_sys::panic::ErrorReportWithLevel;
use pgrx::pg_sys::{self, ErrorContextCallback, ErrorData};
use pgrx::prelude::PgLogLevel;

unsafe extern "C-unwind" {
    // What ereport() is made of; pgrx does not bind these.
    fn errcode(sqlerrcode: c_int) -> c_int;
    fn errmsg_internal(format: *const c_char, ...) -> c_int;
    fn errdetail_internal(format: *const c_char, ...) -> c_int;
    fn errhint(format: *const c_char, ...) -> c_int;
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
}

thread_local! {
    /// The last error that PostgreSQL raised inside a call of ours.
    static LAST: Cell<*mut ErrorData> = const { Cell::new(null_mut()) };
    /// The SQLSTATE of the error of ours that is about to be raised, if pgrx cannot say it.
    static OWN: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// A call of ours. As long as it lives, fields of errors are kept.
pub struct Call {
    node: *mut Node,
}

#[repr(C)]
struct Node {
    callback: ErrorContextCallback,
    /// Where an error jumps to that is raised outside of all that the call has begun: it is one
    /// that is raised again.
    outside: *mut pg_sys::sigjmp_buf,
}

impl Call {
    /// From now on. To be begun where PostgreSQL has called us, before anything else.
    pub fn begin() -> Self {
        OWN.set(None);
        // SAFETY: a node in the memory of the call, put on top of the stack of callbacks; `drop`
        // takes it off.
        unsafe {
            // What was caught in an earlier call is nobody's any more.
            if !is_call_under_way() {
                replace_last(null_mut());
            }
            let node: *mut Node = pg_sys::palloc(size_of::<Node>()).cast();
            let callback = ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(at_report),
                arg: node.cast(),
            };
            node.write(Node { callback, outside: pg_sys::PG_exception_stack.cast() });
            pg_sys::error_context_stack = node.cast();
            Call { node }
        }
    }
}

/// Whether one of the callbacks that PostgreSQL would ask is ours.
unsafe fn is_call_under_way() -> bool {
    let mut node = unsafe { pg_sys::error_context_stack };
    while let Some(callback) = unsafe { node.as_ref() } {
        if callback
            .callback
            .is_some_and(|called| called as usize == at_report as *const () as usize)
        {
            return true;
        }
        node = callback.previous;
    }
    false
}

impl Drop for Call {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: whatever was put on top of it is gone.
            unsafe {
                pg_sys::error_context_stack = (*self.node).callback.previous;
                pg_sys::pfree(self.node.cast());
            }
        }
    }
}

/// Has the error that the caller raises next carry this SQLSTATE, five digits and capital letters.
///
/// pgrx unwinds up to where PostgreSQL has called us, so that all destructors run, and raises the
/// error there, in a frame without any: in that moment PostgreSQL asks our callback, which puts the
/// SQLSTATE in.
pub fn raise_as(sqlstate: &str) {
    OWN.set(Some(encoded(sqlstate)));
}

/// Six bits for each character, as MAKE_SQLSTATE does.
const fn encoded(sqlstate: &str) -> c_int {
    let (bytes, mut code, mut at) = (sqlstate.as_bytes(), 0, 0);
    while at < bytes.len() {
        code |= (bytes[at].wrapping_sub(b'0') as c_int & 0x3F) << (6 * at);
        at += 1;
    }
    code
}

/// The five characters of an SQLSTATE, six bits each.
pub fn sqlstate(code: c_int) -> String {
    (0..5).map(|place| char::from(((code >> (6 * place)) & 0x3f) as u8 + b'0')).collect()
}

/// The SQLSTATE of an error that was caught, as PostgreSQL raised it.
pub fn sqlstate_of(report: &ErrorReportWithLevel) -> c_int {
    // SAFETY: a copy of ours, or null.
    match unsafe { LAST.get().as_ref() } {
        Some(last) if unsafe { text(last.message) } == report.message() => last.sqlerrcode,
        _ => report.sql_error_code() as c_int,
    }
}

/// Called for each report while a call is under way: no Rust destructor may be pending here, and
/// nothing is done that is likely to fail.
unsafe extern "C-unwind" fn at_report(node: *mut c_void) {
    // SAFETY: the node of a call that is under way.
    unsafe {
        let is_again = pg_sys::PG_exception_stack.cast() == (*node.cast::<Node>()).outside;
        // Nothing but the error that it is meant for: another one may come up while that is written
        // down.
        if is_again
            && pg_sys::geterrcode() == PLACEHOLDER
            && let Some(code) = OWN.take()
        {
            errcode(code);
            return;
        }
        // Without memory nothing is copied: the error says all there is to say.
        if pg_sys::geterrcode() == OUT_OF_MEMORY {
            return;
        }
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let error = pg_sys::CopyErrorData();
        pg_sys::MemoryContextSwitchTo(before);
        if (*error).elevel < PgLogLevel::ERROR as c_int {
            pg_sys::FreeErrorData(error);
        } else if is_again {
            put_back(error);
            pg_sys::FreeErrorData(error);
        } else if LAST
            .get()
            .as_ref()
            .is_some_and(|last| is_same(last, &*error) && is_lossy(&*error, last))
        {
            // The same once more, on its way through another call: it has lost what the first copy
            // has.
            pg_sys::FreeErrorData(error);
        } else {
            replace_last(error);
        }
    }
}

/// Whether an error may be what pgrx has left of another one. Who catches one and raises its text
/// anew with another SQLSTATE means that one.
fn is_lossy(error: &ErrorData, last: &ErrorData) -> bool {
    [last.sqlerrcode, INTERNAL_ERROR].contains(&error.sqlerrcode)
}

unsafe fn is_same(one: &ErrorData, other: &ErrorData) -> bool {
    unsafe {
        one.lineno == other.lineno
            && text(one.message) == text(other.message)
            && text(one.detail) == text(other.detail)
            && text(one.hint) == text(other.hint)
    }
}

/// ERRCODE_OUT_OF_MEMORY.
const OUT_OF_MEMORY: c_int = encoded("53200");
/// ERRCODE_INTERNAL_ERROR, which pgrx gives to SQLSTATEs that it does not list.
const INTERNAL_ERROR: c_int = encoded("XX000");
/// ERRCODE_RAISE_EXCEPTION, with which a refusal comes here.
const PLACEHOLDER: c_int = encoded("P0001");

unsafe fn replace_last(error: *mut ErrorData) {
    let last = LAST.replace(error);
    if !last.is_null() {
        unsafe { pg_sys::FreeErrorData(last) };
    }
}

/// Puts back into the error that is being raised what the last one had and this one, which is the
/// same, has lost.
unsafe fn put_back(error: *const ErrorData) {
    unsafe {
        let Some(last) = LAST.get().as_ref() else { return };
        if !is_same(last, &*error) {
            return;
        }
        let is_there = |field: &*mut c_char| !field.is_null();
        errcode(last.sqlerrcode);
        Some(last.message).filter(is_there).map(|message| errmsg_internal(c"%s".as_ptr(), message));
        Some(last.detail).filter(is_there).map(|detail| errdetail_internal(c"%s".as_ptr(), detail));
        Some(last.hint).filter(is_there).map(|hint| errhint(c"%s".as_ptr(), hint));
        Some(last.context).filter(is_there).map(|context| errcontext_msg(c"%s".as_ptr(), context));
        let named = [
            (pg_sys::PG_DIAG_SCHEMA_NAME, last.schema_name),
            (pg_sys::PG_DIAG_TABLE_NAME, last.table_name),
            (pg_sys::PG_DIAG_COLUMN_NAME, last.column_name),
            (pg_sys::PG_DIAG_DATATYPE_NAME, last.datatype_name),
            (pg_sys::PG_DIAG_CONSTRAINT_NAME, last.constraint_name),
        ];
        for (field, name) in named.into_iter().filter(|(_, name)| is_there(name)) {
            pg_sys::err_generic_string(c_int::from(field), name);
        }
        if !last.internalquery.is_null() {
            pg_sys::internalerrquery(last.internalquery);
            pg_sys::internalerrposition(last.internalpos);
        }
        replace_last(null_mut());
    }
}

/// A text as pgrx hands it on.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        String::new()
    } else {
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}
