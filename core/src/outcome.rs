//! The closed list of answers.

/// The named answer to one line of a request.
///
/// The refusals stand in their order of precedence: where several apply to one line, the first is
/// told.
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
    Dispatched,
    Arrived,
    Lost,
    Recalled,
    LimitsSet,
    Frozen,
    Unfrozen,
    LotsTracked,
    LotFrozen,
    LotUnfrozen,
    KeyConflict,
    AlreadyConfirmed,
    AlreadyReleased,
    ReservationExpired,
    UnknownReservation,
    MoreThanHeld,
    UnknownShipment,
    NotOnTheWay,
    UnknownLevel,
    LevelFrozen,
    NotOnSale,
    VersionConflict,
    BuyerRequired,
    BuyerLimitExceeded,
    LotRequired,
    UnknownLot,
    LotConflict,
    InsufficientStock,
    BelowReserved,
    NotApplied,
}

/// What there is to say of an outcome.
struct Row {
    outcome: Outcome,
    word: &'static str,
    sqlstate: Option<&'static str>,
    meaning: &'static str,
    hint: &'static str,
}

const fn success(outcome: Outcome, word: &'static str, meaning: &'static str) -> Row {
    Row { outcome, word, sqlstate: None, meaning, hint: "" }
}

const fn refusal(
    outcome: Outcome,
    sqlstate: &'static str,
    word: &'static str,
    meaning: &'static str,
    hint: &'static str,
) -> Row {
    Row { outcome, word, sqlstate: Some(sqlstate), meaning, hint }
}

/// Every outcome: its SQLSTATE (numbers are given once and never change), its word, what it means,
/// and the next step.
const ROWS: [Row; 44] = [
    success(Outcome::Reserved, "reserved", "the units are held until expires_at"),
    success(Outcome::Sold, "sold", "the units are sold, without a hold in between"),
    success(Outcome::Confirmed, "confirmed", "the held units have left the stock"),
    success(
        Outcome::ConfirmedLate,
        "confirmed_late",
        "the hold had lapsed; the units were still there and have left the stock",
    ),
    success(Outcome::Released, "released", "the held units are free again"),
    success(
        Outcome::Cancelled,
        "cancelled",
        "nothing was known of the key; a reserve that arrives later is refused",
    ),
    success(Outcome::Returned, "returned", "the confirmed units are back in stock"),
    success(
        Outcome::Extended,
        "extended",
        "the units are held until expires_at, which never moves back",
    ),
    success(
        Outcome::ExtendedLate,
        "extended_late",
        "the hold had lapsed; the units were still there and are held again",
    ),
    success(Outcome::Reopened, "reopened", "the key may be reserved again"),
    success(Outcome::Received, "received", "the goods were added to the stock"),
    success(Outcome::Adjusted, "adjusted", "the stock was corrected by the difference"),
    success(Outcome::Set, "set", "the stock was set to what was counted"),
    success(Outcome::Transferred, "transferred", "the goods were moved"),
    success(Outcome::Dispatched, "dispatched", "the goods have left and are on the way"),
    success(Outcome::Arrived, "arrived", "the goods that were on the way are in stock"),
    success(Outcome::Lost, "lost", "the goods that were on the way will not arrive"),
    success(Outcome::Recalled, "recalled", "the goods that were on the way have turned round"),
    success(Outcome::LimitsSet, "limits_set", "the limits were changed"),
    success(Outcome::Frozen, "frozen", "sales from the level are stopped"),
    success(Outcome::Unfrozen, "unfrozen", "sales from the level are allowed"),
    success(Outcome::LotsTracked, "lots_tracked", "each unit of the level lies in a lot"),
    success(Outcome::LotFrozen, "lot_frozen", "sales from the lot are stopped"),
    success(Outcome::LotUnfrozen, "lot_unfrozen", "sales from the lot are allowed"),
    refusal(
        Outcome::KeyConflict,
        "ST003",
        "key_conflict",
        "the key was used for another request",
        "Use a new key for a new request (or operation key, for another part); see \
         stock.reservation(key) and stock.ledger_rows for what this key did.",
    ),
    refusal(
        Outcome::AlreadyConfirmed,
        "ST004",
        "already_confirmed",
        "the line is already confirmed",
        "Goods that were confirmed come back with stock.return_stock.",
    ),
    refusal(
        Outcome::AlreadyReleased,
        "ST005",
        "already_released",
        "the line is already released",
        "Reserve again under a new key.",
    ),
    refusal(
        Outcome::ReservationExpired,
        "ST006",
        "reservation_expired",
        "the reservation has expired",
        "Reserve again under a new key; stock.extend_reservation holds again what is still there, \
         where the settings let it.",
    ),
    refusal(
        Outcome::UnknownReservation,
        "ST007",
        "unknown_reservation",
        "no reservation has this key",
        "Check the key; a reservation whose transaction was rolled back never existed.",
    ),
    refusal(
        Outcome::MoreThanHeld,
        "ST008",
        "more_than_held",
        "more units were named than the line has left",
        "See stock.reservation(key) for what is left.",
    ),
    refusal(
        Outcome::UnknownShipment,
        "ST015",
        "unknown_shipment",
        "nothing was dispatched under this key",
        "Check the key; a dispatch whose transaction was rolled back never existed.",
    ),
    refusal(
        Outcome::NotOnTheWay,
        "ST016",
        "not_on_the_way",
        "more units were named than are on the way there",
        "See stock.shipments for what is on the way; what came beside it is for \
         stock.receive_stock.",
    ),
    refusal(
        Outcome::UnknownLevel,
        "ST009",
        "unknown_level",
        "the SKU is not known at this location",
        "Check the SKU and the location; stock.receive_stock and stock.set_stock create a level.",
    ),
    refusal(
        Outcome::LevelFrozen,
        "ST010",
        "level_frozen",
        "the level is frozen",
        "Wait until stock.unfreeze_level is called for it, or take another location.",
    ),
    refusal(
        Outcome::NotOnSale,
        "ST014",
        "not_on_sale",
        "the level is not on sale at this moment",
        "Come back when the sale opens, where it is still to come, or take another location.",
    ),
    refusal(
        Outcome::VersionConflict,
        "ST002",
        "version_conflict",
        "the level has another version than expected",
        "Read the level again and decide anew; each hold that comes or goes raises the version, \
         too.",
    ),
    refusal(
        Outcome::BuyerRequired,
        "ST011",
        "buyer_required",
        "the level has a limit per buyer and no buyer was named",
        "Name the buyer.",
    ),
    refusal(
        Outcome::BuyerLimitExceeded,
        "ST012",
        "buyer_limit_exceeded",
        "the buyer's limit would be exceeded",
        "Reserve fewer units.",
    ),
    refusal(
        Outcome::LotRequired,
        "ST018",
        "lot_required",
        "the level has lots and no lot was named",
        "Name the lot; stock.lots tells which there are. (Goods that leave need it only where what \
         may be sold does not do.)",
    ),
    refusal(
        Outcome::UnknownLot,
        "ST019",
        "unknown_lot",
        "the level has no such lot",
        "Check the lot; stock.lots tells which there are, and stock.receive_stock makes one.",
    ),
    refusal(
        Outcome::LotConflict,
        "ST017",
        "lot_conflict",
        "the level has a lot of this name with another date",
        "Check the date; goods with another date are another lot.",
    ),
    refusal(
        Outcome::InsufficientStock,
        "ST001",
        "insufficient_stock",
        "not enough stock is available",
        "Reserve fewer units, or take another location.",
    ),
    refusal(
        Outcome::BelowReserved,
        "ST013",
        "below_reserved",
        "the stock would fall below what is reserved",
        "Release or confirm holds first, or take fewer units.",
    ),
    refusal(
        Outcome::NotApplied,
        "ST000",
        "not_applied",
        "the line is sound, another line of the request was refused",
        "",
    ),
];

impl Outcome {
    /// Every outcome, successes first, then the refusals in their order of precedence.
    pub const ALL: [Outcome; ROWS.len()] = {
        let mut all = [Outcome::Reserved; ROWS.len()];
        let mut at = 0;
        while at < ROWS.len() {
            assert!(ROWS[at].outcome as usize == at, "the rows stand in the order of the outcomes");
            all[at] = ROWS[at].outcome;
            at += 1;
        }
        all
    };

    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Its word in the column `outcome`.
    pub fn word(self) -> &'static str {
        self.row().word
    }

    /// The SQLSTATE the raising form uses; `None` for a success.
    pub fn sqlstate(self) -> Option<&'static str> {
        self.row().sqlstate
    }

    /// True where nothing was changed because of it.
    pub fn is_refusal(self) -> bool {
        self.sqlstate().is_some()
    }

    /// What it means, in a clause: the message of the raising form and the text of the table in
    /// docs/reference.md.
    pub fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// The next step after a refusal.
    pub fn hint(self) -> &'static str {
        self.row().hint
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
