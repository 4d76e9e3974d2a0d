//! What a setting is: its variable, with all that PostgreSQL is told of it.

use std::ffi::{CStr, CString};
use std::ops::RangeInclusive;

use pgrx::guc::{GucContext, GucEnum, GucFlags, GucRegistry, GucSetting, GucValue};

/// A setting.
pub struct Setting<T: GucValue> {
    /// Its name.
    pub name: &'static CStr,
    /// What it decides, in a sentence.
    pub meaning: &'static CStr,
    /// What else is to be known of it.
    pub more: &'static CStr,
    /// Who may set it.
    pub by: By,
    /// Its value, with the default.
    pub value: GucSetting<T>,
}

/// Who may set a setting.
#[derive(Clone, Copy)]
pub enum By {
    /// Every role, for its session.
    Everybody,
    /// A superuser, for a session, a role or a database.
    Superuser,
    /// postgresql.conf, when it is read again.
    File,
    /// postgresql.conf, when the server starts.
    Start,
}

impl From<By> for GucContext {
    fn from(by: By) -> Self {
        match by {
            By::Everybody => GucContext::Userset,
            By::Superuser => GucContext::Suset,
            By::File => GucContext::Sighup,
            By::Start => GucContext::Postmaster,
        }
    }
}

/// A setting that is a whole number.
pub struct Number {
    /// What it is a number of; without a flag: of things.
    pub unit: GucFlags,
    /// The numbers that it may be.
    pub range: RangeInclusive<i32>,
    /// All else.
    pub setting: Setting<i32>,
}

/// A setting that is on or off.
pub type Switch = Setting<bool>;
/// A setting that is a text.
pub type Text = Setting<Option<CString>>;

impl Number {
    /// Its value.
    pub fn get(&self) -> i32 {
        self.setting.value.get()
    }

    /// Makes it known to PostgreSQL.
    pub fn define(&'static self) {
        let (Setting { name, meaning, more, by, value }, range) = (&self.setting, &self.range);
        let (least, most) = (*range.start(), *range.end());
        GucRegistry::define_int_guc(
            name,
            meaning,
            more,
            value,
            least,
            most,
            (*by).into(),
            self.unit,
        );
    }
}

impl Switch {
    /// Makes it known to PostgreSQL.
    pub fn define_switch(&'static self) {
        let Setting { name, meaning, more, by, value } = self;
        GucRegistry::define_bool_guc(name, meaning, more, value, (*by).into(), GucFlags::empty());
    }
}

impl Text {
    /// Its value; empty where there is none.
    pub fn text(&self) -> String {
        self.value.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Makes it known to PostgreSQL.
    pub fn define_text(&'static self) {
        let Setting { name, meaning, more, by, value } = self;
        GucRegistry::define_string_guc(name, meaning, more, value, (*by).into(), GucFlags::empty());
    }
}

impl<T: GucEnum + GucValue> Setting<T> {
    /// Makes it known to PostgreSQL, as one of a few words.
    pub fn define_choice(&'static self) {
        let Setting { name, meaning, more, by, value } = self;
        GucRegistry::define_enum_guc(name, meaning, more, value, (*by).into(), GucFlags::empty());
    }
}
