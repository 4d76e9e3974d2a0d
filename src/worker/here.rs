//! Whether the worker may be where it is.

use std::ffi::CStr;

use pgrx::pg_sys;

const EXTENSION: &CStr = c"pg_stock";

/// True unless somebody holds the lock that is needed to drop, rename, move or copy this database.
/// Those commands wait some five seconds for others to leave.
pub fn database_is_free() -> bool {
    // SAFETY: the lock that every new connection takes for a moment; released at the end of the
    // transaction.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: 0,
            locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
            locktag_field3: pg_sys::MyDatabaseId.to_u32(),
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        pg_sys::LockAcquire(&tag, pg_sys::RowExclusiveLock as i32, false, true)
            != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// True if the extension is created here; it then stays for the transaction, for DROP EXTENSION
/// waits.
pub fn extension_is_here() -> bool {
    // SAFETY: inside a transaction.
    unsafe {
        let found = pg_sys::get_extension_oid(EXTENSION.as_ptr(), true);
        if found == pg_sys::InvalidOid {
            return false;
        }
        pg_sys::LockDatabaseObject(
            pg_sys::ExtensionRelationId,
            found,
            0,
            pg_sys::AccessShareLock as i32,
        );
        found == pg_sys::get_extension_oid(EXTENSION.as_ptr(), true)
    }
}
