//! What stands in braces in the text of a statement.

use crate::store::planner::MARK;
use crate::store::rows::Shape;
use crate::store::rows::hold::HOLD;
use crate::store::rows::ledger::LEDGER;
use crate::store::rows::level::LEVEL;
use crate::store::rows::lot::LOT;

/// What is overdue on a level by the time $1; it is only looked for where something may be.
const OVERDUE_UNITS: &str = "CASE WHEN level.next_due <= $1 THEN
        (SELECT pg_catalog.sum(h.quantity)::bigint FROM stock.hold h
          WHERE h.sku = level.sku AND h.location = level.location
            AND h.expires_at BETWEEN level.next_due AND $1)
      END AS overdue";

/// The next queue after one, by the index of queues: however long one is, it is looked at once.
const NEXT_QUEUE: &str = "SELECT next.sku, next.location
           FROM queue
          CROSS JOIN LATERAL (SELECT w.sku, w.location FROM stock.waiting w
                               WHERE (w.sku, w.location) > (queue.sku, queue.location)
                               ORDER BY w.sku, w.location LIMIT 1) next";

/// The text of a statement, with its words but those of what it is given: `{level}`, `{hold}`,
/// `{lot}` and `{ledger}` are the columns of these tables in their order.
pub fn spell_out(text: &str) -> String {
    let columns = |name: &str, table: &Shape| {
        let columns = table.columns.iter().map(|column| format!("{name}.{}", column.name));
        columns.collect::<Vec<_>>().join(", ")
    };
    let changes = LEVEL.columns.iter().filter(|column| !LEVEL.constant.contains(&column.name));
    let changes: Vec<String> =
        changes.map(|column| format!("{0} = given.{0}", column.name)).collect();
    let words = [
        ("{level}", columns("level", &LEVEL)),
        ("{hold}", columns("hold", &HOLD)),
        ("{lot}", columns("lot", &LOT)),
        ("{ledger}", columns("ledger", &LEDGER)),
        ("{changes of level}", changes.join(", ")),
        ("{overdue}", OVERDUE_UNITS.to_owned()),
        ("{each queue after}", NEXT_QUEUE.to_owned()),
    ];
    words.iter().fold(format!("{MARK}{text}"), |text, (word, meaning)| text.replace(word, meaning))
}
