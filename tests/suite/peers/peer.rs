//! The programs of the field: how each is started on a console.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, chown};
use tempfile::TempDir;

use super::super::harness::{Program, missing};
use super::User;
use super::console::Console;
use super::libvirt::DOMAIN;

/// A program of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Minicom,
    /// `minicom -o`, which asks for no lock.
    MinicomO,
    Picocom,
    Tio,
    Cu,
    Kermit,
    Screen,
    Socat,
    Cat,
    Conserver,
    Virsh,
}

impl Peer {
    /// All that attach to any PTY: `virsh` does so only to its own guests'.
    pub(super) const ON_ANY_PTY: [Self; 10] = [
        Self::Minicom,
        Self::MinicomO,
        Self::Picocom,
        Self::Tio,
        Self::Cu,
        Self::Kermit,
        Self::Screen,
        Self::Socat,
        Self::Cat,
        Self::Conserver,
    ];

    /// Those that take a lock file or `flock`, and so can be kept out also when root runs them.
    pub(super) const ASK_FOR_A_LOCK: [Self; 5] =
        [Self::Minicom, Self::Picocom, Self::Tio, Self::Cu, Self::Kermit];

    /// Those that ask nobody: the exclusive flag alone keeps them out, and it does not bind root.
    pub(super) const ASK_FOR_NO_LOCK: [Self; 5] =
        [Self::MinicomO, Self::Screen, Self::Socat, Self::Cat, Self::Conserver];

    /// What a user would type.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Minicom => "minicom",
            Self::MinicomO => "minicom -o",
            Self::Picocom => "picocom",
            Self::Tio => "tio",
            Self::Cu => "cu",
            Self::Kermit => "kermit",
            Self::Screen => "screen",
            Self::Socat => "socat",
            Self::Cat => "cat",
            Self::Conserver => "conserver",
            Self::Virsh => "virsh",
        }
    }

    /// Whether it is not installed; if so it is said, and it should be left out.
    pub(super) fn is_missing(self) -> bool {
        match self {
            Self::Virsh => ["virsh", "libvirtd", "qemu-system-x86_64"].into_iter().any(missing),
            Self::MinicomO => missing("minicom"),
            other => missing(other.name()),
        }
    }

    /// Those of `peers` that are installed.
    pub(super) fn installed<const N: usize>(peers: [Self; N]) -> impl Iterator<Item = Self> {
        peers.into_iter().filter(|peer| !peer.is_missing())
    }

    /// Whether what is typed to it goes to the console. The others are watched by what they show.
    pub(super) fn types(self) -> bool {
        !matches!(self, Self::Cat | Self::Conserver)
    }

    /// What it says when it was refused and stays all the same.
    pub(super) fn says_refused(self) -> Option<&'static str> {
        (self == Self::Conserver).then_some("forcing down")
    }

    /// The command that attaches it to `console`.
    pub(super) fn program(self, console: &dyn Console, home: &Home) -> Program {
        let path = console.path();
        let name = Program::new(self.name());
        let program = match self {
            Self::Minicom => name.arg("-D").arg(path),
            Self::MinicomO => Program::new("minicom").args(["-o", "-D"]).arg(path),
            Self::Picocom | Self::Tio | Self::Cat => name.arg(path),
            Self::Cu => name.arg("-I").arg(home.uucp()).arg("-l").arg(path),
            Self::Kermit => name.args(["-Y", "-C"]).arg(format!(
                "set carrier-watch off, set line {}, if fail exit 1, connect",
                path.display()
            )),
            Self::Screen => name.args(["-c", "/dev/null"]).arg(path).arg("115200"),
            Self::Socat => name.arg("-,raw,echo=0").arg(format!("{},raw,echo=0", path.display())),
            Self::Conserver => name
                .args(["-M", "127.0.0.1", "-b", "0", "-L", "/dev/null", "-p"])
                .arg(free_port().to_string())
                .arg("-C")
                .arg(home.conserver(path)),
            Self::Virsh => {
                let uri = console.uri().expect("a console of libvirt's");
                name.args(["-c", uri, "console", DOMAIN])
            }
        };
        let program = program.env("HOME", home.path()).env("TERM", "vt100").env("LC_ALL", "C");
        program.env("SCREENDIR", home.screens())
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A home directory, so that nobody's own settings matter, and for the files that the programs need.
pub(super) struct Home {
    directory: TempDir,
    user: User,
}

impl Home {
    pub(super) fn of(user: User) -> Self {
        let directory = TempDir::with_prefix("vconsole-home-").unwrap();
        let home = Self { directory, user };
        home.give_away(home.path());
        home
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where screen has its sockets, one for each daemon: its mode must be 0700.
    pub(super) fn screens(&self) -> PathBuf {
        let path = self.path().join("screens");
        if !path.exists() {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
            self.give_away(&path);
        }
        path
    }

    /// What conserver has heard from its console, in its own log.
    pub(super) fn conserver_log(&self) -> PathBuf {
        self.path().join("console.log")
    }

    fn conserver(&self, console: &Path) -> PathBuf {
        let log = self.conserver_log();
        self.write(
            "conserver.cf",
            &format!(
                "config * {{ }}\n\
                 access * {{ trusted 127.0.0.1; }}\n\
                 console guest {{\n\
                 \tmaster localhost; rw *;\n\
                 \ttype device; device {}; baud 115200; parity none;\n\
                 \tlogfile {}; timestamp \"\";\n\
                 }}\n",
                console.display(),
                log.display(),
            ),
        )
    }

    /// Taylor UUCP's own configuration: everything that it would keep is kept here.
    fn uucp(&self) -> PathBuf {
        let home = self.path().display();
        self.write(
            "uucp",
            &format!("nodename here\nspool {home}\nlogfile {home}/log\nstatfile {home}/stats\n"),
        )
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        self.give_away(&path);
        path
    }

    fn give_away(&self, path: &Path) {
        if let Some((user, group)) = self.user.ids() {
            chown(path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))).unwrap();
        }
    }
}
