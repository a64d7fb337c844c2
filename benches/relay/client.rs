//! The programs that are compared.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::bound::BOUND;
use crate::program::vconsole;

/// A program that relays between a console and a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Bound,
    Vconsole,
    Socat,
    Picocom,
    Tio,
    Minicom,
}

impl Client {
    /// Those that are here, the bound and vconsole first.
    pub(crate) fn all() -> Vec<Self> {
        let all =
            [Self::Bound, Self::Vconsole, Self::Socat, Self::Picocom, Self::Tio, Self::Minicom];
        let path = env::var_os("PATH").unwrap_or_default();
        let is_here = |client: &Self| {
            matches!(client, Self::Bound | Self::Vconsole)
                || env::split_paths(&path).any(|it| it.join(client.name()).is_file())
        };
        all.into_iter().filter(is_here).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Vconsole => "vconsole",
            Self::Socat => "socat",
            Self::Picocom => "picocom",
            Self::Tio => "tio",
            Self::Minicom => "minicom",
        }
    }

    /// How much it moves in a few tenths of a second, in bytes: so that a round of the slow ones ends.
    pub(crate) fn portion(self) -> usize {
        const MB: usize = 1_000_000;
        match self {
            Self::Bound | Self::Vconsole | Self::Socat => 32 * MB,
            Self::Picocom => 4 * MB,
            Self::Minicom => MB,
            Self::Tio => MB / 4,
        }
    }

    /// Whether it takes a large paste at all: minicom stops for good.
    pub(crate) fn pastes(self) -> bool {
        self != Self::Minicom
    }

    /// Its command line for `console`, with all that it does by itself: vconsole with its locks (in
    /// `locks`), its guard and its session's socket.
    pub(crate) fn command(self, console: &Path, locks: &Path) -> Command {
        let mut command = match self {
            Self::Bound => Command::new(env::current_exe().unwrap()),
            Self::Vconsole => Command::new(vconsole()),
            _ => Command::new(self.name()),
        };
        match self {
            Self::Bound => command.arg(BOUND).arg(console),
            Self::Vconsole => {
                command.arg("attach").arg("--quiet").arg("--lock-dir").arg(locks).arg(console)
            }
            // With the largest buffer that helps it.
            Self::Socat => command.arg("-b65536").arg("-,raw,echo=0").arg({
                let mut address = std::ffi::OsString::from("OPEN:");
                address.push(console);
                address.push(",raw,echo=0");
                address
            }),
            Self::Picocom => command.arg("-q").arg(console),
            Self::Tio => command.arg(console),
            Self::Minicom => command.arg("-D").arg(console),
        };
        command.env("TERM", "xterm");
        command
    }
}
