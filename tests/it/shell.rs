//! What shells and manuals are told of the command line.

use std::fs::File;
use std::io::pipe;
use std::process::{Command, Output, Stdio};

use crate::support::{BINARY, Folder, run};

/// What `--help` lists as commands.
fn commands() -> Vec<String> {
    let help = run(&Folder::new(), &["--help"]).stdout;
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?.split_whitespace().next()?;
        (!line.starts_with("   ")).then(|| name.to_owned())
    });
    let names: Vec<String> = names.collect();
    assert!(names.len() > 10 && names.contains(&"check".to_owned()), "{names:?}");
    names
}

/// Runs a program that scripts/setup installs.
fn tool(name: &str, arguments: &[&str]) -> Output {
    let output = Command::new(name).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{name}: {error}; scripts/setup installs it"))
}

fn completions(shell: &str) -> String {
    let said = run(&Folder::new(), &["completions", shell]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    said.stdout
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = Folder::new();
    let script = folder.write("portcullis.bash", completions("bash"));
    let script = script.to_str().unwrap();
    let parsed = tool("bash", &["-n", script]);
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{parsed:?}");
    // What bash does when the key is pressed.
    const PRESS: &str = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _portcullis portcullis "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[@]}""#;
    let press = |words: &[&str]| {
        let arguments = [&["-c", PRESS, "bash", script, "portcullis"], words].concat();
        String::from_utf8(tool("bash", &arguments).stdout).unwrap().trim_end().to_owned()
    };
    for name in commands() {
        let offered = press(&[&name[..name.len() - 1]]);
        assert!(offered.split(' ').any(|word| word == name), "{name}: {offered}");
    }
    assert_eq!(press(&["check", "--st"]), "--store");
    assert_eq!(press(&["completions", "z"]), "zsh");
}

#[test]
fn every_shell_is_told_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = completions(shell);
        for name in commands() {
            assert!(script.contains(&name), "{shell} does not know {name}");
        }
    }
    let said = run(&Folder::new(), &["completions", "tcsh"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("bash, elvish, fish, powershell, zsh"), "{said:?}");
}

#[test]
fn every_command_has_a_page_without_a_warning() {
    let folder = Folder::new();
    let said = run(&folder, &["man", "--to", "man1"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "wrote the pages into man1\n"));
    let mut names = commands();
    names.retain(|name| name != "help");
    for name in &names {
        let page = folder.path().join(format!("man1/portcullis-{name}.1"));
        assert!(page.is_file(), "{name} has no page");
    }
    let (mut pages, mut shown) = (0, String::new());
    for entry in std::fs::read_dir(folder.path().join("man1")).unwrap() {
        let page = entry.unwrap().path();
        // Every warning that the formatter of man(1) knows.
        let arguments = ["-man", "-ww", "-Kutf8", "-Tutf8", "-P-cbou", page.to_str().unwrap()];
        let formatted = tool("groff", &arguments);
        let warnings = String::from_utf8_lossy(&formatted.stderr);
        assert!(warnings.is_empty(), "{}: {warnings}", page.display());
        assert!(formatted.status.success(), "{}", page.display());
        shown += &String::from_utf8(formatted.stdout).unwrap();
        pages += 1;
    }
    assert!(pages > names.len(), "the program itself and commands of commands have pages, too");
    assert!(shown.contains("Report every problem of the configuration at once"), "{shown}");
}

#[test]
fn the_page_of_the_program_lists_its_commands() {
    let said = run(&Folder::new(), &["man"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.stdout.contains(".TH portcullis 1"), "{said:?}");
    for name in commands() {
        let written = name.replace('-', "\\-");
        assert!(said.stdout.contains(&format!("portcullis\\-{written}(1)")), "{name}");
    }
    let folder = Folder::new();
    folder.write("taken", "");
    let said = run(&folder, &["man", "--to", "taken"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.starts_with("cannot write into taken: "), "{said:?}");
}

/// Commands that print, without a gateway.
const PRINTING: [&[&str]; 9] = [
    &["--help"],
    &["schema"],
    &["man"],
    &["completions", "bash"],
    &["check"],
    &["check", "--store"],
    &["acl"],
    &["diff", "gateway.toml", "gateway.toml"],
    &["demo", "--print-config"],
];

/// What a command that prints to this says of it.
fn printed_to(arguments: &[&str], to: Stdio) -> (Option<i32>, String) {
    let folder = Folder::new();
    let table = "[upstreams.a]\nservers = [\"http://127.0.0.1:3000\"]\n";
    folder.write("gateway.toml", format!("{table}[routes.a]\npath = \"/*\"\nupstream = \"a\"\n"));
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(folder.path()).stdout(to).stderr(Stdio::piped());
    let output = command.output().expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_who_leaves_ends_a_command_without_a_word() {
    for arguments in PRINTING {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        // As a shell tells of what SIGPIPE has ended.
        let ended = printed_to(arguments, writer.into());
        assert_eq!(ended, (Some(141), String::new()), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    for arguments in PRINTING {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, said) = printed_to(arguments, full.into());
        let is_told = said.starts_with("cannot print to standard output: ");
        assert!(code == Some(1) && is_told, "{arguments:?}: {code:?} {said}");
    }
}

#[test]
fn nobody_needs_to_read_what_is_wrong() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = Command::new(BINARY);
    command.args(["check", "--config", "/nonexistent"]).stderr(writer).stdout(Stdio::piped());
    let output = command.output().expect("the binary runs");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(141), 0));
}

#[test]
fn a_misspelt_command_is_told_which_one_was_meant() {
    for (word, meant) in [("chek", "check"), ("statu", "status"), ("revok", "revoke")] {
        let said = run(&Folder::new(), &[word]);
        assert_eq!(said.code, Some(2), "{said:?}");
        let expected = format!("    help: did you mean `{meant}`?\n");
        assert!(said.stderr.ends_with(&expected), "{said:?}");
    }
    let said = run(&Folder::new(), &["bananas"]);
    assert!(said.code == Some(2) && !said.stderr.contains("did you mean"), "{said:?}");
}
