//! The tables of docs/reference.md are those that the rules make.
//! `UPDATE_REFERENCE=1 cargo test -p pg_stock_core --test reference` writes them anew.

use pg_stock_core::{Outcome, table};

fn section(name: &str) -> String {
    match name {
        "outcome table" => table::markdown(),
        _ => outcomes(),
    }
}

fn outcomes() -> String {
    let mut text = String::from("| outcome | SQLSTATE | meaning |\n|---|---|---|\n");
    for outcome in Outcome::ALL {
        let sqlstate = outcome.sqlstate().map_or(String::new(), |state| format!("`{state}`"));
        text.push_str(&format!("| `{}` | {sqlstate} | {} |\n", outcome.word(), outcome.meaning()));
    }
    text
}

#[test]
fn the_reference_says_what_the_rules_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md");
    let mut reference = std::fs::read_to_string(path).expect("docs/reference.md");
    for name in ["outcomes", "outcome table"] {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let from =
            reference.find(&begin).unwrap_or_else(|| panic!("docs/reference.md has no {begin}"))
                + begin.len();
        let to = reference.find(&end).unwrap_or_else(|| panic!("docs/reference.md has no {end}"));
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            reference.replace_range(from..to, &section(name));
            std::fs::write(path, &reference).expect("docs/reference.md");
        } else {
            assert_eq!(
                &reference[from..to],
                section(name),
                "run this test with UPDATE_REFERENCE=1"
            );
        }
    }
}
