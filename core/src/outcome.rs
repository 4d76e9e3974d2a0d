//! The closed list of answers.

/// The named answer to one line of a request.
///
/// The refusals stand in their order of precedence: where several apply to one line, the first is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "meaning() says what each one means")]
pub enum Outcome {
    Reserved,
    Sold,
    Confirmed,
    ConfirmedLate,
    Released,
    Cancelled,
    Returned,
    Extended,
    ExtendedLate,
    Reopened,
    Received,
    Adjusted,
    Set,
    Transferred,
    LimitsSet,
    Frozen,
    Unfrozen,
    KeyConflict,
    AlreadyConfirmed,
    AlreadyReleased,
    ReservationExpired,
    UnknownReservation,
    MoreThanHeld,
    UnknownLevel,
    LevelFrozen,
    VersionConflict,
    BuyerRequired,
    BuyerLimitExceeded,
    InsufficientStock,
    BelowReserved,
    NotApplied,
}

impl Outcome {
    /// Every outcome, successes first, then the refusals in their order of precedence.
    pub const ALL: [Outcome; 31] = [
        Outcome::Reserved,
        Outcome::Sold,
        Outcome::Confirmed,
        Outcome::ConfirmedLate,
        Outcome::Released,
        Outcome::Cancelled,
        Outcome::Returned,
        Outcome::Extended,
        Outcome::ExtendedLate,
        Outcome::Reopened,
        Outcome::Received,
        Outcome::Adjusted,
        Outcome::Set,
        Outcome::Transferred,
        Outcome::LimitsSet,
        Outcome::Frozen,
        Outcome::Unfrozen,
        Outcome::KeyConflict,
        Outcome::AlreadyConfirmed,
        Outcome::AlreadyReleased,
        Outcome::ReservationExpired,
        Outcome::UnknownReservation,
        Outcome::MoreThanHeld,
        Outcome::UnknownLevel,
        Outcome::LevelFrozen,
        Outcome::VersionConflict,
        Outcome::BuyerRequired,
        Outcome::BuyerLimitExceeded,
        Outcome::InsufficientStock,
        Outcome::BelowReserved,
        Outcome::NotApplied,
    ];

    /// Its word in the column `outcome`.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Reserved => "reserved",
            Outcome::Sold => "sold",
            Outcome::Confirmed => "confirmed",
            Outcome::ConfirmedLate => "confirmed_late",
            Outcome::Released => "released",
            Outcome::Cancelled => "cancelled",
            Outcome::Returned => "returned",
            Outcome::Extended => "extended",
            Outcome::ExtendedLate => "extended_late",
            Outcome::Reopened => "reopened",
            Outcome::Received => "received",
            Outcome::Adjusted => "adjusted",
            Outcome::Set => "set",
            Outcome::Transferred => "transferred",
            Outcome::LimitsSet => "limits_set",
            Outcome::Frozen => "frozen",
            Outcome::Unfrozen => "unfrozen",
            Outcome::KeyConflict => "key_conflict",
            Outcome::AlreadyConfirmed => "already_confirmed",
            Outcome::AlreadyReleased => "already_released",
            Outcome::ReservationExpired => "reservation_expired",
            Outcome::UnknownReservation => "unknown_reservation",
            Outcome::MoreThanHeld => "more_than_held",
            Outcome::UnknownLevel => "unknown_level",
            Outcome::LevelFrozen => "level_frozen",
            Outcome::VersionConflict => "version_conflict",
            Outcome::BuyerRequired => "buyer_required",
            Outcome::BuyerLimitExceeded => "buyer_limit_exceeded",
            Outcome::InsufficientStock => "insufficient_stock",
            Outcome::BelowReserved => "below_reserved",
            Outcome::NotApplied => "not_applied",
        }
    }

    /// The SQLSTATE the raising form uses; `None` for a success. Numbers are given once and never change.
    pub fn sqlstate(self) -> Option<&'static str> {
        Some(match self {
            Outcome::NotApplied => "ST000",
            Outcome::InsufficientStock => "ST001",
            Outcome::VersionConflict => "ST002",
            Outcome::KeyConflict => "ST003",
            Outcome::AlreadyConfirmed => "ST004",
            Outcome::AlreadyReleased => "ST005",
            Outcome::ReservationExpired => "ST006",
            Outcome::UnknownReservation => "ST007",
            Outcome::MoreThanHeld => "ST008",
            Outcome::UnknownLevel => "ST009",
            Outcome::LevelFrozen => "ST010",
            Outcome::BuyerRequired => "ST011",
            Outcome::BuyerLimitExceeded => "ST012",
            Outcome::BelowReserved => "ST013",
            _ => return None,
        })
    }

    /// True where nothing was changed because of it.
    pub fn is_refusal(self) -> bool {
        self.sqlstate().is_some()
    }

    /// What it means, in a clause: the message of the raising form and the text of the table in docs/reference.md.
    pub fn meaning(self) -> &'static str {
        match self {
            Outcome::Reserved => "the units are held until expires_at",
            Outcome::Sold => "the units are sold, without a hold in between",
            Outcome::Confirmed => "the held units have left the stock",
            Outcome::ConfirmedLate => "the hold had lapsed; the units were still there and have left the stock",
            Outcome::Released => "the held units are free again",
            Outcome::Cancelled => "nothing was known of the key; a reserve that arrives later is refused",
            Outcome::Returned => "the confirmed units are back in stock",
            Outcome::Extended => "the units are held until expires_at, which never moves back",
            Outcome::Reopened => "the key may be reserved again",
            Outcome::ExtendedLate => "the hold had lapsed; the units were still there and are held again",
            Outcome::Received => "the goods were added to the stock",
            Outcome::Adjusted => "the stock was corrected by the difference",
            Outcome::Set => "the stock was set to what was counted",
            Outcome::Transferred => "the goods were moved",
            Outcome::LimitsSet => "the limits were changed",
            Outcome::Frozen => "sales from the level are stopped",
            Outcome::Unfrozen => "sales from the level are allowed",
            Outcome::KeyConflict => "the key was used for another request",
            Outcome::AlreadyConfirmed => "the line is already confirmed",
            Outcome::AlreadyReleased => "the line is already released",
            Outcome::ReservationExpired => "the reservation has expired",
            Outcome::UnknownReservation => "no reservation has this key",
            Outcome::MoreThanHeld => "more units were named than the line has left",
            Outcome::UnknownLevel => "the SKU is not known at this location",
            Outcome::LevelFrozen => "the level is frozen",
            Outcome::VersionConflict => "the level has another version than expected",
            Outcome::BuyerRequired => "the level has a limit per buyer and no buyer was named",
            Outcome::BuyerLimitExceeded => "the buyer's limit would be exceeded",
            Outcome::InsufficientStock => "not enough stock is available",
            Outcome::BelowReserved => "the stock would fall below what is reserved",
            Outcome::NotApplied => "the line is sound, another line of the request was refused",
        }
    }

    /// The next step after a refusal.
    pub fn hint(self) -> &'static str {
        match self {
            Outcome::KeyConflict => {
                "Use a new key for a new request; see stock.reservation(key) for what this key did."
            }
            Outcome::AlreadyConfirmed => "Goods that were confirmed come back with stock.return_stock.",
            Outcome::AlreadyReleased => "Reserve again under a new key.",
            Outcome::ReservationExpired => {
                "Reserve again under a new key; stock.extend_reservation holds again what is still there, where the settings let it."
            }
            Outcome::UnknownReservation => {
                "Check the key; a reservation whose transaction was rolled back never existed."
            }
            Outcome::MoreThanHeld => "See stock.reservation(key) for what is left.",
            Outcome::UnknownLevel => {
                "Check the SKU and the location; stock.receive_stock and stock.set_stock create a level."
            }
            Outcome::LevelFrozen => "Wait until stock.unfreeze_level is called for it, or take another location.",
            Outcome::VersionConflict => {
                "Read the level again and decide anew; each hold that comes or goes raises the version, too."
            }
            Outcome::BuyerRequired => "Name the buyer.",
            Outcome::BuyerLimitExceeded => "Reserve fewer units.",
            Outcome::InsufficientStock => "Reserve fewer units, or take another location.",
            Outcome::BelowReserved => "Release or confirm holds first, or take fewer units.",
            _ => "",
        }
    }
}

/// What a line of a reservation is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The line belongs to no reservation.
    None,
    /// Units are held and the deadline has not passed.
    Held,
    /// Nothing is held; some or all units were confirmed.
    Confirmed,
    /// Nothing is held, nothing was confirmed; units were released.
    Released,
    /// The deadline passed before the units were confirmed or released.
    Expired,
    /// The key was released before it was reserved.
    Cancelled,
}

impl State {
    /// Its word in the column `state`.
    pub fn word(self) -> &'static str {
        match self {
            State::None => "none",
            State::Held => "held",
            State::Confirmed => "confirmed",
            State::Released => "released",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
        }
    }
}
