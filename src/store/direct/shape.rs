//! Is a table as sql/tables.sql made it, for what is to be done with it?
//!
//! All that a statement would heed is compared by content: names, types, collations and NOT NULL of
//! columns, the text of the check and of the defaults that are used, the sequence that one of them
//! names, triggers, rules, policies, children, rights. The answer is kept until PostgreSQL says
//! that something about the table may have changed. Triggers of a foreign key that refers to (SKU,
//! location) of a level are passed over: PostgreSQL has them do nothing where these stay.
//! `tests/schema.rs` generates every change of our tables that PostgreSQL accepts (some 850) and
//! compares both ways after each.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, c_char};

use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, IntoDatum};

use crate::citus;
use crate::store::rows::{Column, Shape, Source};

/// What is done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Read,
    Insert,
    Update,
    Delete,
}

impl Deed {
    /// The lock that a statement would take.
    pub fn lock(self) -> pg_sys::LOCKMODE {
        let mode =
            if self == Deed::Read { pg_sys::AccessShareLock } else { pg_sys::RowExclusiveLock };
        mode as pg_sys::LOCKMODE
    }

    /// The right that a statement would need.
    fn right(self) -> pg_sys::AclMode {
        let right = match self {
            Deed::Read => pg_sys::ACL_SELECT,
            Deed::Insert => pg_sys::ACL_INSERT,
            Deed::Update => pg_sys::ACL_UPDATE | pg_sys::ACL_SELECT,
            Deed::Delete => pg_sys::ACL_DELETE | pg_sys::ACL_SELECT,
        };
        pg_sys::AclMode::from(right)
    }

    /// Its bit in the type of a trigger; 0: no trigger acts on it.
    fn trigger_type(self) -> u32 {
        match self {
            Deed::Read => 0,
            Deed::Insert => pg_sys::TRIGGER_TYPE_INSERT,
            Deed::Update => pg_sys::TRIGGER_TYPE_UPDATE,
            Deed::Delete => pg_sys::TRIGGER_TYPE_DELETE,
        }
    }
}

/// What was found out about a table.
#[derive(Clone, Copy)]
pub struct Findings {
    is_plain: bool,
    /// The types of triggers that act on rows, as bits.
    triggers: u32,
    /// The sequence that a default names.
    pub sequence: pg_sys::Oid,
}

impl Findings {
    /// Whether a statement that does this would do no more than we do.
    pub fn allow(self, deed: Deed) -> bool {
        self.is_plain && self.triggers & deed.trigger_type() == 0
    }
}

thread_local! {
    static FINDINGS: RefCell<HashMap<pg_sys::Oid, Findings>> = RefCell::default();
    /// How often something changed.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// Registers the callback that forgets what is no longer so; once, when the library is loaded.
pub fn register() {
    // SAFETY: the callback has the signature that PostgreSQL asks for, and lives as long as the
    // library.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(forget), Datum::null()) };
}

/// Something about a relation, or (an invalid oid) about all, may have changed.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn forget(_arg: Datum, relation: pg_sys::Oid) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
    FINDINGS.with_borrow_mut(|known| {
        if relation == pg_sys::InvalidOid {
            known.clear();
        } else {
            known.remove(&relation);
        }
    });
}

/// What there is to know about a table that is open, and so locked.
///
/// # Safety
/// The relation must be open.
pub unsafe fn findings(relation: pg_sys::Relation, shape: &Shape) -> Findings {
    let id = unsafe { (*relation).rd_id };
    if let Some(known) = FINDINGS.with_borrow(|known| known.get(&id).copied()) {
        return known;
    }
    let before = CHANGES.get();
    let found = unsafe { examine(relation, shape) };
    // While it was examined PostgreSQL may have heard of a change. It is none that matters now, for
    // the table is locked: a statement, too, is planned once after its locks are there.
    if CHANGES.get() == before {
        FINDINGS.with_borrow_mut(|known| known.insert(id, found));
    }
    found
}

/// Whether the current user has the right to do this, as a statement would ask.
///
/// # Safety
/// The relation must be open.
pub unsafe fn is_allowed(relation: pg_sys::Relation, deed: Deed) -> bool {
    let (id, user) = unsafe { ((*relation).rd_id, pg_sys::GetUserId()) };
    let verdict = unsafe { pg_sys::pg_class_aclcheck(id, user, deed.right()) };
    verdict == pg_sys::AclResult::ACLCHECK_OK
}

unsafe fn examine(relation: pg_sys::Relation, shape: &Shape) -> Findings {
    unsafe {
        let sequence = defaults(relation, shape);
        let is_plain = is_plain_heap(relation)
            && has_columns(relation, shape)
            && has_check(relation, shape)
            && sequence.is_some()
            && !citus::has((*relation).rd_id);
        Findings {
            is_plain,
            triggers: triggers(relation, shape),
            sequence: sequence.unwrap_or(pg_sys::InvalidOid),
        }
    }
}

/// True where a row that is written needs nothing but its values: no rule, policy or child.
unsafe fn is_plain_heap(relation: pg_sys::Relation) -> bool {
    unsafe {
        let class = &*(*relation).rd_rel;
        class.relkind as u8 == pg_sys::RELKIND_RELATION
            && class.relam == pg_sys::HEAP_TABLE_AM_OID
            && !(class.relhassubclass || class.relispartition || class.relrowsecurity)
            && (*relation).rd_rules.is_null()
    }
}

unsafe fn has_columns(relation: pg_sys::Relation, shape: &Shape) -> bool {
    let is = |place: usize, expected: &Column| unsafe {
        let column = &*column(relation, place);
        name(column) == expected.name.as_bytes()
            && (column.atttypid, column.atttypmod, column.attcollation)
                == (expected.of, -1, expected.collation)
            && column.attnotnull == expected.is_needed
            && !column.attisdropped
            && column.attgenerated == 0
            && column.attidentity == 0
    };
    let width = unsafe { (*(*relation).rd_att).natts as usize };
    width == shape.columns.len()
        && shape.columns.iter().enumerate().all(|(place, expected)| is(place, expected))
}

unsafe fn has_check(relation: pg_sys::Relation, shape: &Shape) -> bool {
    let Some(constraints) = (unsafe { (*(*relation).rd_att).constr.as_ref() }) else {
        return shape.check.is_none();
    };
    let checks = match usize::from(constraints.num_check) {
        0 => &[],
        count => unsafe { std::slice::from_raw_parts(constraints.check, count) },
    };
    let texts: Vec<String> =
        checks.iter().map(|check| unsafe { deparse(relation, check.ccbin) }).collect();
    texts.iter().map(String::as_str).eq(shape.check)
}

/// Looks whether the defaults that are used are as they were made; gives the sequence that one of
/// them names.
unsafe fn defaults(relation: pg_sys::Relation, shape: &Shape) -> Option<pg_sys::Oid> {
    let constraints = unsafe { (*(*relation).rd_att).constr.as_ref() };
    let all = match constraints
        .map(|constraints| (constraints.defval, usize::from(constraints.num_defval)))
    {
        None | Some((_, 0)) => &[],
        Some((first, count)) => unsafe { std::slice::from_raw_parts(first, count) },
    };
    let mut sequence = pg_sys::InvalidOid;
    for (number, column) in (1i16..).zip(shape.columns) {
        let default =
            all.iter().find(|default| default.adnum == number).map(|default| default.adbin);
        match (column.source, default) {
            (Source::Fact, _) => {}
            (Source::Default(text), Some(default))
                if unsafe { deparse(relation, default) } == text => {}
            (Source::Sequence, Some(default)) => sequence = unsafe { sequence_of(default) }?,
            _ => return None,
        }
    }
    Some(sequence)
}

/// The sequence whose next number an expression takes; `None` where it does something else.
unsafe fn sequence_of(expression: *const c_char) -> Option<pg_sys::Oid> {
    unsafe {
        let call = pg_sys::stringToNode(expression).cast::<pg_sys::FuncExpr>();
        if (*call).xpr.type_ != pg_sys::NodeTag::T_FuncExpr
            || (*call).funcid != pg_sys::Oid::from(pg_sys::F_NEXTVAL)
        {
            return None;
        }
        let arguments = pgrx::PgList::<pg_sys::Const>::from_pg((*call).args);
        let sequence =
            arguments.head().filter(|node| (**node).xpr.type_ == pg_sys::NodeTag::T_Const)?;
        Some(pg_sys::Oid::from((*sequence).constvalue.value() as u32))
    }
}

/// An expression of a table as text, with each run of blanks made one.
unsafe fn deparse(relation: pg_sys::Relation, expression: *const c_char) -> String {
    let _unquoted = Unquoted::begin();
    // SAFETY: pg_get_expr takes the text of an expression and its table.
    let text = unsafe {
        let arguments =
            [CStr::from_ptr(expression).to_bytes().into_datum(), (*relation).rd_id.into_datum()];
        let text: Option<Datum> =
            pgrx::direct_function_call_as_datum(pg_sys::pg_get_expr, &arguments);
        text.and_then(|text| <&[u8]>::from_datum(text, false)).map(String::from_utf8_lossy)
    };
    text.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

/// No quotes around names that need none, whatever the session has set, as long as it lives.
struct Unquoted {
    before: bool,
}

impl Unquoted {
    fn begin() -> Self {
        // SAFETY: a variable of this backend.
        Unquoted { before: unsafe { (&raw mut pg_sys::quote_all_identifiers).replace(false) } }
    }
}

impl Drop for Unquoted {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::quote_all_identifiers = self.before };
    }
}

/// The types of the triggers that act on what we write.
unsafe fn triggers(relation: pg_sys::Relation, shape: &Shape) -> u32 {
    let all = match unsafe { (*relation).trigdesc.as_ref() } {
        None => &[],
        Some(about) => unsafe {
            std::slice::from_raw_parts(about.triggers, about.numtriggers as usize)
        },
    };
    // Copied: opening an index may have PostgreSQL make the description anew.
    let all: Vec<pg_sys::Trigger> = all.to_vec();
    let acting =
        all.iter().filter(|trigger| !unsafe { looks_at_constants_only(trigger, relation, shape) });
    acting.fold(0, |types, trigger| types | trigger.tgtype as u32)
}

/// Whether a trigger belongs to a foreign key of another table that refers to columns which we
/// never change. PostgreSQL has it do nothing where the row keeps these
/// (RI_FKey_pk_upd_check_required); a delete it does look at.
unsafe fn looks_at_constants_only(
    trigger: &pg_sys::Trigger,
    table: pg_sys::Relation,
    shape: &Shape,
) -> bool {
    let is_named = |name: &[u8]| shape.constant.iter().any(|constant| constant.as_bytes() == name);
    let is_constant = |key: Vec<i16>| {
        key.iter().all(|number| *number > 0 && is_named(unsafe { column_name(table, *number) }))
    };
    unsafe {
        trigger.tgisinternal
            && trigger.tgtype as u32 & pg_sys::TRIGGER_TYPE_DELETE == 0
            && pg_sys::RI_FKey_trigger_type(trigger.tgfoid) == pg_sys::RI_TRIGGER_PK as i32
            && key_columns(trigger.tgconstrindid, (*table).rd_id).is_some_and(is_constant)
    }
}

/// The columns of an index of a table.
unsafe fn key_columns(index: pg_sys::Oid, table: pg_sys::Oid) -> Option<Vec<i16>> {
    unsafe {
        let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::try_relation_open(index, mode);
        let about = relation.as_ref()?.rd_index.as_ref().filter(|about| about.indrelid == table);
        let columns =
            about.map(|about| about.indkey.values.as_slice(about.indnkeyatts as usize).to_vec());
        pg_sys::relation_close(relation, mode);
        columns
    }
}

/// # Safety
/// The relation must be open, and have that column.
unsafe fn column(relation: pg_sys::Relation, place: usize) -> *const pg_sys::FormData_pg_attribute {
    unsafe {
        let columns = (*relation).rd_att;
        #[cfg(not(feature = "pg18"))]
        return (*columns).attrs.as_ptr().add(place);
        #[cfg(feature = "pg18")]
        return pg_sys::TupleDescAttr(columns, place as i32);
    }
}

/// The name of a column, counted from 1.
///
/// # Safety
/// The relation must be open, and have that column; the name is that of the open relation.
pub unsafe fn column_name<'r>(relation: pg_sys::Relation, number: i16) -> &'r [u8] {
    unsafe { name(&*column(relation, number as usize - 1)) }
}

fn name(column: &pg_sys::FormData_pg_attribute) -> &[u8] {
    // SAFETY: a C string in a name of PostgreSQL's.
    unsafe { CStr::from_ptr(column.attname.data.as_ptr()) }.to_bytes()
}
