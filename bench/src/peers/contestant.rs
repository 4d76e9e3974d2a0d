//! Who takes part: their names, what they can do, and how a session of each is opened.

use clap::ValueEnum;

use super::work::Work;

/// A contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contestant {
    /// A bare conditional UPDATE
    Update,
    /// A plain SELECT of the level by its primary key
    Select,
    /// The application's own transaction
    Transaction,
    /// A hand-written PL/pgSQL function
    Function,
    /// The same with pg_notify in it, and one listener
    #[value(name = "function+notify")]
    FunctionNotify,
    /// Redis with a Lua script, its log flushed with every write
    RedisAlways,
    /// Redis with a Lua script, its log flushed once a second
    RedisEverysec,
    /// try_reserve_stock
    #[value(name = "pg_stock")]
    PgStock,
    /// reserve_stock, which raises a refusal
    #[value(name = "pg_stock-raise")]
    PgStockRaise,
    /// try_reserve_stock without early lock release
    #[value(name = "pg_stock-off")]
    PgStockOff,
    /// try_reserve_stock by SQL statements, without direct access to the tables
    #[value(name = "pg_stock-sql")]
    PgStockSql,
    /// The order's own row and its reserve, in one statement
    #[value(name = "order-statement")]
    OrderStatement,
    /// BEGIN, the order's own row, its reserve, COMMIT, as installed
    #[value(name = "order-block")]
    OrderBlock,
    /// The same without early lock release
    #[value(name = "order-block-off")]
    OrderBlockOff,
    /// The same with early lock release also of transactions
    #[value(name = "order-block-transaction")]
    OrderBlockTransaction,
    /// reserve_many with 10 orders in each call
    #[value(name = "pg_stock-batch-10")]
    Batch10,
    /// reserve_many with 100 orders in each call
    #[value(name = "pg_stock-batch-100")]
    Batch100,
    /// reserve_many with 1,000 orders in each call
    #[value(name = "pg_stock-batch-1000")]
    Batch1000,
}

use Contestant::{
    Batch10, Batch100, Batch1000, Function, FunctionNotify, OrderBlock, OrderBlockOff,
    OrderBlockTransaction, OrderStatement, PgStock, PgStockOff, PgStockRaise, PgStockSql,
    RedisAlways, RedisEverysec, Select, Transaction, Update,
};

impl Contestant {
    /// Its name, as one types it.
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }

    /// Who does this work; in the short form those that a goal speaks of, and the two that
    /// everybody knows.
    pub fn of(work: Work, full: bool) -> &'static [Contestant] {
        match (work, full) {
            (Work::Spread | Work::Hot, true) => &[
                Update,
                Transaction,
                Function,
                FunctionNotify,
                RedisAlways,
                RedisEverysec,
                PgStock,
                PgStockRaise,
                PgStockOff,
                PgStockSql,
                OrderStatement,
                OrderBlock,
                OrderBlockOff,
                OrderBlockTransaction,
                Batch10,
                Batch100,
                Batch1000,
            ],
            (Work::Spread | Work::Hot, false) => &[
                Update,
                Transaction,
                Function,
                RedisAlways,
                RedisEverysec,
                PgStock,
                PgStockRaise,
                PgStockOff,
                PgStockSql,
                Batch1000,
            ],
            (Work::Soldout, true) => &[
                Select,
                Update,
                Transaction,
                Function,
                RedisAlways,
                RedisEverysec,
                PgStock,
                PgStockRaise,
            ],
            (Work::Soldout, false) => &[Select, Function, RedisAlways, PgStock, PgStockRaise],
            (Work::Lines5, _) => &[Transaction, Function, PgStock],
            (Work::Duplicates, _) => &[Transaction, Function, RedisAlways, RedisEverysec, PgStock],
        }
    }

    /// How many orders one call carries.
    pub fn batch(self) -> usize {
        match self {
            Batch10 => 10,
            Batch100 => 100,
            Batch1000 => 1_000,
            _ => 1,
        }
    }

    /// How its log is flushed, if it is Redis.
    pub fn redis(self) -> Option<&'static str> {
        match self {
            RedisAlways => Some("always"),
            RedisEverysec => Some("everysec"),
            _ => None,
        }
    }

    /// What its sessions set first.
    pub fn setting(self) -> &'static str {
        match self {
            PgStockOff | OrderBlockOff => "SET pg_stock.early_lock_release = off",
            OrderBlockTransaction => "SET pg_stock.early_lock_release = transaction",
            PgStockSql => "SET pg_stock.direct_access = off",
            _ => "",
        }
    }

    /// Whether it orders in a transaction block.
    pub fn is_block(self) -> bool {
        matches!(self, OrderBlock | OrderBlockOff | OrderBlockTransaction)
    }

    /// The statement that it sends for an order of this work; of one that sends several, none.
    ///
    /// Parameters: the key and the SKU; of several lines the key and the lines in JSON; of a batch
    /// the requests in JSON; of `update` and `select` the SKU.
    pub fn statement(self, work: Work) -> Option<&'static str> {
        let lines = work == Work::Lines5;
        Some(match self {
            Update => {
                "UPDATE hand.level SET reserved = reserved + 1
                  WHERE sku = $1 AND location = 'main' AND on_hand - reserved >= 1"
            }
            Select => {
                "SELECT on_hand, reserved FROM stock.level WHERE sku = $1 AND location = 'main'"
            }
            Function if lines => {
                "SELECT outcome, replayed FROM hand.reserve_lines($1, ($2::text)::jsonb)"
            }
            Function => "SELECT outcome, replayed FROM hand.reserve($1, $2, 'main', 1)",
            FunctionNotify => "SELECT outcome, replayed FROM hand.reserve($1, $2, 'main', 1, true)",
            PgStock | PgStockOff | PgStockSql if lines => {
                "SELECT outcome, replayed FROM stock.try_reserve_stock($1, ($2::text)::jsonb)"
            }
            PgStock | PgStockOff | PgStockSql => {
                "SELECT outcome, replayed FROM stock.try_reserve_stock($1, $2, 'main', 1)"
            }
            PgStockRaise => "SELECT outcome, replayed FROM stock.reserve_stock($1, $2, 'main', 1)",
            OrderStatement => {
                "WITH placed AS (INSERT INTO hand.orders (key, sku) VALUES ($1, $2) RETURNING key,
                 sku)
                 SELECT reserved.outcome, reserved.replayed
                   FROM placed, stock.reserve_stock(placed.key, placed.sku, 'main', 1) reserved"
            }
            Batch10 | Batch100 | Batch1000 => {
                "SELECT request, outcome, replayed FROM stock.reserve_many(($1::text)::jsonb)"
            }
            Transaction | RedisAlways | RedisEverysec => return None,
            OrderBlock | OrderBlockOff | OrderBlockTransaction => return None,
        })
    }
}
