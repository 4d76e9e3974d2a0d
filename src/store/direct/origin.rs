//! Where a change comes from: what the defaults of the ledger's columns would say of it.

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use pgrx::{IntoDatum, pg_sys};

use crate::store::datum::{Value, bytes};
use crate::store::rows::ledger::Defaults;

/// What is the same for all ledger rows of a call.
pub struct Origin {
    sequence: pg_sys::Oid,
    actor: Value,
    login: Value,
    client_addr: Value,
    application_name: Value,
}

impl Origin {
    /// That of the session; positions come from this sequence.
    pub fn of_session(sequence: pg_sys::Oid) -> Self {
        let application_name = setting(c"application_name").filter(|name| !name.is_empty());
        let login = login();
        Origin {
            sequence,
            actor: actor(login),
            login,
            client_addr: client_addr(),
            application_name: application_name.and_then(|name| bytes(name.to_bytes())),
        }
    }

    /// What the defaults give for the next row.
    pub fn defaults(&self) -> Defaults {
        // First the transaction, then the position, as sql/tables.sql says.
        let xact = xact();
        Defaults {
            xact,
            position: next(self.sequence),
            actor: self.actor,
            login: self.login,
            client_addr: self.client_addr,
            application_name: self.application_name,
        }
    }
}

/// pg_current_xact_id()
fn xact() -> Value {
    // SAFETY: gives the transaction its number.
    Some(pg_sys::Datum::from(unsafe { pg_sys::GetTopFullTransactionId() }.value))
}

/// nextval() of a sequence.
pub fn next(sequence: pg_sys::Oid) -> Value {
    // SAFETY: calls a function with an argument of its type.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::nextval_oid, &[sequence.into_datum()]) }
}

/// The role of SET ROLE, else the one that logged in.
fn actor(login: Value) -> Value {
    match setting(c"role").filter(|role| *role != c"none") {
        Some(role) => bytes(role.to_bytes()),
        None => login,
    }
}

/// The role that logged in.
fn login() -> Value {
    // SAFETY: a C string of the role that logged in.
    unsafe { c_text(pg_sys::GetUserNameFromId(pg_sys::GetSessionUserId(), false)) }
}

/// inet_client_addr()
fn client_addr() -> Value {
    // SAFETY: a function without arguments, which may give NULL.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::inet_client_addr, &[]) }
}

/// As current_setting() gives it.
fn setting(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: a copy of the value, in the memory of the call, where it is used up.
    unsafe {
        let value = pg_sys::GetConfigOptionByName(name.as_ptr(), null_mut(), true);
        (!value.is_null()).then(|| CStr::from_ptr(value))
    }
}

/// # Safety
/// A C string.
unsafe fn c_text(text: *const c_char) -> Value {
    bytes(unsafe { CStr::from_ptr(text) }.to_bytes())
}
