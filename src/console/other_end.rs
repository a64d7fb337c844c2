//! What is at the other end of a PTY: the guest, container or program that has its master.

use std::fmt;
use std::fs;

use crate::printable::Printable;
use crate::process::Process;

/// A process that has the master of a PTY, and what it has it for.
#[derive(Clone, Debug)]
pub struct OtherEnd {
    /// The process.
    pub process: Process,
    /// What it offers the PTY for.
    pub role: Role,
}

/// What offers a PTY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A virtual machine of QEMU's, with its name if it has one.
    Guest(Option<String>),
    /// A container, with its name or the head of its number.
    Container(String),
    /// Any other program.
    Program,
}

/// The programs that keep a container's terminal, and the options with which they are told whose: the
/// first that is there.
const KEEPERS: [(&str, &[&str]); 4] = [
    ("conmon", &["-n", "--name", "-c", "--cid"]),
    ("containerd-shim", &["-id", "--id"]),
    ("systemd-nspawn", &["-M", "--machine"]),
    ("libvirt_lxc", &["--name"]),
];

/// How a service manager and container engines call the control group of a container, before its name.
const GROUPS: [&str; 6] =
    ["docker-", "libpod-", "crio-", "cri-containerd-", "lxc.payload.", "lxc.monitor."];

/// So many digits of a container's number are enough to tell it, as its engine shows it.
const SHORT: usize = 12;

/// Programs that show terminals to people, or run others on terminals of their own: what such a one is
/// at the other end of is no console. The names are the kernel's, of at most 15 bytes.
const TERMINALS: [&str; 78] = [
    // Terminal emulators.
    "xterm",
    "uxterm",
    "rxvt",
    "urxvt",
    "urxvtd",
    "st",
    "gnome-terminal-",
    "kgx",
    "ptyxis",
    "ptyxis-agent",
    "konsole",
    "yakuake",
    "xfce4-terminal",
    "mate-terminal",
    "lxterminal",
    "qterminal",
    "terminator",
    "tilix",
    "tilda",
    "guake",
    "sakura",
    "termite",
    "terminology",
    "cool-retro-term",
    "alacritty",
    "kitty",
    "foot",
    "wezterm-gui",
    "ghostty",
    "contour",
    "rio",
    "hyper",
    "tabby",
    "warp",
    "code",
    "codium",
    "cursor",
    "electron",
    "fbterm",
    "kmscon",
    "ttyd",
    "gotty",
    "shellinaboxd",
    "cockpit-bridge",
    "emacs",
    "vim",
    "nvim",
    // Multiplexers, and sessions that outlive a connection.
    "screen",
    "tmux",
    "tmux: server",
    "zellij",
    "byobu",
    "dtach",
    "abduco",
    "dvtm",
    "shpool",
    "mosh-server",
    "etserver",
    "etterminal",
    "wezterm-mux-ser",
    // Logins over a network.
    "sshd",
    "sshd-session",
    "dropbear",
    "telnetd",
    "in.telnetd",
    "rlogind",
    "in.rlogind",
    // Those that run a program on a terminal of its own.
    "script",
    "scriptreplay",
    "sudo",
    "su",
    "run0",
    "systemd-run",
    "expect",
    "unbuffer",
    "asciinema",
    "ttyrec",
    "login",
];

/// Whether a process at the other end of a PTY makes that a terminal, and no console.
pub(super) fn shows_terminals(process: &Process) -> bool {
    let program = process.program.as_deref().unwrap_or_default();
    TERMINALS.contains(&program)
}

impl OtherEnd {
    /// Looks at what `process` is, by its command line and control group: both can be read of other
    /// users' processes, too.
    #[must_use]
    pub fn of(process: Process) -> Self {
        let read =
            |file: &str| fs::read(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
        let words = words(&read("cmdline"));
        let program = process.program.as_deref().unwrap_or_default();
        let container = || {
            container(program, &words)
                .or_else(|| group(&String::from_utf8_lossy(&read("cgroup"))))
                .map(Role::Container)
        };
        let role = guest(program, &words).or_else(container).unwrap_or(Role::Program);
        Self { process, role }
    }
}

impl fmt::Display for OtherEnd {
    /// `guest vm1 (pid 812)`, safe to show on a terminal.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Guest(Some(name)) => write!(out, "guest {}", Printable::new(name))?,
            Role::Guest(None) => out.write_str("a QEMU guest")?,
            Role::Container(name) => write!(out, "container {}", Printable::new(name))?,
            Role::Program => {
                let program = self.process.program.as_deref().unwrap_or("?");
                Printable::new(program).fmt(out)?;
            }
        }
        write!(out, " (pid {})", self.process.pid)
    }
}

pub(super) fn words(command_line: &[u8]) -> Vec<String> {
    let words = command_line.split(|&byte| byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// If this is QEMU: its guest, with the name that it has.
pub(super) fn guest(program: &str, words: &[String]) -> Option<Role> {
    let called = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word));
    let qemu = |name: &str| name.starts_with("qemu-system") || name == "qemu-kvm" || name == "kvm";
    let name = || option(words, &["-name", "--name"]).map(guest_name);
    (qemu(program) || qemu(called)).then(|| Role::Guest(name()))
}

/// What QEMU's `-name` names: `guest=NAME,...` or `NAME,...`, in which a doubled comma is a comma.
pub(super) fn guest_name(value: &str) -> String {
    let value = value.replace(",,", "\0");
    let mut parts = value.split(',');
    let named = parts.clone().find_map(|part| part.strip_prefix("guest="));
    named.or_else(|| parts.next()).unwrap_or_default().replace('\0', ",")
}

/// The name of the container whose terminal this program keeps.
pub(super) fn container(program: &str, words: &[String]) -> Option<String> {
    // liblxc calls its process by what it does: `[lxc monitor] /var/lib/lxc NAME`.
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

/// Whether this is a container's number: 64 hexadecimal digits.
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
        let some = |name: &str| Some(Role::Guest(Some(name.to_owned())));
        assert_eq!(
            name("/usr/bin/qemu-system-x86_64 -name guest=vm1,debug-threads=on"),
            some("vm1")
        );
        assert_eq!(name("qemu-system-x86_64 -m 64 -name vm2,process=x"), some("vm2"));
        assert_eq!(name("qemu-system-x86_64 --name debug-threads=on,guest=a,,b"), some("a,b"));
        assert_eq!(name("qemu-system-x86_64 -name"), Some(Role::Guest(None)));
        assert_eq!(name("qemu-system-x86_64 -serial pty"), Some(Role::Guest(None)));
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
