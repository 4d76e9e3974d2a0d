//! Encryption: to both sides where it is asked for, and only with a certificate that proves the
//! server's name.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use tempfile::TempDir;

use super::support::shop::start_cluster;
use super::support::{Shop, Worker, eventually, free_port};

/// An address of this machine. Servers that listen on all addresses listen on it, too: the ports
/// are free ones.
const HOST: &str = "127.77.54.32";

/// A certificate for that address, signed by nobody but itself; readable for both servers.
fn certificate() -> (TempDir, String, String) {
    let folder =
        tempfile::Builder::new().prefix("pg_stock_tls-").tempdir_in("/tmp").expect("a folder");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))
        .expect("its permissions");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
            "-addext",
        ])
        .args([&format!("subjectAltName=IP:{HOST}"), "-keyout", &key, "-out", &certificate])
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("its permissions");
    (folder, key, certificate)
}

/// PostgreSQL reads no key but its own: where the tests run as root, the server runs as postgres.
fn own_key(key: &str) -> String {
    let own = format!("{key}.postgres");
    std::fs::copy(key, &own).expect("a copy");
    let user = Command::new("id").args(["-u", "postgres"]).output().expect("id");
    if let Ok(uid) = String::from_utf8_lossy(&user.stdout).trim().parse() {
        // Where this is refused, we are not root, and the key is ours and the server's.
        drop(chown(&own, Some(uid), None));
    }
    own
}

#[test]
fn both_sides_may_be_encrypted_and_must_prove_their_names() {
    let (_folder, key, certificate) = certificate();
    let (database_port, redis_port) = (free_port(HOST), free_port(HOST));
    let cluster = start_cluster(&[
        "ssl=on",
        &format!("ssl_cert_file='{certificate}'"),
        &format!("ssl_key_file='{}'", own_key(&key)),
        &format!("listen_addresses='{HOST}'"),
        &format!("port={database_port}"),
    ]);
    let shop = Shop::at(
        &cluster,
        &[
            &format!("--bind {HOST} --tls-port {redis_port} --tls-auth-clients no"),
            &format!("--tls-cert-file {certificate} --tls-key-file {key}"),
        ],
    );
    shop.stock(5);
    let database = format!(
        "host={HOST} port={database_port} user=cache dbname={} sslmode=require",
        shop.database.name()
    );
    let redis = format!("rediss://{HOST}:{redis_port}");
    let distrustful = Worker::start(&database, &shop.redis.url(), &[]);
    eventually("it does not believe the database", || {
        distrustful.log().contains("certificate verify failed")
    });
    let distrustful = Worker::start(&shop.database_url(), &redis, &[]);
    eventually("it does not believe Redis", || {
        distrustful.log().contains("certificate verify failed")
    });
    let _worker = Worker::start_with(&database, &redis, &[], &[("SSL_CERT_FILE", &certificate)]);
    shop.in_step();
    let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = \
               'cache' AND ssl";
    let encrypted: i64 = shop.connect().query_one(sql, &[]).expect("an answer").get(0);
    assert!(encrypted > 0);
}
