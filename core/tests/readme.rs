//! The README's tables are those that the rules make. `UPDATE_README=1 cargo test -p pg_stock_core --test readme`
//! writes them anew.

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
fn the_readme_says_what_the_rules_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let mut readme = std::fs::read_to_string(path).expect("README.md");
    for name in ["outcomes", "outcome table"] {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let from = readme.find(&begin).unwrap_or_else(|| panic!("README.md has no {begin}")) + begin.len();
        let to = readme.find(&end).unwrap_or_else(|| panic!("README.md has no {end}"));
        if std::env::var_os("UPDATE_README").is_some() {
            readme.replace_range(from..to, &section(name));
            std::fs::write(path, &readme).expect("README.md");
        } else {
            assert_eq!(&readme[from..to], section(name), "run this test with UPDATE_README=1");
        }
    }
}
