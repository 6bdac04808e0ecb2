//! `portcullis fmt`: the form of configuration files, and who has it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{BINARY, Folder, run};

const WRITTEN: &str = "[log]\nlevel='info'# why\n[admin]\n";
const FORM: &str = "[log]\nlevel = 'info' # why\n\n[admin]\n";

fn read(folder: &Folder, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap()
}

#[test]
fn a_configuration_and_its_files_get_their_form() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("d")).unwrap();
    folder.write("gateway.toml", "include = [\"d/*.toml\"]\n\n[server]\n");
    let place = folder.write("kept.toml", WRITTEN);
    fs::set_permissions(&place, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../kept.toml", folder.path().join("d/link.toml")).unwrap();
    folder.write("d/b.toml", "[store]\n");

    // Who may give files away has one of somebody else here.
    let _ = chown(&place, Some(12_345), Some(54_321));
    let owner = || fs::metadata(&place).map(|it| (it.uid(), it.gid())).unwrap();
    let of_before = owner();

    let checked = run(&folder, &["fmt", "--check"]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(1), "d/link.toml\n"), "{checked:?}");
    assert_eq!(read(&folder, "kept.toml"), WRITTEN);
    let said = run(&folder, &["fmt"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "wrote d/link.toml\n"), "{said:?}");
    assert_eq!(read(&folder, "kept.toml"), FORM);
    assert!(folder.path().join("d/link.toml").is_symlink());
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(owner(), of_before);
    let again = run(&folder, &["fmt", "--check"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "3 files have the form\n"));
    let names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn files_whose_names_are_not_known_are_not_left_out() {
    let folder = Folder::new();
    folder.write(
        "gateway.toml",
        "include = [\"${PORTCULLIS_NO_SUCH}/*.toml\"]\n[log]\nlevel='info'\n",
    );
    for words in [&["fmt"][..], &["fmt", "--check"]] {
        let said = run(&folder, words);
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.stderr.contains("\"PORTCULLIS_NO_SUCH\" is not set"), "{said:?}");
    }
    assert!(read(&folder, "gateway.toml").contains("level='info'"));
}

#[test]
fn files_may_be_named_and_none_is_touched_while_one_is_wrong() {
    let folder = Folder::new();
    folder.write("a.toml", WRITTEN);
    folder.write("b.toml", "[log\nsecret = 'hunter2'\n");
    let said = run(&folder, &["fmt", "a.toml", "b.toml", "no.toml"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    assert!(said.stderr.contains("b.toml:1:5: ") && said.stderr.contains("no.toml: "), "{said:?}");
    assert!(!said.stderr.contains("hunter2"), "{said:?}");
    assert_eq!(read(&folder, "a.toml"), WRITTEN);
    let said = run(&folder, &["fmt", "a.toml"]);
    assert_eq!((said.code, read(&folder, "a.toml").as_str()), (Some(0), FORM), "{said:?}");
    let mut child = Command::new(BINARY)
        .args(["fmt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(WRITTEN.as_bytes()).unwrap();
    let printed = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), FORM);
}

#[test]
fn all_files_are_written_or_none_is() {
    let folder = Folder::new();
    folder.write("a.toml", WRITTEN);
    // Beside it nothing can lie, since a name has at most 255 bytes.
    let long = format!("{}.toml", "b".repeat(249));
    folder.write(&long, WRITTEN);
    let said = run(&folder, &["fmt", "a.toml", &long]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    assert!(said.stderr.contains("cannot write bbb"), "{said:?}");
    assert!(said.stderr.contains("no file is changed"), "{said:?}");
    assert_eq!(read(&folder, "a.toml"), WRITTEN);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    // One may be named twice.
    let said = run(&folder, &["fmt", "a.toml", "./a.toml"]);
    assert_eq!((said.code, read(&folder, "a.toml").as_str()), (Some(0), FORM), "{said:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_the_program_and_this_repository_have_is_in_that_form() {
    let folder = Folder::new();
    let demo = run(&folder, &["demo", "--print-config"]).stdout;
    folder.write("demo.toml", demo);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of_init =
        ["open", "issuer", "secret"].map(|it| root.join(format!("tests/it/init/{it}.toml")));
    let files = of_init.iter().map(|path| path.to_str().unwrap());
    let reference = root.join("gateway.toml");
    let all = ["fmt", "--check", "demo.toml", reference.to_str().unwrap()].into_iter().chain(files);
    let said = run(&folder, &all.collect::<Vec<_>>());
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "5 files have the form\n"), "{said:?}");
}
