//! The metrics as a real Prometheus reads them, with its rules and the dashboard for Grafana.

use std::path::Path;
use std::process::Command;

#[test]
fn a_real_prometheus_has_an_answer_to_every_rule_and_every_panel() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/metrics-test");
    let mut command = Command::new(script);
    let ran = command.args(["--binary", env!("CARGO_BIN_EXE_portcullis")]).output().unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(ran.status.success(), "{}", said.concat());
    assert!(said[0].contains(" expressions answered"), "{}", said.concat());
}
