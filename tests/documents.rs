//! The documents say what is: their SQL runs as it stands, their links and commands lead somewhere,
//! and their lists are those of the server. (The tables of outcomes are compared by the core, and
//! played in outcome_table.rs.)

use std::collections::BTreeSet;
use std::path::Path;

use pg_stock_tests::Cluster;
use postgres::Client;

use super::support::{database, value};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const DOCUMENTS: [&str; 14] = [
    "README.md",
    "docs/installing.md",
    "docs/reference.md",
    "docs/goods.md",
    "docs/operating.md",
    "docs/adopting.md",
    "docs/listening.md",
    "docs/settling.md",
    "cache-worker/README.md",
    "monitoring/runbook.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "bench/README.md",
    "bench/RESULTS.md",
];

/// A document's text.
pub fn read(document: &str) -> String {
    let path = Path::new(ROOT).join(document);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of code in a language.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    text.split(&begin)
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// What stands between the marks of a name.
fn marked<'a>(text: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let rest = text.split(&begin).nth(1).unwrap_or_else(|| panic!("no {begin}"));
    rest.split(&end).next().expect("a part").trim()
}

/// The cells of a table's rows, without the two lines of its head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(2).map(cells).collect()
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()
}

#[test]
fn the_sql_of_each_document_runs_as_it_stands() {
    let cluster = Cluster::start(&["shared_preload_libraries=pg_stock", "fsync=off"]);
    let mut postgres = cluster.connect("postgres");
    for (number, document) in DOCUMENTS.into_iter().enumerate() {
        let blocks = blocks(&read(document), "sql");
        let name = format!("document_{number}");
        postgres.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        let mut client = cluster.connect(&name);
        if !blocks.iter().any(|block| block.contains("CREATE EXTENSION")) {
            client.batch_execute("CREATE EXTENSION pg_stock").unwrap();
        }
        for block in blocks {
            client
                .batch_execute(&block)
                .unwrap_or_else(|error| panic!("{document}: {error:?} in\n{block}"));
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, place) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => Path::new(ROOT).join(document),
                path => Path::new(ROOT).join(document).parent().expect("a folder").join(path),
            };
            assert!(target.exists(), "{document}: {link}");
            if !place.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                assert!(text.lines().any(|line| anchor(line) == place), "{document}: {link}");
            }
        }
    }
}

/// How one links to a heading.
fn anchor(line: &str) -> String {
    let Some(heading) = line.strip_prefix('#') else { return String::new() };
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn every_target_of_make_that_a_document_names_exists() {
    let makefile = read("Makefile");
    for document in DOCUMENTS {
        let text = read(document);
        let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
        let commands = indented.chain(text.split('`').skip(1).step_by(2));
        let commands = commands.filter_map(|command| command.strip_prefix("make "));
        for target in commands.filter_map(|rest| rest.split_whitespace().next()) {
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{document}: make {target}");
        }
    }
}

#[test]
fn the_settings_are_those_of_the_reference() {
    let cluster = Cluster::start(&["shared_preload_libraries=pg_stock", "fsync=off"]);
    let mut client = cluster.connect("postgres");
    let unset = "SELECT set_config(name, boot_val || unit, false) FROM pg_settings
                  WHERE name IN ('pg_stock.min_ttl', 'pg_stock.max_ttl',
                                 'pg_stock.min_archive_age')";
    client.batch_execute(unset).unwrap();
    let set_by = "CASE context WHEN 'user' THEN 'everybody' WHEN 'superuser' THEN 'superuser' WHEN \
                  'sighup' THEN 'reload' WHEN 'postmaster' THEN 'start' END";
    let asked = format!(
        "SELECT name, current_setting(name), {set_by} FROM pg_settings
          WHERE name LIKE 'pg_stock.%' AND name <> 'pg_stock.clock_offset'"
    );
    let server = client.query(&asked, &[]).unwrap();
    let server: BTreeSet<[String; 3]> =
        server.iter().map(|row| [0, 1, 2].map(|column| row.get(column))).collect();
    let reference = read("docs/reference.md");
    let documented = rows(marked(&reference, "settings"));
    let documented =
        documented.iter().map(|row| [0, 1, 2].map(|column| row[column].to_owned())).collect();
    assert_eq!(server, documented);
}

/// Names in the first cells of the table of functions and views.
fn documented_names(reference: &str) -> BTreeSet<String> {
    let table =
        reference.split("| function | does | access |\n").nth(1).expect("the table of functions");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let firsts: Vec<_> = rows.map(|row| row.split(" | ").next().expect("a cell")).collect();
    let names = firsts.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names = names
        .map(|name| name.trim_start_matches("CALL ").split('(').next().expect("a name").to_owned());
    names.collect()
}

#[test]
fn every_function_and_view_that_somebody_may_use_is_in_the_reference() {
    let database = database();
    let mut client = database.connect();
    let names = |client: &mut Client, sql: &str| -> BTreeSet<String> {
        client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    client
        .batch_execute(
            "CREATE ROLE reader_of_documents; SELECT stock.grant_access('reader_of_documents', \
             'administer')",
        )
        .unwrap();
    let usable = names(
        &mut client,
        "SELECT DISTINCT proname::text FROM pg_proc
          WHERE pronamespace = 'stock'::regnamespace AND proname NOT LIKE 'try\\_%'
            AND proname <> 'worker_status'
            AND has_function_privilege('reader_of_documents', oid, 'EXECUTE')
         UNION SELECT relname::text FROM pg_class
          WHERE relnamespace = 'stock'::regnamespace AND relkind IN ('v', 'r')
            AND has_table_privilege('reader_of_documents', oid, 'SELECT')",
    );
    let documented = documented_names(&read("docs/reference.md"));
    let missing: Vec<_> = usable.difference(&documented).collect();
    assert_eq!(missing, Vec::<&String>::new(), "usable, but not in the reference");
    let every = names(
        &mut client,
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'stock'::regnamespace
         UNION SELECT relname::text FROM pg_class WHERE relnamespace = 'stock'::regnamespace",
    );
    let unknown: Vec<_> = documented.difference(&every).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "in the reference, but not in the schema");
    client
        .batch_execute("DROP OWNED BY reader_of_documents; DROP ROLE reader_of_documents")
        .unwrap();
}

#[test]
fn the_row_of_an_answer_is_that_of_the_reference() {
    let mut client = database().connect();
    let row = value(
        &mut client,
        "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
          WHERE attrelid = 'stock.answer'::regclass AND attnum > 0",
    );
    let reference = read("docs/reference.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(reference.contains(&row), "{row}");
}

#[test]
fn the_readme_shows_what_was_measured_last() {
    assert_eq!(marked(&read("README.md"), "hot"), marked(&read("bench/RESULTS.md"), "hot"));
}
