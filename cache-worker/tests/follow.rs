//! The worker follows: a sale shows, whatever the mode, and a restart misses nothing.

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

#[test]
fn strange_names_show_as_they_are() {
    let shop = Shop::open();
    let _worker = shop.worker_in_step(&[]);
    let names = ["a:b", "%", "%3A", "ä 'quoted' \"twice\" \\", "\u{1F34E}", "{tag}", "*", "new\nline"];
    for (nth, name) in names.iter().enumerate() {
        let sql = "SELECT 1 FROM stock.receive_stock($1, $2, $3, 5)";
        shop.connect().query(sql, &[&format!("d{nth}"), name, &names[names.len() - 1 - nth]]).expect("goods");
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
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let address = format!("127.0.0.1:{port}");
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
    let absence = format!(r#"{{"absent":true,"sku":"s0","location":"main","epoch":{}}}"#, shop.epoch());
    let () = shop.redis.run(&["SET", &key, &absence, "EX", "60"]);
    shop.stock(1);
    shop.in_step();
    let text: String = shop.redis.run(&["GET", &key]);
    assert!(text.contains(r#""on_hand":1000000"#), "{text}");
}

/// The body of a page over HTTP; empty where nobody answers.
fn get(address: &str) -> String {
    use std::io::{Read, Write};
    let mut text = String::new();
    if let Ok(mut stream) = std::net::TcpStream::connect(address) {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        drop(stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut text).map(drop)));
    }
    text
}
