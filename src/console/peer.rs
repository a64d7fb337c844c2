//! The other end of a PTY: the guest, container or program that has its master.

use std::{fmt, fs};

use crate::printable::Printable;
use crate::process::Process;

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) process: Process,
    pub(crate) role: PeerKind,
}

/// The purpose for which such a process offers the PTY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerKind {
    /// A virtual machine of QEMU, with its name if it has one.
    Guest(Option<String>),
    /// A container, with its name or the beginning of its number.
    Container(String),
    Program,
}

/// The programs that keep a container's terminal, and their options for its name, the best first.
const KEEPERS: [(&str, &[&str]); 4] = [
    ("conmon", &["-n", "--name", "-c", "--cid"]),
    ("containerd-shim", &["-id", "--id"]),
    ("systemd-nspawn", &["-M", "--machine"]),
    ("libvirt_lxc", &["--name"]),
];

/// The prefixes of container names in control groups, by service manager and container engine.
const GROUPS: [&str; 6] =
    ["docker-", "libpod-", "crio-", "cri-containerd-", "lxc.payload.", "lxc.monitor."];

/// The digits of a container's number that its engine shows.
const SHORT: usize = 12;

impl Peer {
    /// Whether it is known to offer consoles: a guest, a container, or `vconsole host`.
    pub(crate) fn offers_consoles(&self) -> bool {
        self.role != PeerKind::Program || self.process.program.as_deref() == Some("vconsole")
    }

    /// Finds the role of `process` by its command line and control group, which all can read.
    pub(crate) fn of(process: Process) -> Self {
        let path = |file: &str| format!("/proc/{}/{file}", process.pid);
        let read = |file: &str| fs::read(path(file)).unwrap_or_default();
        let words = words(&read("cmdline"));
        let program = process.program.as_deref().unwrap_or_default();
        let container = || {
            container(program, &words)
                .or_else(|| group(&String::from_utf8_lossy(&read("cgroup"))))
                .map(PeerKind::Container)
        };
        let role = guest(program, &words).or_else(container).unwrap_or(PeerKind::Program);
        Self { process, role }
    }
}

impl fmt::Display for Peer {
    /// `guest vm1 (pid 812)`, safe to show.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            PeerKind::Guest(Some(name)) => write!(out, "guest {}", Printable::new(name))?,
            PeerKind::Guest(None) => out.write_str("a QEMU guest")?,
            PeerKind::Container(name) => write!(out, "container {}", Printable::new(name))?,
            PeerKind::Program => {
                Printable::new(self.process.program.as_deref().unwrap_or("?")).fmt(out)?;
            }
        }
        write!(out, " (pid {})", self.process.pid)
    }
}

pub(super) fn words(command_line: &[u8]) -> Vec<String> {
    let words = command_line.split(|&byte| byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The guest, with its name, if this is QEMU.
pub(super) fn guest(program: &str, words: &[String]) -> Option<PeerKind> {
    let called = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word));
    let qemu = |name: &str| name.starts_with("qemu-system") || name == "qemu-kvm" || name == "kvm";
    let name = || option(words, &["-name", "--name"]).map(guest_name);
    (qemu(program) || qemu(called)).then(|| PeerKind::Guest(name()))
}

/// The name in QEMU's `-name`: `guest=NAME,...` or `NAME,...`. A doubled comma is a comma.
pub(super) fn guest_name(value: &str) -> String {
    let value = value.replace(",,", "\0");
    let mut parts = value.split(',');
    let named = parts.clone().find_map(|part| part.strip_prefix("guest="));
    named.or_else(|| parts.next()).unwrap_or_default().replace('\0', ",")
}

/// The name of the container whose terminal this program keeps.
pub(super) fn container(program: &str, words: &[String]) -> Option<String> {
    // liblxc gives its process this command line: `[lxc monitor] /var/lib/lxc NAME`.
    if let Some(rest) = words.first().and_then(|first| first.strip_prefix("[lxc monitor] ")) {
        return rest.split(' ').nth(1).map(str::to_owned);
    }
    let (_, options) = KEEPERS.iter().find(|(keeper, _)| program.starts_with(keeper))?;
    options.iter().find_map(|name| option(words, &[name])).map(short)
}

/// The name of the container that a process runs in, by its control group.
pub(super) fn group(groups: &str) -> Option<String> {
    let mut paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.find_map(|path| {
        let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
        parts.find_map(|part| {
            let part = part.strip_suffix(".scope").unwrap_or(part);
            let named = GROUPS.iter().find_map(|group| part.strip_prefix(group));
            named.or((is_number(part)).then_some(part)).map(short)
        })
    })
}

/// The value of the first of these options: `-n NAME` or `--name=NAME`.
pub(super) fn option<'a>(words: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        for name in names {
            match word.strip_prefix(name) {
                Some("") => return words.next().map(String::as_str),
                Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
                _ => {}
            }
        }
    }
    None
}

fn is_number(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn short(name: &str) -> String {
    if is_number(name) { name[..SHORT].to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn line(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_guest_is_called_as_qemu_was_told() {
        let name = |text: &str| guest("qemu-system-x86", &line(text));
        let some = |name: &str| Some(PeerKind::Guest(Some(name.to_owned())));
        let libvirt = "/usr/bin/qemu-system-x86_64 -name guest=vm1,debug-threads=on";
        assert_eq!(name(libvirt), some("vm1"));
        assert_eq!(name("qemu-system-x86_64 -m 64 -name vm2,process=x"), some("vm2"));
        assert_eq!(name("qemu-system-x86_64 --name debug-threads=on,guest=a,,b"), some("a,b"));
        assert_eq!(name("qemu-system-x86_64 -name"), Some(PeerKind::Guest(None)));
        assert_eq!(name("qemu-system-x86_64 -serial pty"), Some(PeerKind::Guest(None)));
        assert_eq!(guest("renamed", &line("/usr/libexec/qemu-kvm -name vm3")), some("vm3"));
        assert_eq!(guest("socat", &line("socat -name qemu-system")), None);
    }

    #[test]
    fn a_container_is_called_as_its_keeper_was_told() {
        let some = |name: &str| Some(name.to_owned());
        let long = format!("conmon --api-version 1 -c {NUMBER} -u {NUMBER}");
        assert_eq!(container("conmon", &line(&long)), some(&NUMBER[..12]));
        assert_eq!(container("conmon", &line(&format!("{long} -n web"))), some("web"));
        let shim = format!("/usr/bin/containerd-shim-runc-v2 -namespace moby -id {NUMBER}");
        assert_eq!(container("containerd-shim", &line(&shim)), some(&NUMBER[..12]));
        let nspawn = "systemd-nspawn --keep-unit --machine=deb";
        assert_eq!(container("systemd-nspawn", &line(nspawn)), some("deb"));
        let lxc = [String::from("[lxc monitor] /var/lib/lxc box")];
        assert_eq!(container("lxc-start", &lxc), some("box"));
        assert_eq!(container("socat", &line("socat -n web")), None);
    }

    #[test]
    fn a_control_group_that_is_clearly_a_container_s_names_it() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(group(&format!("0::/system.slice/docker-{NUMBER}.scope")), some(&NUMBER[..12]));
        assert_eq!(group(&format!("4:memory:/docker/{NUMBER}\n")), some(&NUMBER[..12]));
        assert_eq!(group("0::/lxc.payload.box/init.scope"), some("box"));
        assert_eq!(group("0::/user.slice/user-1000.slice/session-3.scope\n1:cpu:/"), None);
        assert_eq!(group("half a line"), None);
    }
}
