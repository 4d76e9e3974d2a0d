//! What it takes to load a shop: an import of many levels, once more as a repeat, beside an INSERT
//! into a bare table with the constraints and indexes of the levels.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use comfy_table::{Table, presets};
use pg_stock_tests::{Cluster, invariants};
use postgres::Client;

use crate::median::{median, sorted};

/// How much, and how often.
#[derive(Args)]
pub struct Import {
    /// Levels
    #[arg(long, default_value_t = 200_000)]
    levels: i64,
    /// Rounds, each in a database of its own
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures, and prints the table.
pub fn run(asked: &Import) -> ExitCode {
    let cluster = Cluster::start(&["shared_buffers=1GB", "max_wal_size=4GB"]);
    let names = ["INSERT into a bare table", "import", "the same import again", "verify()"];
    let mut seconds: [Vec<f64>; 4] = Default::default();
    let mut wrong = 0;
    for _ in 0..asked.rounds {
        let mut client = cluster.database().connect();
        prepare(&mut client, asked.levels);
        let mut time = |place: usize, sql: &str| {
            let begin = Instant::now();
            client.batch_execute(sql).expect(sql);
            seconds[place].push(begin.elapsed().as_secs_f64());
        };
        time(
            0,
            "INSERT INTO bare (on_hand, sku, location) SELECT on_hand, sku, location FROM goods",
        );
        time(1, "CALL stock.import('load', 'goods')");
        time(2, "CALL stock.import('load', 'goods')");
        time(3, "SELECT * FROM stock.verify()");
        wrong += missing(&mut client, asked.levels);
        wrong += invariants::check(&mut client).iter().map(|(_, count)| count).sum::<usize>();
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([format!("{} levels", asked.levels), "seconds".into(), "a second".into()]);
    for (name, seconds) in names.iter().zip(&seconds) {
        let (middle, all) = (median(seconds), sorted(seconds));
        table.add_row([
            (*name).to_owned(),
            format!("{middle:.1} ({:.1}-{:.1})", all[0], all[all.len() - 1]),
            format!("{:.0}", asked.levels as f64 / middle),
        ]);
    }
    println!("Medians of {} rounds\n{table}", asked.rounds);
    println!("Levels that are missing or wrong, and breaches of the invariants: {wrong}");
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prepare(client: &mut Client, levels: i64) {
    client
        .batch_execute(&format!(
            "CREATE TABLE goods AS
             SELECT 'sku ' || n AS sku, 'm' AS location, 1 + n % 100 AS on_hand
               FROM generate_series(1, {levels}) n;
             CREATE TABLE bare (LIKE stock.level INCLUDING ALL);
             DO $$ DECLARE c record; BEGIN
               FOR c IN SELECT attname FROM pg_attribute
                         WHERE attrelid = 'bare'::regclass AND attnum > 0 AND attnotnull
                           AND NOT atthasdef AND attname NOT IN ('sku', 'location', 'on_hand')
               LOOP EXECUTE format('ALTER TABLE bare ALTER %I DROP NOT NULL', c.attname); END LOOP;
             END $$"
        ))
        .expect("goods");
}

fn missing(client: &mut Client, levels: i64) -> usize {
    let sql = "SELECT count(*) FROM goods g JOIN stock.level l USING (sku, location)
                WHERE l.on_hand = g.on_hand";
    let found: i64 = client.query_one(sql, &[]).expect(sql).get(0);
    usize::try_from(levels - found).expect("no level twice")
}
