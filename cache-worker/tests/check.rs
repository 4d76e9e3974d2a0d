//! The scheduled check finds what was falsified, and rebuilds everything if it is too much.

use postgres::fallible_iterator::FallibleIterator;

use super::support::metrics::{free_address, metric};
use super::support::shop::layout;
use super::support::{Shop, Worker, eventually, report};

/// Stocks as many SKUs, and waits until the database has told of them: a message that comes late
/// would put right what is falsified.
fn stock(shop: &Shop<'_>, skus: usize) {
    shop.stock(skus);
    let mut client = shop.connect();
    let behind = "SELECT coalesce(max(changes_behind), 1) FROM stock.feed_lag";
    eventually("all is told", || {
        client.query_one(behind, &[]).expect(behind).get::<_, i64>(0) == 0
    });
}

/// Replaces the units in so many entries, in one step: a check sees all of them or none.
fn falsify(shop: &Shop<'_>, entries: usize) {
    let mut connection = shop.redis.connect();
    let mut step = redis::pipe();
    step.atomic();
    for nth in 0..entries {
        let key = layout().level(&format!("s{nth}"), "main");
        let text: String = redis::cmd("GET").arg(&key).query(&mut connection).expect("an entry");
        let text = text.replace(r#""on_hand":1000000"#, r#""on_hand":7"#);
        step.cmd("SET").arg(&key).arg(text).arg("KEEPTTL").ignore();
    }
    let () = step.query(&mut connection).expect("a write");
    assert_ne!(shop.in_cache(), shop.in_database());
}

const ALL: &[&str] = &["--check-percent", "100", "--check-every", "500ms"];

#[test]
fn up_to_one_percent_is_put_right_one_by_one() {
    let shop = Shop::open();
    stock(&shop, 1_000);
    let address = free_address();
    let worker = shop.worker_in_step(&[ALL, &["--metrics-address", &address]].concat());
    let epoch = shop.epoch();
    falsify(&shop, 10);
    report("ten of a thousand entries were falsified", shop.in_step());
    assert_eq!(shop.epoch(), epoch, "no rebuild");
    eventually("ten are told", || worker.log().matches("a wrong entry is put right").count() == 10);
    assert_eq!(metric(&address, "wrong_entries_total"), 10);
    eventually("all entries are counted with each check", || {
        let checks = metric(&address, "checks_total");
        checks > 2 && metric(&address, "checked_entries_total") == checks * 1_000
    });
    assert_eq!(metric(&address, "wrong_entries_total"), 10, "the later checks found nothing");
}

#[test]
fn more_than_one_percent_rebuilds_everything_and_tells_the_database() {
    let shop = Shop::open();
    stock(&shop, 1_000);
    let worker = shop.worker_in_step(ALL);
    let mut listener = shop.connect();
    listener.batch_execute("LISTEN stock_alert").expect("to listen");
    let epoch = shop.epoch();
    falsify(&shop, 11);
    report("eleven of a thousand entries were falsified", shop.in_step());
    assert!(shop.epoch() > epoch, "a rebuild");
    assert!(worker.log().contains("ERROR"), "{}", worker.log());
    let mut notifications = listener.notifications();
    let next =
        notifications.timeout_iter(std::time::Duration::from_secs(5)).next().expect("a connection");
    let alert: serde_json::Value =
        serde_json::from_str(next.expect("an alert").payload()).expect("JSON");
    let expected =
        serde_json::json!({"alerts": [{"alert": "cache_rebuilt", "checked": 1_000, "wrong": 11}]});
    assert_eq!(alert, expected);
}

#[test]
fn an_invented_entry_an_unreadable_one_and_a_false_denial_are_found() {
    let shop = Shop::open();
    stock(&shop, 1_000);
    let _worker = shop.worker_in_step(ALL);
    let epoch = shop.epoch();
    let invented = layout().level("invented", "main");
    let text: String = shop.redis.run(&["GET", &layout().level("s0", "main")]);
    let () = shop.redis.run(&["SET", &invented, &text.replace("s0", "invented")]);
    let () = shop.redis.run(&["SET", &layout().level("s1", "main"), "nonsense"]);
    let denial = r#"{"absent":true,"sku":"s2","location":"main","epoch":1}"#;
    let () = shop.redis.run(&["SET", &layout().level("s2", "main"), denial]);
    shop.in_step();
    assert_eq!(shop.epoch(), epoch, "no rebuild");
}

#[test]
fn a_busy_shop_gives_no_false_alarm_and_checked_entries_live_on() {
    let shop = Shop::open();
    stock(&shop, 300);
    let worker = shop.worker_in_step(&[ALL, &["--entry-ttl", "5s"]].concat());
    let epoch = shop.epoch();
    for _ in 0..60 {
        shop.change(100, 200);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    shop.in_step();
    assert_eq!(shop.epoch(), epoch, "no rebuild");
    assert!(!worker.log().contains("wrong entry"), "{}", worker.log());
    assert!(worker.log().matches("checked a sample").count() >= 3, "{}", worker.log());
    assert_eq!(shop.in_cache().len(), 300, "the hundred that nobody bought are there, too");
}

#[test]
fn a_check_on_demand_tells_what_it_found() {
    let shop = Shop::open();
    stock(&shop, 200);
    let check = || {
        let mut worker = shop.worker(&["--check-now", "--check-percent", "100"]);
        (worker.end().code(), worker.output())
    };
    assert_eq!(check(), (Some(0), "{\"checked\":200,\"rebuilt\":false,\"wrong\":0}\n".to_owned()));
    falsify(&shop, 2);
    assert_eq!(check(), (Some(1), "{\"checked\":200,\"rebuilt\":false,\"wrong\":2}\n".to_owned()));
    falsify(&shop, 3);
    assert_eq!(check(), (Some(1), "{\"checked\":200,\"rebuilt\":true,\"wrong\":3}\n".to_owned()));
    assert_eq!(shop.in_cache(), shop.in_database());
}

#[test]
fn a_sample_has_ten_percent_of_the_entries_and_a_hundred_at_least() {
    for (skus, checked) in [(50, 50), (500, 100), (2_000, 200)] {
        let shop = Shop::open();
        stock(&shop, skus);
        let mut worker = shop.worker(&["--check-now"]);
        assert!(worker.end().success(), "{}", worker.log());
        let expected = format!("{{\"checked\":{checked},\"rebuilt\":false,\"wrong\":0}}\n");
        assert_eq!(worker.output(), expected, "of {skus}");
    }
}

#[test]
fn a_check_on_demand_goes_on_after_an_error() {
    let shop = Shop::open();
    stock(&shop, 20);
    let mut admin = shop.connect();
    let sql =
        "CREATE ROLE alone LOGIN CONNECTION LIMIT 1; SELECT stock.grant_access('alone', 'read')";
    admin.batch_execute(sql).expect("a role");
    let database = shop.database_url().replace("user=cache", "user=alone");
    // The sample is read by a connection of its own, for which there is no room.
    let mut worker = Worker::start(&database, &shop.redis.url(), &["--check-now"]);
    eventually("it fails", || worker.log().contains("the sample for the check could not be read"));
    admin.batch_execute("ALTER ROLE alone CONNECTION LIMIT -1").expect("room");
    assert_eq!(worker.end().code(), Some(0), "{}", worker.log());
    assert_eq!(worker.output(), "{\"checked\":20,\"rebuilt\":false,\"wrong\":0}\n");
}
