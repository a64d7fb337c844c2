//! Properties of command lines and control groups of other programs.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use std::sync::LazyLock;

use crate::console::peer::{Peer, PeerKind, container, group, guest, guest_name, option, words};
use crate::printable::is_harmless;
use crate::process::Process;

const NUMBER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const HEAD: &str = "0123456789ab";
/// The known programs, and an unknown one.
const PROGRAMS: [&str; 6] =
    ["qemu-system-x86", "conmon", "containerd-shim", "systemd-nspawn", "libvirt_lxc", "socat"];

/// A guest and a container get their names from the words of a command line, and every word can be
/// a name. The first byte selects the program.
pub fn command_line(bytes: &[u8]) {
    let Some((&first, line)) = bytes.split_first() else { return };
    let program = PROGRAMS[usize::from(first) % PROGRAMS.len()];
    let words = words(line);
    is_an_option_of_its_own(&words, &["-name", "--name"]);
    is_an_option_of_its_own(&words, &["-n"]);
    let guest_here = guest(program, &words);
    let is_qemu = program == PROGRAMS[0] || words[0].contains("qemu") || words[0].contains("kvm");
    assert!(is_qemu || guest_here.is_none(), "{guest_here:?} of {words:?}");
    assert!(program != PROGRAMS[0] || guest_here.is_some(), "no guest of {words:?}");
    if let Some(PeerKind::Guest(Some(name))) = &guest_here {
        // Commas are doubled in the command line.
        let written = name.replace(',', ",,");
        let is_word = words[1..].iter().any(|word| word.contains(&written));
        assert!(is_word, "{name} of {words:?}");
    }
    let kept = container(program, &words);
    if let Some(name) = &kept {
        assert!(words.iter().any(|word| word.contains(name)), "{name} of {words:?}");
        assert!(!is_number(name), "{name} is not short");
    }
    shows_harmless(guest_here);
    shows_harmless(kept.map(PeerKind::Container));
    for name in &words {
        can_be_a_name(name, &words);
    }
}

/// The value of an option is the next word or the rest of its own; without a value no word looks
/// like one. The program's own name is no option.
fn is_an_option_of_its_own(words: &[String], names: &[&str]) {
    let all: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let values = (0..all.len()).filter_map(|place| {
        let joined = |name: &&str| all[place].strip_prefix(*name)?.strip_prefix('=');
        let apart = || all.get(place + 1).copied().filter(|_| names.contains(&all[place]));
        names.iter().find_map(joined).or_else(apart)
    });
    assert_eq!(option(words, names), values.into_iter().next(), "{names:?} of {words:?}");
}

/// A name is read as it was written, among any other `words`.
fn can_be_a_name(name: &str, words: &[String]) {
    let written = name.replace(',', ",,");
    for value in ["guest=NAME", "process=x,guest=NAME", "guest=NAME,debug-threads=on"] {
        assert_eq!(guest_name(&value.replace("NAME", &written)), name, "{value}");
    }
    if !name.starts_with("guest=") {
        assert_eq!(guest_name(&written), name);
    }
    let told = |option: &str| {
        let ours = ["conmon".to_owned(), option.to_owned(), name.to_owned()];
        container("conmon", &[&ours, words].concat())
    };
    // A text of that length may be a number.
    if name.len() != NUMBER.len() {
        assert_eq!(told("-n").as_deref(), Some(name));
    }
    let number = ["conmon".to_owned(), format!("--cid={NUMBER}")];
    assert_eq!(container("conmon", &number).as_deref(), Some(HEAD));
}

/// A container's name is part of a path, and a line that names one does so after any other lines.
pub fn control_group(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned() + "\n";
    let found = group(&text);
    if let Some(name) = &found {
        let is_part = |part: &str| part.contains(name.as_str());
        assert!(text.lines().flat_map(|line| line.split('/')).any(is_part), "{name} of {text}");
        assert!(!is_number(name), "{name} is not short");
    }
    for line in [format!("0::/system.slice/docker-{NUMBER}.scope"), format!("4:memory:/x/{NUMBER}")]
    {
        let with = group(&format!("{text}{line}\n"));
        assert_eq!(with, found.clone().or_else(|| Some(HEAD.to_owned())), "{text}");
    }
    shows_harmless(found.map(PeerKind::Container));
}

fn is_number(name: &str) -> bool {
    name.len() == NUMBER.len() && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

static OURSELVES: LazyLock<Option<Process>> = LazyLock::new(|| Process::shown(Process::own_pid()));

fn shows_harmless(role: Option<PeerKind>) {
    let Some((role, process)) = role.zip(OURSELVES.clone()) else { return };
    is_harmless(&Peer { process, role }.to_string());
}
