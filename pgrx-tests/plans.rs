//! Room: src/store/planner.rs. Each statement of the engine has one plan, whatever is known of the
//! tables.

use pgrx::prelude::*;

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::CStr;

    use pgrx::prelude::*;

    use crate::store::sql::Statement;
    use crate::store::sql::{self, ALL};

    /// The plans of a statement, for one row and for many, as PostgreSQL writes them down.
    fn plans(statement: &Statement) -> Vec<String> {
        let written_down = |plan: pg_sys::SPIPlanPtr| {
            // SAFETY: inside a connection to SPI; the plan is released where it was taken.
            unsafe {
                let cached = pg_sys::SPI_plan_get_cached_plan(plan);
                let planned = pgrx::PgList::<pg_sys::PlannedStmt>::from_pg((*cached).stmt_list);
                let nodes = planned.head().expect("a statement");
                let text = CStr::from_ptr(pg_sys::nodeToString(nodes.cast()))
                    .to_string_lossy()
                    .into_owned();
                pg_sys::ReleaseCachedPlan(cached, pg_sys::CurrentResourceOwner);
                text
            }
        };
        Spi::connect_mut(|_| {
            statement.plans().expect("plans").into_iter().map(written_down).collect()
        })
    }

    /// The plans of all statements, made anew.
    fn all_plans() -> Vec<Vec<String>> {
        Spi::run("DISCARD PLANS").expect("no plans");
        ALL.iter().map(|statement| plans(statement)).collect()
    }

    const TABLES: [&str; 13] = [
        "level",
        "hold",
        "ledger",
        "buyer_quantity",
        "waiting",
        "shipment",
        "lot",
        "hold_lot",
        "ledger_lot",
        "feed",
        "alert",
        "hold_error",
        "maintenance_run",
    ];

    /// What PostgreSQL believes of the tables, for the worse.
    fn believe(sql: &str) {
        Spi::run(sql).expect(sql);
        for table in TABLES {
            Spi::run(&format!("ANALYZE stock.{table}")).expect("statistics");
        }
    }

    #[pg_test]
    fn every_statement_has_the_same_plan_whatever_is_known_of_the_tables() {
        let never_analysed = all_plans();
        believe("SELECT 1");
        let analysed_while_empty = all_plans();
        believe(
            "INSERT INTO stock.level (on_hand, reserved, version, updated_at, sku, location)
             SELECT 1, 0, 1, now(), 'a', 'x' || n FROM generate_series(1, 3000) n;
             INSERT INTO stock.hold (quantity, expires_at, reserved_at, line, key, sku, location)
             SELECT 1, 'infinity', now(), n, 'k', 'a', 'm' FROM generate_series(1, 3000) n;
             INSERT INTO stock.ledger (recorded_at, quantity, on_hand_delta, reserved_delta, line,
             key, operation, sku,
                                       location)
             SELECT now(), 1, 0, 0, n, 'k', 'reserve', 'a', 'm' FROM generate_series(1, 3000) n",
        );
        let all_alike = all_plans();
        // As if there were ten million rows, on nearly no pages.
        Spi::run(
            "UPDATE pg_class SET reltuples = 1e7, relpages = 3
              WHERE oid IN ('stock.level'::regclass, 'stock.hold'::regclass,
              'stock.ledger'::regclass)",
        )
        .expect("another belief");
        let dense = all_plans();
        Spi::run(
            "SET LOCAL enable_indexscan = off; SET LOCAL enable_nestloop = off;
             SET LOCAL random_page_cost = 1000;
             SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL work_mem = '64kB';
             SET LOCAL hash_mem_multiplier = 1000; SET LOCAL geqo_threshold = 2",
        )
        .expect("settings");
        let other_settings = all_plans();
        for (nth, statement) in ALL.iter().enumerate() {
            for other in [&analysed_while_empty, &all_alike, &dense, &other_settings] {
                assert_eq!(never_analysed[nth], other[nth], "{}", statement.text);
            }
        }
    }

    /// Statements that read a table from end to end by their nature: one row, or what is damaged,
    /// or all levels.
    fn reads_all(statement: &Statement) -> bool {
        let small = [
            "stock.ledger_position_seq s",
            "stock.waiting_position_seq s",
            "stock.feed",
            "FROM stock.hold_error",
        ];
        small.iter().any(|name| statement.text.contains(name))
            || std::ptr::eq(statement, &sql::ALARMING_LEVEL_ROWS)
    }

    #[pg_test]
    fn no_statement_reads_a_table_from_end_to_end() {
        for statement in ALL {
            for plan in plans(statement) {
                let scans =
                    plan.matches("{SEQSCAN").count() + plan.matches("{BITMAPHEAPSCAN").count();
                assert!(scans == 0 || reads_all(statement), "{}\n{plan}", statement.text);
                assert!(
                    !plan.contains("{HASHJOIN") && !plan.contains("{MERGEJOIN"),
                    "{}",
                    statement.text
                );
            }
        }
    }

    #[pg_test]
    fn no_statement_is_left_out_of_these_tests() {
        let texts = [
            include_str!("../src/store/sql/requests.rs"),
            include_str!("../src/store/sql/expiry.rs"),
            include_str!("../src/store/sql/feed.rs"),
        ];
        let declared: usize = texts.iter().map(|text| text.matches("pub static ").count()).sum();
        let distinct: BTreeSet<&str> = ALL.iter().map(|statement| statement.text).collect();
        assert_eq!(distinct.len(), declared);
    }
}
