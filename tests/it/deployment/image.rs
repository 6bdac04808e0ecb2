//! The image without an engine: the files that the Dockerfile puts together, with a read-only root
//! and its user, run by the words that stand in it.

use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{free_port, output, text};
use crate::support::{BINARY, Client, Folder, Gateway, Upstream, eventually, kill, response};

/// Enters the tree `$0` as an engine does, and runs the rest: the root is read-only, the user is
/// the image's, and nothing gives it more rights. Who is not root here is in a namespace of users.
const ENTER: &str = r#"
root=$0
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
case $AS in
  root) as="--setgid=$GROUP --setuid=$USER_ID" ;;
  *) as="--user --map-user=$USER_ID --map-group=$GROUP" ;;
esac
exec setpriv --no-new-privs unshare $as --root="$root" --wd="$WORKDIR" "$@"
"#;

/// What the last stage of the Dockerfile says by this instruction.
fn instruction(name: &str) -> String {
    let text = text("Dockerfile").replace("\\\n", " ");
    let last = text.rsplit_once("\nFROM ").unwrap().1.to_owned();
    let line = last.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in the last stage")).trim().to_owned()
}

/// The words of an instruction in its JSON form.
fn words(name: &str) -> Vec<String> {
    let said = instruction(name);
    serde_json::from_str(&said[said.find('[').unwrap()..]).unwrap()
}

/// The files of the image, but for those of Debian that the binary does not need.
fn lay_out(root: &Path) {
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    copy(Path::new(BINARY), &words("ENTRYPOINT")[0]);
    let needs = output(Command::new("ldd").arg(BINARY));
    let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
    libraries.for_each(|library| copy(Path::new(library), library));
    let passwd = "root:x:0:0::/:\nportcullis:x:65532:65532::/:/usr/sbin/nologin\n";
    for folder in ["etc/portcullis", "var/lib/portcullis", "etc"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    let own = root.join("var/lib/portcullis");
    std::fs::set_permissions(&own, Permissions::from_mode(0o700)).unwrap();
    if is_root() {
        chown(own, Some(65532), Some(65532)).unwrap();
    }
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).trim() == "0"
}

/// A command inside of the tree, as the image's user.
fn inside(root: &Path, words: &[String]) -> Command {
    let user = instruction("USER");
    let (id, group) = user.split_once(':').expect("a user and a group");
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-ec", ENTER]).arg(root).args(words);
    command.env("AS", if is_root() { "root" } else { "another" });
    command.env("USER_ID", id).env("GROUP", group).env("WORKDIR", instruction("WORKDIR"));
    command
}

/// A running gateway of the image; it ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks at a process of the image from outside: its user, what it may, and its root.
fn has_no_rights(pid: u32) {
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    let status = of("status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    if is_root() {
        assert_eq!(field("Uid:").split_whitespace().next(), Some("65532"));
        assert_eq!(field("Groups:"), "");
    }
    assert_eq!(
        (field("CapEff:").as_str(), field("NoNewPrivs:").as_str()),
        ("0000000000000000", "1")
    );
    let mounts = of("mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(mount.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{mount}");
}

#[test]
fn the_image_serves_with_a_read_only_root_as_a_user_without_rights() {
    let folder = Folder::new();
    let root = folder.path().join("root");
    lay_out(&root);
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:{}\"\n{}\
         [routes.all]\npath = \"/*\"\nupstream = \"shop\"\n",
        free_port(),
        upstream.table("shop"),
    );
    std::fs::write(root.join("etc/portcullis/gateway.toml"), config).unwrap();
    let entry = words("ENTRYPOINT");
    let with = |more: &[&str]| {
        let more = more.iter().map(|word| (*word).to_owned());
        entry.iter().cloned().chain(more).collect::<Vec<_>>()
    };
    // What is said of a file before it is served: the second example of the Dockerfile.
    assert_eq!(output(&mut inside(&root, &with(&["check"]))), "ok: 1 route\n");
    // Nothing is healthy yet.
    let mut health = inside(&root, &words("HEALTHCHECK"));
    assert_eq!(health.output().unwrap().status.code(), Some(1));

    let command: Vec<String> = words("CMD");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let log = folder.path().join("stderr");
    let mut run = inside(&root, &with(&command));
    run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let mut running = Running(run.spawn().unwrap());
    let said = || std::fs::read_to_string(&log).unwrap();
    eventually("it is healthy", || {
        assert!(running.0.try_wait().unwrap().is_none(), "{}", said());
        let mut health = inside(&root, &words("HEALTHCHECK"));
        health.output().unwrap().status.code() == Some(0)
    });
    let address = said();
    let address = address.split("public=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.unwrap().parse().unwrap();
    assert_eq!(Client::get(address, "/").send().text(), "fine");

    has_no_rights(running.0.id());

    // `docker stop` sends what STOPSIGNAL says.
    kill(instruction("STOPSIGNAL").trim_start_matches("SIG"), running.0.id());
    let mut ended = None;
    eventually("it ends", || {
        ended = running.0.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(0), "{}", said());
}

#[test]
fn the_image_is_built_from_what_is_sent_to_the_builder() {
    let sent = text(".dockerignore");
    let dockerfile = text("Dockerfile").replace("\\\n", " ");
    let mut copied = 0;
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        if line.starts_with("--from=") {
            continue;
        }
        let mut sources: Vec<&str> = line.split_whitespace().collect();
        sources.pop();
        for source in sources {
            assert!(sent.lines().any(|line| line == format!("!{source}")), "{source} is not sent");
            assert!(super::from_root(source).exists(), "{source}");
            copied += 1;
        }
    }
    assert!(copied >= 6, "only {copied}");
    // What builds it is what the crate asks for.
    let cargo = text("Cargo.toml");
    let wanted = cargo.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let image = format!("FROM rust:{}-slim-bookworm AS build", wanted.unwrap().trim_matches('"'));
    assert!(dockerfile.contains(&image), "{image}");
}

/// The page's file serves by itself, and every build that the page shows says which commit it is.
#[test]
fn the_page_has_the_image_serve_a_file_that_it_writes_first() {
    let page = text("docs/deployment.md");
    let section = page.split_once("\n## The image\n").unwrap().1.split_once("\n## ").unwrap().0;
    let begin = section.find("cat > gateway.toml << 'END'\n").expect("a file is written");
    let run = section.find("docker run ").expect("it is run");
    assert!(begin < run, "the file is written first");
    let config = section[begin..].split_once("'END'\n").unwrap().1.split_once("END\n").unwrap().0;
    let config = config.replace("0.0.0.0:8080", "127.0.0.1:0");
    let config = format!("{config}\n[admin]\nlisten = \"127.0.0.1:0\"\n");
    let gateway = Gateway::start(&config);
    let reply = Client::get(gateway.public, "/").send();
    assert_eq!((reply.status, &*reply.text()), (200, "It works.\n"));
    for (number, line) in page.lines().enumerate() {
        let is_told = line.contains("PORTCULLIS_COMMIT=");
        assert!(is_told || !line.starts_with("docker build"), "{}: {line}", number + 1);
    }
    let (before, _) = page.split_once("docker compose up --build").unwrap();
    assert!(before.rsplit_once("```sh").unwrap().1.contains("export PORTCULLIS_COMMIT="));
}
