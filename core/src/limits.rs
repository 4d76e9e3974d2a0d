//! The limits on what a caller may send, and the checks that hold them: there is one on everything.
//!
//! A path is only made text of where there is a fault to name.

use std::fmt::Display;

use crate::facts::{ALWAYS, Micros, NEVER, SaleWindow};
use crate::fault::Fault;
use crate::moment;
use crate::name::Name;

/// Longest key, SKU, location or buyer, in bytes.
pub const NAME_BYTES_MAX: usize = 200;
/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 1_000;
/// Largest quantity and largest stock of one level, in units: exact in every language that reads
/// JSON numbers as doubles.
pub const QUANTITY_MAX: i64 = 1_000_000_000_000_000;
/// Most lines in one request.
pub const LINES_MAX: usize = 10_000;
/// Most requests in one batch.
pub const REQUESTS_MAX: usize = 10_000;
/// Most lines in all requests of one batch together.
pub const BATCH_LINES_MAX: usize = 100_000;
/// Largest JSON argument, in bytes as PostgreSQL stores it: more than any legal call needs whose
/// names are not all as long as they may be.
pub const JSON_BYTES_MAX: usize = 16 << 20;
/// Microseconds in a second.
pub const SECOND: Micros = 1_000_000;
/// Longest time, in microseconds, that a call may wait: a day.
pub const TIMEOUT_MAX: u64 = (24 * 3600 * SECOND) as u64;
/// Longest life that may be demanded of a lot: 100 years.
pub const SPAN_MAX: Micros = 36_525 * 24 * 3600 * SECOND;
/// Longest time to live of a hold: 366 days.
pub const TTL_MAX: Micros = 366 * 24 * 3600 * SECOND;

/// Refuses a JSON argument of more bytes than can be.
///
/// # Errors
/// A fault that names the argument.
pub fn json_size(path: &str, bytes: usize) -> Result<(), Fault> {
    if bytes <= JSON_BYTES_MAX {
        return Ok(());
    }
    Err(Fault::invalid(path, format!("{path} is too large"))
        .detail(format!("It has {bytes} bytes; at most {JSON_BYTES_MAX} are allowed."))
        .hint("Split the call."))
}

/// The key under which spoiled lots are booked.
pub const SPOIL_KEY: &str = "pg_stock:spoil";
/// What the keys begin with that pg_stock makes itself; no caller's may.
pub const OWN_PREFIX: &str = "pg_stock:";

/// Takes a SKU, location or buyer of 1 to 200 bytes: no control characters, and neither a blank nor
/// a byte order mark at either end, for these come from spreadsheets and forms and make another
/// name that looks the same.
pub fn name(path: impl Display + Copy, bytes: &[u8]) -> Result<Name, Fault> {
    match bytes.len() {
        0 => Err(Fault::invalid(path, format!("{path} must not be empty"))
            .hint(format!("Give 1 to {NAME_BYTES_MAX} bytes."))),
        n if n > NAME_BYTES_MAX => Err(Fault::invalid(path, format!("{path} is too long"))
            .detail(format!("It has {n} bytes; at most {NAME_BYTES_MAX} are allowed."))
            .hint("Use a shorter identifier.")),
        _ => match blemish(bytes) {
            Some(blemish) => Err(Fault::invalid(path, format!("{path} {blemish}"))
                .detail(format!("It is \"{}\".", bytes.escape_ascii()))
                .hint("Trim it where it comes from; other characters are taken as they are.")),
            None => Ok(Name::from(bytes)),
        },
    }
}

/// Takes the name of a lot; that of what came without one is empty.
pub fn lot(path: impl Display + Copy, bytes: &[u8]) -> Result<Name, Fault> {
    if bytes.is_empty() { Ok(Name::default()) } else { name(path, bytes) }
}

/// Takes a key or an operation key: a name that does not begin as those that pg_stock makes itself.
pub fn key(path: impl Display + Copy, bytes: &[u8]) -> Result<Name, Fault> {
    let name = name(path, bytes)?;
    if bytes.starts_with(OWN_PREFIX.as_bytes()) {
        return Err(Fault::invalid(path, format!("{path} must not begin with \"{OWN_PREFIX}\""))
            .detail(format!("It is \"{name}\"."))
            .hint("These are the keys that pg_stock makes itself; take another."));
    }
    Ok(name)
}

/// What makes a name unlike what is seen of it, if anything does. Where the bytes are not UTF-8,
/// ASCII alone is judged.
fn blemish(bytes: &[u8]) -> Option<&'static str> {
    let is_blank = |c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}');
    let (is_control, is_blank_at_an_end) = match std::str::from_utf8(bytes) {
        Ok(text) => (
            text.contains(char::is_control),
            text.starts_with(is_blank) || text.ends_with(is_blank),
        ),
        Err(_) => (bytes.iter().any(u8::is_ascii_control), bytes.trim_ascii().len() < bytes.len()),
    };
    match (is_control, is_blank_at_an_end) {
        (true, _) => Some("must not contain control characters"),
        (_, true) => Some("must not begin or end with a blank"),
        _ => None,
    }
}

/// Takes a reason of at most 1,000 bytes.
pub fn reason(path: impl Display + Copy, bytes: &[u8]) -> Result<Name, Fault> {
    if bytes.len() > REASON_BYTES_MAX {
        return Err(Fault::invalid(path, format!("{path} is too long"))
            .detail(format!(
                "It has {} bytes; at most {REASON_BYTES_MAX} are allowed.",
                bytes.len()
            ))
            .hint("Shorten it."));
    }
    Ok(Name::from(bytes))
}

/// Takes a quantity of 1 to 10^15 units.
pub fn quantity(path: impl Display + Copy, value: i64) -> Result<i64, Fault> {
    if value < 1 {
        return Err(Fault::invalid(path, format!("{path} must be at least 1"))
            .detail(format!("It is {value}."))
            .hint("Give the number of units as a positive integer."));
    }
    at_most(path, value)
}

/// Takes a stock or a limit of 0 to 10^15 units.
pub fn stock(path: impl Display + Copy, value: i64) -> Result<i64, Fault> {
    if value < 0 {
        return Err(Fault::invalid(path, format!("{path} must not be negative"))
            .detail(format!("It is {value}."))
            .hint("Give the number of units as 0 or a positive integer."));
    }
    at_most(path, value)
}

/// Takes a change of stock: not 0, and at most 10^15 units either way.
pub fn delta(path: impl Display + Copy, value: i64) -> Result<i64, Fault> {
    if value == 0 {
        return Err(Fault::invalid(path, format!("{path} must not be 0"))
            .hint("Give the units to add, or the units to take away as a negative number."));
    }
    if value < -QUANTITY_MAX {
        return Err(too_large(path, value));
    }
    at_most(path, value)
}

/// Takes a time to live of more than 0 and at most 366 days.
pub fn ttl(path: impl Display + Copy, micros: i128) -> Result<Micros, Fault> {
    let hint = "Give more than 0 and at most 366 days, '30 minutes' say.";
    if micros <= 0 {
        return Err(Fault::invalid(path, format!("{path} must be more than 0")).hint(hint));
    }
    match Micros::try_from(micros) {
        Ok(ttl) if ttl <= TTL_MAX => Ok(ttl),
        _ => Err(Fault::invalid(path, format!("{path} must be at most 366 days")).hint(hint)),
    }
}

/// Takes what is left until the deadline of an order that is held anew: a repeat may come later.
///
/// # Errors
/// Where nothing is.
pub fn time_left(ttl: Option<Micros>) -> Result<(), Fault> {
    if ttl.is_none_or(|ttl| ttl > 0) {
        return Ok(());
    }
    Err(Fault::invalid("expires_at", "expires_at must not be past")
        .hint("Leave out what nobody holds any more."))
}

/// Takes a time to live between two settings, which are named with their values.
pub fn ttl_between(
    path: impl Display + Copy,
    ttl: Micros,
    (least_name, least): (&str, Micros),
    (most_name, most): (&str, Micros),
) -> Result<Micros, Fault> {
    let seconds = |micros: Micros| format!("{} s", micros as f64 / SECOND as f64);
    let refused = |what: &str, name: &str, bound: Micros| {
        Err(Fault::invalid(path, format!("{path} must be {what} {}", seconds(bound)))
            .detail(format!("It is {}; {name} is set to {}.", seconds(ttl), seconds(bound)))
            .hint("Name the unit, '30 minutes' say: a number alone counts seconds."))
    };
    match ttl {
        ttl if ttl < least => refused("at least", least_name, least),
        ttl if ttl > most => refused("at most", most_name, most),
        ttl => Ok(ttl),
    }
}

/// Adds to a stock that may not exceed 10^15 units.
pub fn add_stock(stock: i64, added: i64) -> Result<i64, Fault> {
    add(stock, added, "on_hand", "the level would hold too many units")
}

/// Adds to what is on the road to a level, which may not exceed 10^15 units.
pub fn add_in_transit(in_transit: i64, added: i64) -> Result<i64, Fault> {
    add(in_transit, added, "in_transit", "too many units would be on the road to the level")
}

fn add(units: i64, added: i64, path: &str, message: &str) -> Result<i64, Fault> {
    match units.checked_add(added) {
        Some(sum) if sum <= QUANTITY_MAX => Ok(sum),
        _ => Err(Fault::overflow(path, message.to_owned())
            .detail(format!("It has {units}, {added} more would exceed {QUANTITY_MAX}."))
            .hint("Check the quantity.")),
    }
}

fn at_most(path: impl Display + Copy, value: i64) -> Result<i64, Fault> {
    if value > QUANTITY_MAX { Err(too_large(path, value)) } else { Ok(value) }
}

fn too_large(path: impl Display + Copy, value: impl Display) -> Fault {
    Fault::overflow(path, format!("{path} is out of range"))
        .detail(format!("It is {value}; at most {QUANTITY_MAX} units are allowed."))
        .hint("Check the quantity.")
}

/// Takes the moments between which a level is on sale; [`ALWAYS`] and [`NEVER`] lift a bound.
///
/// # Errors
/// Where one lies outside the years 1970 to 9999, or the second is not after the first.
pub fn sale_window(from: Option<Micros>, until: Option<Micros>) -> Result<SaleWindow, Fault> {
    for (path, at, lifts) in [("on_sale_from", from, ALWAYS), ("on_sale_until", until, NEVER)] {
        if at.is_some_and(|at| at != lifts && moment::iso(at).is_none()) {
            let word = if lifts == ALWAYS { "-infinity" } else { "infinity" };
            let message = format!("{path} must lie in the years 1970 to 9999, or be {word}");
            return Err(Fault::invalid(path, message).hint(format!(
                "'{word}' lifts the bound; stock.freeze_level stops a sale, or calls one off."
            )));
        }
    }
    sound_window(SaleWindow::default().with(from, until))
}

/// Takes the date of a lot: one of the years 1970 to 9999.
///
/// # Errors
/// Of every other one.
pub fn date(date: Micros) -> Result<Micros, Fault> {
    match moment::iso(date) {
        Some(_) => Ok(date),
        None => {
            let message = "best_before must lie in the years 1970 to 9999";
            Err(Fault::invalid("best_before", message)
                .hint("Leave it out where a lot has no date: such a lot is sold last."))
        }
    }
}

/// Takes the date of goods that come now: one that is not past.
///
/// # Errors
/// Of every other one.
pub fn date_to_come(date: Micros, now: Micros) -> Result<(), Fault> {
    if date > now {
        return Ok(());
    }
    Err(Fault::invalid("best_before", "best_before must not be past")
        .detail(format!("It is {}.", moment::iso(date).unwrap_or_default()))
        .hint("Goods past their date are not for sale; check the date."))
}

/// Takes a span of 0 to 100 years.
///
/// # Errors
/// Of every other one.
pub fn span(path: impl Display + Copy, micros: i128) -> Result<Micros, Fault> {
    match Micros::try_from(micros) {
        Ok(span) if (0..=SPAN_MAX).contains(&span) => Ok(span),
        _ => Err(Fault::invalid(path, format!("{path} must be at least 0 and at most 100 years"))
            .hint("Give an interval, '3 days' say.")),
    }
}

/// Takes how long somebody may wait: at most a day.
///
/// # Errors
/// Of a longer time.
pub fn timeout(path: impl Display + Copy, micros: i128) -> Result<u64, Fault> {
    let sound = u64::try_from(micros).ok().filter(|micros| *micros <= TIMEOUT_MAX);
    sound.ok_or_else(|| {
        Fault::invalid(path, format!("{path} must be at least 0 and at most a day"))
            .hint("Give an interval, '1 second' say.")
    })
}

/// Takes a sale window that ends after it opens.
///
/// # Errors
/// Of every other one.
pub fn sound_window(window: SaleWindow) -> Result<SaleWindow, Fault> {
    if window.is_sound() {
        return Ok(window);
    }
    let told = |bound: Option<_>| bound.and_then(moment::iso).unwrap_or_default();
    let (from, until) = (told(window.from), told(window.until));
    Err(Fault::invalid("on_sale_until", "on_sale_until is not after on_sale_from")
        .detail(format!("The sale would open at {from} and end at {until}."))
        .hint(
            "Give both ('-infinity' and 'infinity' lift them); stock.freeze_level stops a sale, or \
             calls one off.",
        ))
}
