//! Sends NOTIFY: the channels, the encoding, and the messages of a transaction that tells of
//! itself.

use pg_stock_core::feed::message::{self, AlertState, LevelState, LotState};
use pg_stock_core::feed::{Alert, alert};
use pg_stock_core::{Effects, Level, LevelId, Name, moment};
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::SpiResult;

use super::datum::{Row, bytes};
use super::rows::level_id;
use super::sql;
use crate::early;
use crate::settings::{self, Notify};

/// What is told where. Its name has a prefix, the setting `pg_stock.channel_prefix`.
#[derive(Clone, Copy, Debug)]
pub enum Channel {
    /// Levels that changed.
    Changed,
    /// Levels that are sold out, or below their safety stock, or no longer so; lots near their date
    /// or past it.
    Alert,
}

impl Channel {
    fn name(self) -> String {
        let prefix = settings::channel_prefix();
        match self {
            Channel::Changed => format!("{prefix}_changed"),
            Channel::Alert => format!("{prefix}_alert"),
        }
    }
}

/// Sends messages when the transaction commits; says how many.
pub fn send(channel: Channel, messages: &[String]) -> SpiResult<usize> {
    // A commit that lets go of its locks early could be heard before it is durable.
    if !messages.is_empty() {
        early::forbid();
    }
    let name = channel.name();
    for message in messages {
        sql::NOTIFY.execute(&[bytes(name.as_bytes()), bytes(message.as_bytes())])?;
    }
    Ok(messages.len())
}

/// Sends one that was made in SQL, in the encoding of the database, unless nobody is to send any.
pub fn send_text(channel: Channel, message: &[u8]) -> SpiResult<()> {
    if settings::notify() == Notify::Off {
        return Ok(());
    }
    early::forbid();
    sql::NOTIFY.execute(&[bytes(channel.name().as_bytes()), bytes(message)]).map(drop)
}

/// Tells of what this transaction changes, where the setting `pg_stock.notify` says that it does so
/// itself.
pub fn announce(effects: &Effects) -> SpiResult<()> {
    if settings::notify() != Notify::Transaction {
        return Ok(());
    }
    let named = |at: &LevelId, level: &Level| level_state(at, level);
    let levels: Vec<_> =
        effects.levels.iter().filter_map(|(at, change)| named(at, &change.after)).collect();
    let crossed = effects.levels.iter().flat_map(|(at, change)| {
        let before = |alert: Alert| change.before.as_ref().is_some_and(|level| alert.holds(level));
        alert::crossings(before, &change.after).into_iter().filter_map(move |(alert, begins)| {
            Some(AlertState::new(alert, begins, named(at, &change.after)?))
        })
    });
    send(Channel::Changed, &message::of_levels(None, &levels))?;
    send(Channel::Alert, &message::of_alerts(None, &crossed.collect::<Vec<_>>()))?;
    Ok(())
}

/// A level as it is told; `None` where its names are not text, as a database in SQL_ASCII allows.
pub fn level_state(at: &LevelId, level: &Level) -> Option<LevelState> {
    Some(LevelState::new(utf8(&at.sku)?, utf8(&at.location)?, level))
}

/// A lot whose date is near or past, as a statement finds it and as it is told (`None` where its
/// names are not text), and the alert.
pub fn lot_state(row: Row<'_>) -> (LevelId, Name, Option<LotState>, &'static str) {
    let (at, lot) = (level_id(row), row.name(2));
    let alert = if row.flag(6) { "lot_expired" } else { "lot_near_expiry" };
    let state = || {
        Some(LotState {
            alert,
            sku: utf8(&at.sku)?,
            location: utf8(&at.location)?,
            lot: utf8(&lot)?,
            best_before: row.opt_int(3).and_then(moment::iso),
            on_hand: row.int(4),
            reserved: row.int(5),
        })
    };
    let state = state();
    (at, lot, state, alert)
}

/// A name in UTF-8; `None` where it is not text.
fn utf8(name: &Name) -> Option<String> {
    let bytes = name.as_bytes();
    if is_encoded_in(&[pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII]) {
        return std::str::from_utf8(bytes).ok().map(str::to_owned);
    }
    let convert = || {
        let to = pg_sys::pg_enc::PG_UTF8 as i32;
        // SAFETY: the name is text of the database; the result is a C string, for the encodings
        // differ.
        let text = unsafe {
            std::ffi::CStr::from_ptr(pg_sys::pg_server_to_any(
                bytes.as_ptr().cast(),
                bytes.len() as i32,
                to,
            ))
        };
        text.to_str().ok().map(str::to_owned)
    };
    PgTryBuilder::new(convert)
        .catch_when(PgSqlErrorCode::ERRCODE_UNTRANSLATABLE_CHARACTER, |_| None)
        .catch_when(PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, |_| None)
        .execute()
}

/// Text that every encoding of a database can hold: Rust has it in UTF-8.
pub fn storable(text: &str) -> String {
    let utf8 = is_encoded_in(&[pg_sys::pg_enc::PG_UTF8]);
    text.chars().map(|letter| if utf8 || letter.is_ascii() { letter } else { '?' }).collect()
}

fn is_encoded_in(encodings: &[pg_sys::pg_enc::Type]) -> bool {
    // SAFETY: asks for a constant of the database.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    encodings.iter().any(|known| *known as i32 == encoding)
}
