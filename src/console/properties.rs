//! What must hold of command lines and control groups, whatever other programs made of theirs.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use std::sync::LazyLock;

use super::other_end::{
    OtherEnd, Role, container, group, guest, guest_name, option, words as words_of,
};
use crate::process::Process;
use crate::properties::is_harmless;

/// A container's number, and what of it is shown.
const NUMBER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const HEAD: &str = "0123456789ab";

/// What programs are called that are looked at, and one that is not.
const PROGRAMS: [&str; 6] =
    ["qemu-system-x86", "conmon", "containerd-shim", "systemd-nspawn", "libvirt_lxc", "socat"];

/// A guest and a container are called as a word of the command line says, and every word can be such a
/// name. The first byte says which program it is.
pub fn command_line(bytes: &[u8]) {
    let Some((&first, line)) = bytes.split_first() else { return };
    let program = PROGRAMS[usize::from(first) % PROGRAMS.len()];
    let words = words_of(line);
    is_an_option_of_its_own(&words, &["-name", "--name"]);
    is_an_option_of_its_own(&words, &["-n"]);

    let guest_here = guest(program, &words);
    let is_qemu = program == PROGRAMS[0] || words[0].contains("qemu") || words[0].contains("kvm");
    assert!(is_qemu || guest_here.is_none(), "{guest_here:?} of {words:?}");
    assert!(program != PROGRAMS[0] || guest_here.is_some(), "no guest of {words:?}");
    if let Some(Role::Guest(Some(name))) = &guest_here {
        // In a word, with its commas doubled.
        let written = name.replace(',', ",,");
        assert!(words[1..].iter().any(|word| word.contains(&written)), "{name} of {words:?}");
    }
    let kept = container(program, &words);
    if let Some(name) = &kept {
        assert!(words.iter().any(|word| word.contains(name)), "{name} of {words:?}");
        let is_number = name.len() == NUMBER.len() && name.bytes().all(|it| it.is_ascii_hexdigit());
        assert!(!is_number, "{name} is not short");
    }
    shows_harmless(guest_here);
    shows_harmless(kept.map(Role::Container));
    for name in &words {
        can_be_a_name(name, &words);
    }
}

/// The value of an option is the word after it or the rest of its own; and where there is none, nothing
/// looks like one. The program's own name is no option.
fn is_an_option_of_its_own(words: &[String], names: &[&str]) {
    let all: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let values = (0..all.len()).filter_map(|place| {
        let joined = |name: &&str| all[place].strip_prefix(*name)?.strip_prefix('=');
        let apart = || all.get(place + 1).copied().filter(|_| names.contains(&all[place]));
        names.iter().find_map(joined).or_else(apart)
    });
    assert_eq!(option(words, names), values.into_iter().next(), "{names:?} of {words:?}");
}

/// A name is read as it was written, among whatever other `words`.
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
    // What is as long may be a number, of which the head is enough.
    if name.len() != NUMBER.len() {
        assert_eq!(told("-n").as_deref(), Some(name));
    }
    let number = ["conmon".to_owned(), format!("--cid={NUMBER}")];
    assert_eq!(container("conmon", &number).as_deref(), Some(HEAD));
}

/// A container's name is a part of a path there; and a line that names one does, whatever stands before.
pub fn control_group(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned() + "\n";
    let found = group(&text);
    if let Some(name) = &found {
        let is_part = |part: &str| part.contains(name.as_str());
        assert!(text.lines().flat_map(|line| line.split('/')).any(is_part), "{name} of {text}");
        let is_number = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(!is_number, "{name} is not short");
    }
    for line in [format!("0::/system.slice/docker-{NUMBER}.scope"), format!("4:memory:/x/{NUMBER}")]
    {
        let with = group(&format!("{text}{line}\n"));
        assert_eq!(with, found.clone().or_else(|| Some(HEAD.to_owned())), "{text}");
    }
    shows_harmless(found.map(Role::Container));
}

static OURSELVES: LazyLock<Option<Process>> = LazyLock::new(|| Process::shown(Process::own_pid()));

/// What is shown of it cannot drive a terminal.
fn shows_harmless(role: Option<Role>) {
    let Some((role, process)) = role.zip(OURSELVES.clone()) else { return };
    is_harmless(&OtherEnd { process, role }.to_string());
}
