//! What shells and manuals are told of the command line.

use std::process::{Command, Output};

use crate::support::{Folder, run};

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
