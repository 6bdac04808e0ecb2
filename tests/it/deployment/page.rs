//! The way of `docs/deployment.md` from a clone to a service behind TLS. `scripts/walk` walks it,
//! which takes minutes and a machine of its own; what it would run is looked at here.

use std::process::Command;

use super::{from_root, output, text};
use crate::support::{CertificateAuthority, Folder, run};

/// What `scripts/walk` runs.
fn commands() -> String {
    output(Command::new(from_root("scripts/walk")).arg("--show"))
}

#[test]
fn the_walk_goes_from_a_package_to_tls() {
    let commands = commands();
    let mut rest = commands.as_str();
    for step in [
        "scripts/release --only deb\n",
        "apt-get install -y ./dist/portcullis_*.deb\n",
        "portcullis demo --api-only --listen 127.0.0.1:3000 ",
        "pebble -config pebble.json ",
        "tee /etc/portcullis/gateway.toml ",
        "portcullis check --config /etc/portcullis/gateway.toml\n",
        "systemctl restart portcullis\n",
        " https://shop.test/products\n",
    ] {
        rest = rest.split_once(step).unwrap_or_else(|| panic!("{step} is not next in {rest}")).1;
    }
}

#[test]
fn the_configuration_that_the_walk_writes_is_one() {
    let commands = commands();
    let begin = "gateway.toml > /dev/null << 'END'\n";
    let config = commands.split_once(begin).and_then(|(_, rest)| rest.split_once("END\n"));
    let folder = Folder::new();
    folder.write("gateway.toml", config.expect("a configuration").0);
    folder.write("pebble.pem", CertificateAuthority::new().pem);
    let checked = run(&folder, &["check"]);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    // It says what the page shows.
    let page = text("docs/deployment.md");
    assert!(page.contains(&format!("```text\n{}```\n", checked.stdout)), "{}", checked.stdout);
}

/// Files that no commit names stop `scripts/release`, which a later section of the page runs again.
#[test]
fn the_walk_leaves_nothing_in_the_clone() {
    let commands = commands();
    let (inside, outside) = commands.split_once("cd ~/").expect("the walk leaves the clone");
    assert!(!inside.contains(" > ") && !inside.contains("mkdir -p acme"), "{inside}");
    assert!(outside.contains("> demo.log") && outside.contains("mkdir -p acme"), "{outside}");
}

/// What is put in the place of the program is put where the unit starts it from, and the hand-over
/// is told to the main process.
#[test]
fn a_new_program_goes_where_the_unit_starts_it_from() {
    let unit = text("deploy/systemd/portcullis.service");
    let starts = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
    let program = starts.and_then(|words| words.split(' ').next()).expect("a program");
    let page = text("docs/deployment.md");
    let install = format!("\nsudo install -m 0755 target/dist/portcullis {program}\n");
    assert!(page.contains(&install), "{install}");
    assert!(page.contains("\nsudo systemctl kill --kill-whom=main -s USR2 portcullis\n"));
    assert!(!page.contains("/usr/local/bin/portcullis"), "the unit starts {program}");
}
