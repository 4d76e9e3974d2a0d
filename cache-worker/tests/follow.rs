//! The worker follows: a sale shows, whatever the mode, and a restart misses nothing.

use super::support::metrics::{free_address, gauge, get, metric};
use super::support::shop::{layout, sell};
use super::support::{Shop, eventually, report};

#[test]
fn a_sale_shows_in_the_cache() {
    let shop = Shop::open();
    shop.stock(3);
    let _worker = shop.worker_in_step(&[]);
    let mut client = shop.connect();
    for _ in 0..20 {
        sell(&mut client, "s1");
    }
    let database = shop.in_database();
    println!("a sale showed after {:?}", eventually("it shows", || shop.in_cache() == database));
    assert_eq!(shop.in_cache()[&("s1".to_owned(), "main".to_owned())].on_hand, 999_980);
}

/// No heartbeat comes in the time of a test.
const NO_HEARTBEAT: &[&str] = &["--heartbeat", "1h", "--check-every", "1h"];

/// Waits until the cache equals the database, whatever it says of itself.
fn shows(shop: &Shop<'_>) {
    let database = shop.in_database();
    eventually("it shows", || shop.in_cache() == database);
}

/// Tells who sends notifications of this database.
fn set_notify(shop: &Shop<'_>, mode: &str) {
    let sql = format!("ALTER DATABASE {} SET pg_stock.notify = {mode}", shop.database.name());
    shop.connect().batch_execute(&sql).expect("a setting");
}

#[test]
fn notifications_alone_keep_it_in_step_and_move_the_cursor() {
    let shop = Shop::open();
    shop.stock(2_000);
    let address = free_address();
    let worker = shop.worker_in_step(&[NO_HEARTBEAT, &["--metrics-address", &address]].concat());
    shop.sell("s1");
    shows(&shop);
    let (cursor, pulls) = (shop.cursor(), metric(&address, "pulls_total"));
    // Emissions of one part and of many.
    for round in 0..30 {
        shop.sell("s2");
        shop.change(if round % 10 == 0 { 2_000 } else { 20 }, 2_000);
    }
    shows(&shop);
    eventually("the cursor moves", || shop.cursor() != cursor);
    assert_eq!(
        metric(&address, "gaps_total"),
        1,
        "the first message, of a life unknown so far\n{}",
        worker.log()
    );
    assert_eq!(metric(&address, "pulls_total"), pulls, "the database was not asked");
    assert!(metric(&address, "messages_total") > 30);
    // The cursor that came by notification is good for a successor.
    let epoch = shop.epoch();
    worker.kill();
    shop.change(100, 2_000);
    let _worker = shop.worker_in_step(&[]);
    assert_eq!(shop.epoch(), epoch);
}

#[test]
fn transactions_that_tell_of_themselves_are_enough() {
    let shop = Shop::open();
    set_notify(&shop, "transaction");
    shop.stock(300);
    let _worker = shop.worker_in_step(NO_HEARTBEAT);
    shop.change(1_000, 300);
    shop.sell("s3");
    shows(&shop);
}

#[test]
fn without_notifications_the_heartbeat_is_enough() {
    let shop = Shop::open();
    set_notify(&shop, "off");
    shop.stock(300);
    let _worker = shop.worker_in_step(&[]);
    shop.change(1_000, 300);
    shop.in_step();
}

/// A message that nobody but a forger sends: nothing may ever be newer.
const FORGED: &str = r#"{"levels":[{"sku":"s1","location":"main","on_hand":5,"reserved":0,"safety_stock":0,"available":5,
    "frozen":false,"version":4503599627370496}]}"#;

#[test]
fn nonsense_on_the_channel_makes_it_ask_and_a_forged_level_is_found_by_the_check() {
    let shop = Shop::open();
    shop.stock(200);
    let worker = shop.worker_in_step(&["--check-every", "1s", "--check-percent", "100"]);
    for text in [
        "nonsense",
        "{}",
        "[]",
        r#"{"levels":7}"#,
        r#"{"generation":"x","sequence":5,"part":9,"parts":1,"levels":[]}"#,
    ] {
        shop.connect().query("SELECT pg_notify('stock_changed', $1)", &[&text]).expect("a message");
    }
    shop.connect().query("SELECT pg_notify('stock_changed', $1)", &[&FORGED]).expect("a message");
    eventually("the check finds it", || worker.log().contains("a wrong entry is put right"));
    shop.sell("s1");
    shop.in_step();
    assert!(worker.log().contains("not understood"), "{}", worker.log());
}

/// Sends a message that is so many emissions ahead, with a cursor that is none.
fn forge_cursor(shop: &Shop<'_>, ahead: i64) {
    let sql = "SELECT pg_notify('stock_changed', json_build_object('generation', generation,
               'sequence', sequence + $1,
        'part', 1, 'parts', 1, 'levels', '[]'::json, 'cursor', 'forged')::text)
        FROM stock.feed_lag";
    shop.connect().query(sql, &[&ahead]).expect("a message");
}

#[test]
fn a_message_after_a_gap_makes_it_ask_and_its_cursor_is_not_taken_over() {
    let shop = Shop::open();
    shop.stock(20);
    let address = free_address();
    let _worker = shop.worker_in_step(&[NO_HEARTBEAT, &["--metrics-address", &address]].concat());
    let epoch = shop.epoch();
    for _ in 0..5 {
        // The first message is of an unknown life, or comes after a forged one.
        for _ in 0..2 {
            let cursor = shop.cursor();
            shop.sell("s1");
            eventually("the cursor moves", || shop.cursor() != cursor);
        }
        let gaps = metric(&address, "gaps_total");
        forge_cursor(&shop, 9);
        eventually("it asks", || metric(&address, "gaps_total") == gaps + 1);
        assert_ne!(shop.cursor().as_deref(), Some("forged"));
        shows(&shop);
    }
    assert_eq!(shop.epoch(), epoch, "no rebuild");
}

#[test]
fn a_cursor_that_is_none_ends_in_a_rebuild() {
    let shop = Shop::open();
    shop.stock(20);
    let _worker = shop.worker_in_step(&[]);
    let epoch = shop.epoch();
    let _: i64 = shop.redis.run(&["HSET", &layout().state(), "cursor", "forged"]);
    shop.in_step();
    assert!(shop.epoch() > epoch);
}

#[test]
fn a_worker_that_is_only_woken_believes_no_message() {
    let shop = Shop::open();
    shop.stock(20);
    let worker = shop.worker_in_step(&[NO_HEARTBEAT, &["--only-wake"]].concat());
    shop.connect().query("SELECT pg_notify('stock_changed', $1)", &[&FORGED]).expect("a message");
    for _ in 0..20 {
        shop.change(10, 20);
        shows(&shop);
    }
    assert!(!worker.log().contains("WARN"), "{}", worker.log());
}

#[test]
fn strange_names_show_as_they_are() {
    let shop = Shop::open();
    let _worker = shop.worker_in_step(&[]);
    let names =
        ["a:b", "%", "%3A", "ä 'quoted' \"twice\" \\", "\u{1F34E}", "{tag}", "*", "two  blanks"];
    for (nth, name) in names.iter().enumerate() {
        let sql = "SELECT 1 FROM stock.receive_stock($1, $2, $3, 5)";
        shop.connect()
            .query(sql, &[&format!("d{nth}"), name, &names[names.len() - 1 - nth]])
            .expect("goods");
    }
    shop.in_step();
    assert_eq!(shop.in_cache().len(), names.len());
}

#[test]
fn what_changed_while_nobody_followed_is_caught_up() {
    let shop = Shop::open();
    shop.stock(50);
    let mut worker = shop.worker_in_step(&[]);
    let epoch = shop.epoch();
    worker.ask_to_stop();
    assert!(worker.end().success());
    shop.change(10_000, 50);
    let _worker = shop.worker(&[]);
    report("10,000 changes while it was away", shop.in_step());
    assert_eq!(shop.epoch(), epoch, "it was caught up, not rebuilt");
}

#[test]
fn once_gets_in_step_and_ends() {
    let shop = Shop::open();
    shop.stock(1_000);
    let mut worker = shop.worker(&["--once"]);
    assert!(worker.end().success());
    assert_eq!(shop.in_cache(), shop.in_database());
    let epoch = shop.epoch();
    shop.sell("s7");
    let mut worker = shop.worker(&["--once"]);
    assert!(worker.end().success());
    assert_eq!(shop.in_cache(), shop.in_database());
    assert_eq!(shop.epoch(), epoch);
}

#[test]
fn a_request_to_stop_ends_it_well_while_it_works() {
    let shop = Shop::open();
    shop.stock(10);
    let mut worker = shop.worker_in_step(&[]);
    shop.change(1_000, 10);
    worker.ask_to_stop();
    assert!(worker.end().success(), "{}", worker.log());
    // What it wrote and the cursor agree: the next one needs no rebuild.
    let epoch = shop.epoch();
    let _worker = shop.worker_in_step(&[]);
    assert_eq!(shop.epoch(), epoch);
}

#[test]
fn an_impossible_address_ends_it_at_once_with_a_message() {
    let mut worker = super::support::Worker::start("host=h", "http://nowhere", &[]);
    assert_eq!(worker.end().code(), Some(2));
    assert!(worker.log().contains("--redis"), "{}", worker.log());
}

#[test]
fn two_workers_do_no_harm_and_one_goes_on_alone() {
    let shop = Shop::open();
    shop.stock(20);
    let first = shop.worker_in_step(&[]);
    let second = shop.worker(&[]);
    let epoch = shop.epoch();
    for _ in 0..20 {
        shop.change(50, 20);
        shop.in_step();
    }
    first.kill();
    shop.change(50, 20);
    shop.in_step();
    assert_eq!(shop.epoch(), epoch, "nobody rebuilt:\n{}", second.log());
}

#[test]
fn a_metric_tells_how_it_goes() {
    let shop = Shop::open();
    shop.stock(3);
    let address = free_address();
    let _worker = shop.worker_in_step(&["--metrics-address", &address]);
    let mut text = String::new();
    eventually("metrics", || {
        text = get(&address);
        text.contains("pg_stock_cache_in_step_age_seconds 0.")
    });
    assert!(text.contains("pg_stock_cache_entries_written_total 3"), "{text}");
    assert!(text.contains("pg_stock_cache_rebuilds_total 1"), "{text}");
    assert!(text.contains("pg_stock_cache_redis_full_total 0"), "{text}");
}

#[test]
fn an_absence_gives_way_as_soon_as_the_level_appears() {
    let shop = Shop::open();
    let _worker = shop.worker_in_step(&[]);
    let key = layout().level("s0", "main");
    let absence =
        format!(r#"{{"absent":true,"sku":"s0","location":"main","epoch":{}}}"#, shop.epoch());
    let () = shop.redis.run(&["SET", &key, &absence, "EX", "60"]);
    shop.stock(1);
    shop.in_step();
    let text: String = shop.redis.run(&["GET", &key]);
    assert!(text.contains(r#""on_hand":1000000"#), "{text}");
}

/// How long ago a level changed, by the clock of the database, in seconds.
fn age(shop: &Shop<'_>, sku: &str) -> f64 {
    let sql = "SELECT extract(epoch FROM clock_timestamp() - updated_at)::float8
                 FROM stock.levels WHERE sku = $1";
    shop.connect().query_one(sql, &[&sku]).expect("a level").get(0)
}

#[test]
fn the_lag_is_the_age_of_the_oldest_change_when_it_was_read() {
    let shop = Shop::open();
    set_notify(&shop, "off");
    shop.stock(2);
    assert!(shop.worker(&["--once"]).end().success());
    shop.sell("s0");
    eventually("it has an age", || age(&shop, "s0") > 3.0);
    shop.sell("s1");
    let address = free_address();
    let _worker = shop.worker_in_step(&["--metrics-address", &address]);
    let lag = gauge(&address, "lag_seconds").expect("a lag");
    assert!((3.0..=age(&shop, "s0")).contains(&lag), "{lag}");
    shop.sell("s1");
    shop.in_step();
    let next = gauge(&address, "lag_seconds").expect("a lag");
    assert!(next < 3.0, "the heartbeat reads the next one soon: {next}");
}
