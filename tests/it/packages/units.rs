//! The units of systemd, judged by systemd's own tools.

use std::path::Path;

use super::{ROOT, tool};
use crate::support::{BINARY, Folder, run};

/// Most exposure that `systemd-analyze security` may find, in tenths: 0 is none, 100 is all.
const EXPOSURE_MAX: &str = "20";
const SERVICE: &str = "deploy/systemd/portcullis.service";
const SOCKET: &str = "deploy/systemd/portcullis.socket";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The value of a line `key=value` of a unit.
fn value<'t>(unit: &'t str, key: &str) -> &'t str {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let mut values = lines.filter(|(name, _)| *name == key).map(|(_, value)| value);
    values.next().unwrap_or_else(|| panic!("no {key} in\n{unit}"))
}

/// Both units in a folder, with the program where it is under test.
fn units() -> Folder {
    let folder = Folder::new();
    folder.write("portcullis.service", read(SERVICE).replace("/usr/bin/portcullis", BINARY));
    folder.write("portcullis.socket", read(SOCKET));
    folder
}

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    let folder = units();
    let verify = |name: &str| {
        let told = tool("systemd-analyze", &["verify", "--man=no", name], folder.path());
        String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned()
    };
    // Units of this machine may have faults of their own.
    let of_ours = |told: String| {
        let lines = told.lines().filter(|line| line.contains("portcullis"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["portcullis.service", "portcullis.socket"] {
        assert_eq!(of_ours(verify(name)), Vec::<String>::new());
    }
    folder.write("portcullis.service", read(SERVICE).replace("RestrictRealtime", "RestrictReal"));
    assert_ne!(of_ours(verify("portcullis.service")), Vec::<String>::new(), "nothing is looked at");
}

/// `kill --kill-whom`, which hands over and reopens logs, is of this version.
#[test]
fn one_version_of_systemd_is_asked_for() {
    const SINCE: &str = "252";
    for script in ["deploy/deb/postinst", "deploy/systemd/portcullis.logrotate"] {
        assert!(read(script).contains(" --kill-whom=main "), "{script}");
    }
    let header = format!("of systemd {SINCE} or later.");
    assert!(read(SERVICE).contains(&header), "{SERVICE} names another");
    let breaks = format!("\nBreaks: systemd (<< {SINCE})\n");
    assert!(read("scripts/release.d/deb.py").contains(&breaks), "the package names another");
}

#[test]
fn the_service_is_exposed_to_little() {
    let folder = units();
    let judge = |threshold: &str| {
        let threshold = format!("--threshold={threshold}");
        let words = ["security", "--offline=true", "--no-pager", &threshold, "portcullis.service"];
        tool("systemd-analyze", &words, folder.path())
    };
    let judged = judge(EXPOSURE_MAX);
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    assert!(!judge("1").status.success(), "nothing is judged");
}

#[test]
fn the_socket_is_one_that_the_packages_configuration_has() {
    let config = read("deploy/deb/gateway.toml");
    let address = value(&read(SOCKET), "ListenStream").to_owned();
    assert!(config.contains(&format!("listen = [\"{address}\"]")), "{config}");
    assert_eq!(value(&read(SOCKET), "FileDescriptorName"), "public");
}

#[test]
fn the_page_on_deployment_shows_the_units_as_they_are() {
    let page = read("docs/deployment.md");
    for path in [SERVICE, SOCKET] {
        let shown = format!("```text\n{}```", read(path));
        assert!(page.contains(&shown), "docs/deployment.md does not show {path} as it is");
        assert!(page.contains(&format!("](../{path})")), "docs/deployment.md does not link {path}");
    }
}

#[test]
fn secrets_are_read_from_where_the_unit_puts_them() {
    let unit = read(SERVICE);
    let (id, folder) = value(&unit, "LoadCredential").split_once(':').unwrap();
    assert_eq!((id, folder), ("secret", "/etc/portcullis/credentials"));
    // systemd names them so: the id, an underscore, the name of the file.
    let at = format!("/run/credentials/portcullis.service/{id}_admin_token");
    let config = read("deploy/deb/gateway.toml");
    assert!(config.contains(&format!("# token = \"file:{at}\"")), "{config}");
    assert!(config.contains(&format!("{folder}/admin_token")), "{config}");
    let page = read("docs/deployment.md");
    assert!(page.contains(&format!("\"file:{at}\"")), "the page names another path");
    // As the gateway reads it, with the end of line that an editor leaves.
    let folder = Folder::new();
    let secret = folder.write("secret_admin_token", "0123456789abcdef0123456789abcdef\n");
    let line = format!("token = \"file:{}\"", secret.display());
    let config = config.replace(&format!("# token = \"file:{at}\""), &line);
    folder.write("gateway.toml", &config);
    let checked = run(&folder, &["check"]);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{checked:?}");
    std::fs::remove_file(&secret).unwrap();
    assert_eq!(run(&folder, &["check"]).code, Some(2), "a secret that is not there is a problem");
}

#[test]
fn there_is_more_room_and_more_time_than_the_configuration_asks_for() {
    let unit = read(SERVICE);
    let reference = read("gateway.toml");
    let number = |key: &str| -> u64 {
        let line = reference.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        line.unwrap().trim_matches(['"', 's']).parse().unwrap()
    };
    let files: u64 = value(&unit, "LimitNOFILE").parse().unwrap();
    assert!(files > 2 * number("connections"), "a connection may have one to an upstream");
    let seconds: u64 = value(&unit, "TimeoutStopSec").parse().unwrap();
    assert!(seconds > number("drain") + number("drain_delay"));
}
