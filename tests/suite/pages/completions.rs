//! The shells' completions: made by `clap_complete` from the command line's definition, and taught that
//! a console is one of those that `vconsole status --names` finds. Where it finds none that fits, they
//! go on with file names.

use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;

/// The commands whose arguments are consoles.
const COMMANDS: [&str; 2] = ["attach", "status"];

/// The option by which consoles are asked for: not for people.
const HIDDEN: &str = "names";

/// What its help says.
const HIDDEN_HELP: &str = "for the shells";

/// Every file of `completions/`, and what has to be in it.
pub(crate) fn all() -> Vec<(PathBuf, Vec<u8>)> {
    let files = [
        ("vconsole.bash", bash()),
        ("_vconsole", zsh()),
        ("vconsole.fish", fish()),
        ("vconsole.elv", generated(Shell::Elvish)),
    ];
    files.map(|(file, script)| (Path::new("completions").join(file), script.into_bytes())).into()
}

fn generated(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut vconsole::command_line(), "vconsole", &mut script);
    let script = String::from_utf8(script).unwrap();
    // It does not know of hidden options: bash has all in one line, the others each in its own.
    assert!(script.contains(HIDDEN), "clap_complete knows now what is hidden");
    let (flag, fish_flag) = (format!("--{HIDDEN}"), format!("-l {HIDDEN} "));
    let own_line = |line: &&str| {
        line.contains(&fish_flag)
            || line.contains(&format!("{flag}["))
            || line.contains(&format!("cand {flag} "))
    };
    let script = script.lines().filter(|line| !own_line(line)).map(|line| line.to_owned() + "\n");
    let script = script.collect::<String>().replace(&format!(" {flag}"), "");
    assert!(!script.contains(HIDDEN_HELP), "{script}");
    script
}

/// `text` with `from` replaced, which must be in it: what `clap_complete` writes may change.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "clap_complete no longer writes {from}");
    text.replace(from, to)
}

/// The options after which a value follows, and no console.
fn options_with_values() -> String {
    let program = vconsole::command_line();
    let commands = COMMANDS.map(|name| program.find_subcommand(name).unwrap());
    let arguments = commands.into_iter().flat_map(Command::get_arguments);
    let valued = arguments.filter(|argument| {
        !argument.is_positional()
            && argument.get_action().takes_values()
            && !argument.is_require_equals_set()
    });
    let mut flags: Vec<String> = valued
        .flat_map(|argument| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            long.into_iter().chain(argument.get_short().map(|short| format!("-{short}")))
        })
        .collect();
    flags.sort();
    flags.dedup();
    flags.join("|")
}

/// bash completes by one function: another stands before it.
fn bash() -> String {
    let script = replaced(
        &generated(Shell::Bash),
        "complete -F _vconsole ",
        "complete -F _vconsole_console ",
    );
    let function = r#"
# A console where one is due: one of those that are there, or else a file.
_vconsole_console() {
    local console
    _vconsole "$@"
    case "${COMP_WORDS[1]}" in COMMANDS) ;; *) return 0 ;; esac
    [[ ${COMP_CWORD} -ge 2 && $2 != -* ]] || return 0
    case "$3" in OPTIONS|=) return 0 ;; esac
    COMPREPLY=()
    while IFS= read -r console; do
        [[ ${console} == "$2"* ]] && COMPREPLY+=("${console}")
    done < <("$1" status --names 2>/dev/null)
    return 0
}

"#;
    let function = function
        .replace("COMMANDS)", &format!("{})", COMMANDS.join("|")))
        .replace("OPTIONS|", &format!("{}|", options_with_values()));
    let (definition, registration) = script.split_once("\nif [[ ").unwrap();
    format!("{definition}{function}if [[ {registration}")
}

/// zsh completes each argument by what its description says.
fn zsh() -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in generated(Shell::Zsh).lines() {
        // Its value comes behind an equals sign, or not at all.
        let line = line.replace("'--watch=[", "'--watch=-[").replace("'--wait=[", "'--wait=-[");
        let console = line.starts_with("':console -- ") || line.starts_with("'*::consoles -- ");
        let line = if console { replaced(&line, ":_files'", ":_vconsole_console'") } else { line };
        lines.push(line);
    }
    let function = r#"(( $+functions[_vconsole_console] )) ||
_vconsole_console() {
    local expl
    local -a consoles
    consoles=(${(f)"$(_call_program consoles vconsole status --names 2>/dev/null)"})
    _wanted consoles expl console compadd -a consoles || _files
}

if [ "$funcstack[1]" = "_vconsole" ]; then"#;
    let script = lines.join("\n") + "\n";
    assert_eq!(script.matches(":_vconsole_console'").count(), COMMANDS.len());
    replaced(&script, "if [ \"$funcstack[1]\" = \"_vconsole\" ]; then", function)
}

/// fish asks whatever was said to complete a place.
fn fish() -> String {
    let function = r#"
# A console: one of those that are there, or else a file.
function __fish_vconsole_console
    set -l typed (commandline -ct)
    set -l consoles (vconsole status --names 2>/dev/null | string match -- "$typed*")
    if set -q consoles[1]
        string join \n $consoles
    else
        __fish_complete_path "$typed"
    end
end

"#;
    let using = format!("__fish_vconsole_using_subcommand {}", COMMANDS.join(" "));
    let console =
        format!("complete -c vconsole -n \"{using}\" -f -a \"(__fish_vconsole_console)\"\n");
    // The values of --watch and --wait are never the next word.
    let watch = |line: &str| {
        if line.contains(" -l watch ") || line.contains(" -l wait ") {
            replaced(line, "' -r", "'")
        } else {
            line.to_owned()
        }
    };
    let script: String = generated(Shell::Fish).lines().map(|line| watch(line) + "\n").collect();
    let (functions, completions) = script.split_once("\ncomplete ").unwrap();
    format!("{functions}{function}complete {completions}{console}")
}
