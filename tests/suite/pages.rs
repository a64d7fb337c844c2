//! completions/ and man/ are made from the command line's definition, and nothing in them is stale.
//!
//! To make them again after a change: `VCONSOLE_UPDATE=1 cargo test pages`.

mod completions;
mod sections;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use sections::Part;

#[test]
fn completions_and_man_pages_are_those_of_this_command_line() {
    let update = std::env::var_os("VCONSOLE_UPDATE").is_some();
    for (path, expected) in pages().into_iter().chain(completions::all()) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if update {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &expected).unwrap();
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{} is not what the command line says now: VCONSOLE_UPDATE=1 cargo test pages",
            path.display()
        );
    }
}

#[test]
fn every_flag_is_in_help_and_in_its_page() {
    for mut command in commands() {
        let help = command.render_long_help().to_string();
        let page = String::from_utf8(page(&command)).unwrap().replace("\\-", "-");
        let arguments: Vec<_> =
            command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned().collect();
        for argument in arguments {
            let Some(long) = argument.get_long().map(|long| format!("--{long}")) else { continue };
            let name = command.get_name();
            assert!(help.contains(&long), "{long} is not in the help of {name}");
            assert!(page.contains(&long), "{long} is not in the page of {name}");
            if let Some(short) = argument.get_short().map(|short| format!("-{short}")) {
                assert!(help.contains(&short), "{short} is not in the help of {name}");
                assert!(page.contains(&short), "{short} is not in the page of {name}");
            }
        }
    }
}

#[test]
fn every_page_has_the_sections_that_people_look_for() {
    for command in commands() {
        let page = String::from_utf8(page(&command)).unwrap();
        let wanted = ["EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"];
        for section in wanted {
            assert!(
                page.contains(&format!(".SH \"{section}\""))
                    || page.contains(&format!(".SH {section}")),
                "{} has no {section}",
                command.get_name()
            );
        }
    }
}

/// The program and each of its subcommands, with the names that their pages have.
fn commands() -> Vec<Command> {
    let mut program = vconsole::command_line();
    program.build();
    let subcommands = program.get_subcommands().map(|subcommand| {
        let name = format!("vconsole-{}", subcommand.get_name());
        let call = format!("vconsole {}", subcommand.get_name());
        // clap takes names that live as long as the program.
        subcommand.clone().name(&*name.leak()).bin_name(call)
    });
    let subcommands: Vec<_> = subcommands.collect();
    [program].into_iter().chain(subcommands).collect()
}

fn pages() -> Vec<(PathBuf, Vec<u8>)> {
    let file = |command: &Command| Path::new("man").join(format!("{}.1", command.get_name()));
    commands().iter().map(|command| (file(command), page(command))).collect()
}

fn page(command: &Command) -> Vec<u8> {
    // No date: it would be that of the last change to the text, which nobody keeps.
    let command = &command.clone().version(env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).manual("vconsole").date("");
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    // clap_mangen's own has no order of words, and no dots.
    let usage = command.clone().render_usage().to_string();
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    synopsis.text([roman(usage.trim_start_matches("Usage: "))]);
    synopsis.to_writer(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page).unwrap();
    }
    let mut more = Roff::new();
    for (title, parts) in sections::of(command.get_name()) {
        more.control("SH", [*title]);
        for part in *parts {
            render(*part, &mut more);
        }
    }
    more.to_writer(&mut page).unwrap();
    page
}

fn render(part: Part, page: &mut Roff) {
    match part {
        Part::Text(text) => {
            page.control("PP", []).text([roman(text)]);
        }
        Part::Item(term, text) => {
            page.control("TP", []).text([bold(term)]).text([roman(text)]);
        }
        Part::Keys => {
            for (keys, description) in vconsole::key_commands() {
                page.control("TP", []).text([bold(keys)]).text([roman(description)]);
            }
        }
        Part::Example(lines) => {
            page.control("PP", []).control("nf", []);
            page.control("RS", ["4"]);
            for line in lines.lines() {
                page.text([Inline::Roman(line.to_owned())]);
            }
            page.control("RE", []).control("fi", []);
        }
    }
}

#[test]
fn every_exit_status_of_attach_is_in_its_help_and_in_its_page() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.unwrap();
    let (_, table) = readme.split_once("## Exit statuses").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let row = |line: &str| Some(line.strip_prefix("| ")?.split(' ').next()?.to_owned());
    let statuses: Vec<String> = table.lines().filter_map(row).skip(1).collect();
    assert!(statuses.len() > 8, "{statuses:?}");
    let mut attach = commands().into_iter().find(|it| it.get_name().ends_with("attach")).unwrap();
    let help = attach.render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, in_help) = help.split_once("Exit status: ").unwrap();
    let page = String::from_utf8(page(&attach)).unwrap().replace("\\-", "-");
    let (_, in_page) = page.split_once("EXIT STATUS").unwrap();
    for status in statuses {
        let is_it = |text: &str| text.starts_with(&format!("{status} "));
        assert!(in_help.split(", ").any(is_it), "{status} is not in the help: {help}");
        let item = format!(r"\fB{status}\fR");
        assert!(in_page.lines().any(|line| line == item), "{status} is not in the page: {in_page}");
    }
}
