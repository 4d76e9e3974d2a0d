//! An open table.
//!
//! What is open is closed when it goes out of scope; after an error of PostgreSQL's, the resource
//! owner of the transaction or subtransaction that fails closes it.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::shape::{self, Deed, Findings};
use crate::store::rows::Shape;

/// An open table.
pub struct Table {
    relation: pg_sys::Relation,
    schema: pg_sys::Oid,
    mode: pg_sys::LOCKMODE,
    findings: Findings,
}

impl Drop for Table {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: it is open. Its lock is kept until the transaction ends, as everywhere.
            unsafe { pg_sys::relation_close(self.relation, NO_LOCK) };
        }
    }
}

/// For closing: locks are kept until the transaction ends.
pub const NO_LOCK: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

impl Table {
    /// Opens a table in order to do something with it; `None` where a statement would heed more
    /// than we do.
    ///
    /// Whoever waited for the lock may have waited for somebody who gave the name to another table:
    /// the name is looked up again once the lock is there.
    pub fn open(shape: &'static Shape, deed: Deed) -> Option<Self> {
        let table = loop {
            let (schema, id) = look_up(shape.name)?;
            // SAFETY: opens a relation, which is closed when the table is dropped; null where it is
            // gone.
            let relation = unsafe { pg_sys::try_relation_open(id, deed.lock()) };
            if relation.is_null() {
                continue;
            }
            if look_up(shape.name) == Some((schema, id)) {
                break Table {
                    relation,
                    schema,
                    mode: deed.lock(),
                    findings: unsafe { shape::findings(relation, shape) },
                };
            }
            // SAFETY: it is open; nothing was done with it, so that its lock need not be kept.
            unsafe { pg_sys::relation_close(relation, deed.lock()) };
        };
        // SAFETY: an open relation.
        let is_allowed =
            table.findings.allow(deed) && unsafe { shape::is_allowed(table.relation, deed) };
        is_allowed.then_some(table)
    }

    /// The sequence that the default of a column takes its number from.
    pub fn sequence(&self) -> pg_sys::Oid {
        self.findings.sequence
    }

    /// The schema that it and its indexes are in.
    pub fn schema(&self) -> pg_sys::Oid {
        self.schema
    }

    /// The mode in which it is locked, and its indexes are.
    pub fn mode(&self) -> pg_sys::LOCKMODE {
        self.mode
    }

    /// The relation itself.
    pub fn relation(&self) -> pg_sys::Relation {
        self.relation
    }

    /// How many columns it has.
    pub fn width(&self) -> usize {
        // SAFETY: an open relation.
        unsafe { (*(*self.relation).rd_att).natts as usize }
    }
}

/// The oids of the schema stock and of what has this name in it.
pub fn look_up(name: &CStr) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    let is_there = |oid: &pg_sys::Oid| *oid != pg_sys::InvalidOid;
    // SAFETY: looks names up.
    let schema =
        Some(unsafe { pg_sys::get_namespace_oid(c"stock".as_ptr(), true) }).filter(is_there)?;
    let relation =
        Some(unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) }).filter(is_there)?;
    Some((schema, relation))
}
