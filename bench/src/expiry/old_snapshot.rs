//! What dead holds cost refusals and sweeps while an old snapshot keeps them, and their index
//! entries, alive.

use std::time::{Duration, Instant};

use pg_stock_tests::{Cluster, Database};
use postgres::Client;

use super::{
    Expiry, LEVELS, MAIN, expire_all, finish, load_overdue, ms, quiet_cluster, receive, settle,
    table,
};
use crate::median::median;

/// The SKU that half of the dead holds were on.
const HOT: &str = "sku-1";
/// Refusals in a row, in one transaction.
const IN_A_ROW: i32 = 100;
/// Such rows measured: 2,000 refusals.
const ROWS: usize = 20;
/// Sweeps measured.
const SWEEPS: usize = 20;
/// New sessions whose first sweep is measured.
const SESSIONS: usize = 5;
/// Holds that each of them closes.
const FRESH: i64 = 20;
/// Holds in each transaction of the sweep that makes the dead ones.
const BATCH: i32 = 10_000;

/// What was measured beside some dead holds.
struct Measured {
    /// Dead holds, as VACUUM counts them.
    dead: i64,
    /// In milliseconds: a refusal, a refusal while a hold is overdue, a sweep, the first sweep of a
    /// session.
    costs: [f64; 4],
}

/// Measures and prints the table; counts the breaches of the invariants.
pub fn run(expiry: &Expiry) -> usize {
    println!(
        "Old snapshot: refusals on {HOT}, which half of the dead holds were on, and sweeps of \
         {FRESH} holds"
    );
    let cluster = quiet_cluster();
    let (mut all, mut breaches) = (Vec::new(), 0);
    for dead in &expiry.dead {
        let (measured, broken) = beside(&cluster, *dead);
        println!("{dead} dead holds: {:.3?} ms", measured.costs);
        all.push(measured);
        breaches += broken;
    }
    show(&all);
    breaches
}

/// Measures beside this many dead holds, on a database of its own; also counts the breaches of the
/// invariants.
fn beside(cluster: &Cluster, dead: i64) -> (Measured, usize) {
    let database = cluster.database();
    let mut sweeper = database.connect();
    receive(&mut sweeper, LEVELS);
    settle(&mut sweeper);
    let reader = old_snapshot(database);
    load_overdue(&mut sweeper, "hot ", 1, 1, dead / 2);
    load_overdue(&mut sweeper, "other ", 2, LEVELS - 1, dead - dead / 2);
    assert_eq!(expire_all(&mut sweeper, BATCH).0, dead, "all are swept");
    let dead = count_dead(&mut sweeper);
    let [refusal, refusal_overdue] = refusals(&mut database.connect());
    let costs = [refusal, refusal_overdue, sweeps(&mut sweeper), first_sweeps(database)];
    drop(reader);
    (Measured { dead, costs }, finish(database))
}

/// Vacuums, and counts the dead holds that VACUUM could not remove.
fn count_dead(client: &mut Client) -> i64 {
    // What this session has not reported yet would distort the count.
    client.batch_execute("SELECT pg_stat_force_next_flush()").expect("statistics");
    settle(client);
    let counted = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'stock.hold'::regclass";
    client.query_one(counted, &[]).expect(counted).get(0)
}

/// A session that began to read before anything happened, and has not ended.
fn old_snapshot(database: Database<'_>) -> Client {
    let mut reader = database.connect();
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM stock.level LIMIT 1";
    reader.batch_execute(begin).expect("a snapshot");
    reader
}

/// The median refusals of two units where one is left: while it is free, and while an overdue hold
/// has it.
fn refusals(client: &mut Client) -> [f64; 2] {
    let rest = "SELECT count(*) FROM stock.reserve_stock('rest', $1, $2, stock.available($1, $2) - \
                1, '1 day')";
    client.execute(rest, &[&HOT, &MAIN]).expect("all but one are held");
    let free = refusal(client);
    let last = "SELECT count(*) FROM stock.reserve_stock('last', $1, $2, 1, '1 ms')";
    client.execute(last, &[&HOT, &MAIN]).expect("the last one is held");
    lapse();
    [free, refusal(client)]
}

/// The median refusal in a session that has its plans, by the server's clock: the way to it and
/// back takes longer, and at times twice as long as at others.
fn refusal(client: &mut Client) -> f64 {
    client.batch_execute(include_str!("../../sql/refusals.sql")).expect("a stopwatch");
    let call = client.prepare("SELECT pg_temp.refusals($1, $2, $3)").expect("a call");
    let mut once = || client.query(&call, &[&HOT, &MAIN, &IN_A_ROW]).expect("refusals");
    once();
    let costs: Vec<f64> = (0..ROWS).flat_map(|_| once()).map(|row| row.get(0)).collect();
    median(&costs)
}

/// The median sweep of a session that has swept before.
fn sweeps(client: &mut Client) -> f64 {
    // The overdue hold on the hot SKU is none of those that are measured.
    sweep(client);
    let once = |round| {
        reserve_briefly(client, &format!("fresh {round}"));
        let (holds, took) = sweep(client);
        assert_eq!(holds, FRESH, "each sweep closes its own");
        took
    };
    median(&(0..SWEEPS).map(once).collect::<Vec<_>>())
}

/// The median first sweep of a new session, which looks at everything.
fn first_sweeps(database: Database<'_>) -> f64 {
    let once = |session| {
        let mut client = database.connect();
        reserve_briefly(&mut client, &format!("first {session}"));
        let (holds, took) = sweep(&mut client);
        assert_eq!(holds, FRESH, "it closes what is overdue");
        took
    };
    median(&(0..SESSIONS).map(once).collect::<Vec<_>>())
}

/// Makes fresh overdue holds, each on a level of its own, none on the hot SKU.
fn reserve_briefly(client: &mut Client, name: &str) {
    let sql = "SELECT count(*) FROM generate_series(1, $1::bigint) i,
               LATERAL stock.reserve_stock($2 || ' ' || i, 'sku-' || i + 1, $3, 1, '1 ms')";
    client.execute(sql, &[&FRESH, &name, &MAIN]).expect("holds");
    lapse();
}

/// Waits until holds of a millisecond are overdue.
fn lapse() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Sweeps once; gives the number of holds, and the milliseconds.
fn sweep(client: &mut Client) -> (i64, f64) {
    let begin = Instant::now();
    let row =
        client.query_one("SELECT * FROM stock.expire_reservations(1000)", &[]).expect("a sweep");
    (row.get("holds_expired"), ms(begin.elapsed()))
}

/// Prints the table, with the growth against its first row.
fn show(all: &[Measured]) {
    let mut table = table([
        "dead holds",
        "refusal ms",
        "refusal beside an overdue hold ms",
        "sweep ms",
        "first sweep of a session ms",
    ]);
    for measured in all {
        let costs = measured.costs.iter().zip(&all[0].costs);
        let costs = costs.map(|(cost, first)| format!("{cost:.3} ({:.2})", cost / first));
        table.add_row(std::iter::once(measured.dead.to_string()).chain(costs));
    }
    println!("\nIn brackets: growth against the first row.\n\n{table}\n");
}
