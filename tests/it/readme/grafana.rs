//! The dashboard for Grafana is what its list of panels makes.

use std::path::Path;
use std::process::Command;

use super::pages::{ROOT, page};

#[test]
fn the_dashboard_for_grafana_is_the_one_that_its_list_makes() {
    let made = Command::new(Path::new(ROOT).join("deploy/grafana/make")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let committed = page("deploy/grafana/portcullis.json").text;
    assert!(
        String::from_utf8_lossy(&made.stdout) == committed,
        "the file is not what the list makes: run deploy/grafana/make --write"
    );
}
