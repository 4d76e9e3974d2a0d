//! What the worker counts, as whoever watches it reads it.

use super::free_port;

/// An address that nobody listens on.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port("127.0.0.1"))
}

/// A counter of the worker.
pub fn metric(address: &str, name: &str) -> u64 {
    let text = get(address);
    value(&text, name).unwrap_or_else(|| panic!("{name} in {text}"))
}

/// A number of the worker that goes up and down; `None` while it has none.
pub fn gauge(address: &str, name: &str) -> Option<f64> {
    value(&get(address), name)
}

fn value<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    let start = format!("pg_stock_cache_{name} ");
    text.lines().find_map(|line| line.strip_prefix(&start))?.parse().ok()
}

/// The body of a page over HTTP; empty where nobody answers.
pub fn get(address: &str) -> String {
    use std::io::{Read, Write};
    let mut text = String::new();
    if let Ok(mut stream) = std::net::TcpStream::connect(address) {
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        drop(
            stream
                .write_all(request.as_bytes())
                .and_then(|()| stream.read_to_string(&mut text).map(drop)),
        );
    }
    text
}
