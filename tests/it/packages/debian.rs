//! The package of Debian: what is in it, and what becomes of a machine that installs, upgrades and
//! purges it. The machine is a folder: nothing of the one that runs the tests is touched.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ROOT, file, release, said, tool, version};
use crate::support::{BINARY, Client, Folder, Gateway, eventually, run};

const CONFIG: &str = "etc/portcullis/gateway.toml";
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/portcullis.service";

fn script(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join("deploy/deb").join(name)).unwrap()
}

#[test]
fn the_package_installs_upgrades_and_leaves_nothing_behind() {
    let folder = Folder::new();
    release(folder.path(), &["--only", "deb"]);
    let sums = said("sha256sum", &["--check", "SHA256SUMS"], folder.path());
    assert!(sums.ends_with(".deb: OK\n") && sums.lines().count() == 1, "{sums}");
    let package = file(folder.path(), ".deb");
    let architecture = said("dpkg", &["--print-architecture"], folder.path());
    let name = format!("portcullis_{}_{}.deb", version(), architecture.trim());
    assert!(package.ends_with(&name), "{package}");
    contents(&folder, &package);
    life(&folder, &package);
}

/// Everything in the package is where it belongs, and is what the program itself says.
fn contents(folder: &Folder, package: &str) {
    let list = said("dpkg-deb", &["--contents", package], folder.path());
    assert!(list.lines().all(|line| line.contains(" root/root ")), "{list}");
    let secret = list.lines().find(|line| line.ends_with(" ./etc/portcullis/credentials/"));
    assert!(secret.is_some_and(|line| line.starts_with("drwx------ ")), "{list}");
    let tree = folder.path().join("extracted");
    said("dpkg-deb", &["--extract", package, "extracted"], folder.path());
    let program = tree.join("usr/bin/portcullis");
    let program = program.to_str().unwrap();
    let told = said(program, &["--version"], &tree);
    assert!(told.starts_with(&format!("portcullis {}", version())), "{told}");
    assert!(said(program, &["check", "--config", CONFIG], &tree).starts_with("ok: "));
    for place in ["usr/lib/systemd/system/portcullis.service", "etc/logrotate.d/portcullis"] {
        assert!(tree.join(place).is_file(), "{place} is missing:\n{list}");
    }
    run(folder, &["man", "--to", "man"]);
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder.path().join("man")).unwrap() {
        let page = entry.unwrap();
        let name = page.file_name().into_string().unwrap();
        let packed = format!("usr/share/man/man1/{name}.gz");
        let own = said("gzip", &["--decompress", "--stdout", &packed], &tree);
        assert_eq!(own, std::fs::read_to_string(page.path()).unwrap(), "{name}");
        pages.push(name);
    }
    for name in ["portcullis.1", "portcullis-run.1", "portcullis-check.1"] {
        assert!(pages.iter().any(|page| page == name), "no {name}: {pages:?}");
    }
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/portcullis"),
        ("zsh", "usr/share/zsh/vendor-completions/_portcullis"),
        ("fish", "usr/share/fish/vendor_completions.d/portcullis.fish"),
    ] {
        let own = std::fs::read_to_string(tree.join(place)).unwrap();
        assert_eq!(own, run(folder, &["completions", shell]).stdout, "{place}");
    }
    let parsed = tool("bash", &["-n", "usr/share/bash-completion/completions/portcullis"], &tree);
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{parsed:?}");
    let control = said("dpkg-deb", &["--info", package], folder.path());
    assert!(control.contains(" Depends: libc6 (>= 2."), "{control}");
    let copyright = std::fs::read_to_string(tree.join("usr/share/doc/portcullis/copyright"));
    assert!(copyright.unwrap().contains("\nLicense: Apache-2.0\n"));
}

/// A folder that dpkg takes for a machine.
fn machine(folder: &Folder) -> std::path::PathBuf {
    let root = folder.path().join("machine");
    for place in ["info", "updates"] {
        std::fs::create_dir_all(root.join("var/lib/dpkg").join(place)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    root
}

/// What an administrator's command does, and what is left of it each time.
fn life(folder: &Folder, package: &str) {
    let root = machine(folder);
    let at = format!("--root={}", root.display());
    let dpkg = |arguments: &[&str]| {
        // The scripts are told by DPKG_ROOT which machine is meant; no chroot is needed for them.
        let forced = ["script-chrootless", "not-root", "depends", "bad-path"];
        let forced = forced.map(|it| format!("--force-{it}"));
        let mut words = vec![at.as_str(), "--log=/dev/null"];
        words.extend(forced.iter().map(String::as_str));
        words.extend(arguments);
        said("dpkg", &words, folder.path())
    };
    let is_there = |place: &str| root.join(place).symlink_metadata().is_ok();
    dpkg(&["--install", package]);
    assert!(is_there(ENABLED), "the service begins with the machine");
    let mode = std::fs::metadata(root.join("etc/portcullis/credentials")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);

    let mine = std::fs::read_to_string(root.join(CONFIG)).unwrap() + "# mine\n";
    std::fs::write(root.join(CONFIG), &mine).unwrap();
    // An administrator has disabled it, and ordered the socket.
    std::fs::remove_file(root.join(ENABLED)).unwrap();
    dpkg(&["--install", package]);
    assert_eq!(std::fs::read_to_string(root.join(CONFIG)).unwrap(), mine);
    assert!(!is_there(ENABLED), "an upgrade enables what was disabled");

    // As DynamicUser= has it, and a unit without.
    let places = ["var/lib/private/portcullis/acme", "var/log/private", "var/log/portcullis/2026"];
    for place in places {
        std::fs::create_dir_all(root.join(place)).unwrap();
    }
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("file"), "").unwrap();
    std::os::unix::fs::symlink(&kept, root.join("var/lib/portcullis")).unwrap();
    std::fs::write(root.join("etc/portcullis/credentials/admin_token"), "a secret").unwrap();
    dpkg(&["--remove", "portcullis"]);
    assert!(!is_there("usr/bin/portcullis"));
    assert_eq!(std::fs::read_to_string(root.join(CONFIG)).unwrap(), mine, "it may come back");
    assert!(is_there("var/lib/private/portcullis/acme"));
    dpkg(&["--purge", "portcullis"]);
    let left = said("find", &[".", "-iname", "*portcullis*"], &root);
    assert_eq!(left, "", "a purge leaves this");
    assert!(kept.join("file").is_file(), "a purge followed a link");
}

#[test]
fn scripts_touch_nothing_but_the_machine_that_is_meant() {
    for name in ["postinst", "prerm", "postrm"] {
        let text = script(name);
        for line in text.lines().map(str::trim).filter(|line| line.starts_with("rm")) {
            let mut paths = line.split_whitespace().filter(|word| word.contains('/'));
            let is_meant =
                paths.all(|path| path.starts_with("\"$DPKG_ROOT/") || path == "2>/dev/null");
            assert!(is_meant, "{name}: {line}");
        }
        let parsed = tool("sh", &["-n", &format!("{ROOT}/deploy/deb/{name}")], Path::new("/"));
        assert!(parsed.status.success() && parsed.stderr.is_empty(), "{parsed:?}");
    }
}

/// In place of systemctl: what it says of the main process, and what it sends that.
const SYSTEMCTL: &str = r#"
systemctl() {
    case "$*" in
    "show --property MainPID --value portcullis.service") cat main_pid ;;
    "kill --kill-whom=main --signal=USR2 portcullis.service") kill -USR2 "$(cat main_pid)" ;;
    *) echo "no test knows: systemctl $*" ;;
    esac
}
"#;

#[test]
fn an_upgrade_hands_over_or_says_that_it_did_not() {
    let config = "[routes.all]\npath = \"/*\"\nrespond = { status = 204 }\n";
    let folder = Folder::new();
    let notify = folder.path().join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    let place = folder.path().join("main_pid");
    // What systemd does with such a line.
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length) = socket.recv(&mut buffer) {
            let told = String::from_utf8_lossy(&buffer[..length]);
            if let Some(pid) = told.lines().find_map(|line| line.strip_prefix("MAINPID=")) {
                let beside = place.with_extension("new");
                std::fs::write(&beside, pid).and_then(|()| std::fs::rename(&beside, &place)).ok();
            }
        }
    });
    let mut command = Command::new(BINARY);
    command.stdin(Stdio::null()).env("NOTIFY_SOCKET", &notify);
    let gateway = Gateway::start_by(&mut command, folder, config);
    let main_pid = || std::fs::read_to_string(gateway.folder().join("main_pid")).unwrap();
    std::fs::write(gateway.folder().join("main_pid"), gateway.pid().to_string()).unwrap();

    let postinst = script("postinst");
    let (functions, _) = postinst.split_once("\ncase \"$1\" in\n").unwrap();
    assert!(functions.contains("\nTAKES_OVER_S=40\n"), "{functions}");
    let configure = |seconds: &str| {
        let functions = functions.replace("TAKES_OVER_S=40", &format!("TAKES_OVER_S={seconds}"));
        let text = format!("{functions}\n{SYSTEMCTL}\nhand_over\n");
        let told = tool("sh", &["-c", &text], gateway.folder());
        assert!(told.status.success() && told.stdout.is_empty(), "{told:?}");
        String::from_utf8(told.stderr).unwrap()
    };
    assert_eq!(configure("40"), "");
    let heirs = gateway.heirs();
    assert_eq!(heirs.len(), 1, "nobody took over");
    assert_eq!(main_pid(), heirs[0].to_string());

    gateway.rewrite("[routes.all]\n");
    let told = configure("1");
    assert!(told.contains("the version that ran before goes on serving"), "{told}");
    assert!(told.contains("journalctl -u portcullis"), "{told}");
    eventually("the attempt has ended", || gateway.stderr().contains("not handed over"));
    assert_eq!((gateway.heirs(), main_pid()), (heirs.clone(), heirs[0].to_string()));
    assert_eq!(Client::get(gateway.public, "/").send().status, 204);
}
