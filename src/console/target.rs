//! Finding a console by its name, without opening it.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{Access, AtFlags, CWD};

use super::kind::Driver;
use super::{Device, Kind, discover, owner};
use crate::printable::Printable;
use crate::process::{Census, Openers, Process};

/// A console that was found by its name, and not opened.
#[derive(Clone, Debug)]
pub struct Target {
    /// Every name of it that we know: as it was given, each symlink behind that, the device itself.
    pub(super) names: Vec<PathBuf>,
    pub(super) device: Device,
    pub(super) kind: Kind,
    /// When its node was made or last changed (`st_ctime`), in seconds and nanoseconds: a PTY's number
    /// can be another's a moment later.
    pub(super) changed: (i64, i64),
}

/// Why something cannot be attached to: exit status 6.
#[derive(Debug, thiserror::Error)]
pub enum NotAConsole {
    /// Nothing has that name, or the path to it is broken.
    #[error("there is no console {name}")]
    Missing {
        /// The name, safe to show.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is another kind of file.
    #[error("{name} is {what}, not a console")]
    AnotherKind {
        /// The name, safe to show.
        name: String,
        /// What it is, with its article.
        what: &'static str,
    },
    /// It is the side of a PTY that a VMM or terminal emulator holds.
    #[error("{name} is the master side of a PTY, not a console")]
    Master {
        /// The name, safe to show.
        name: String,
    },
    /// It is where we run.
    #[error("{name} is your own terminal")]
    OwnTerminal {
        /// The name, safe to show.
        name: String,
    },
    /// Somebody is logged in on it.
    #[error("{name} is the terminal of {process}, not a console")]
    LoginTerminal {
        /// The name, safe to show.
        name: String,
        /// One of those who run on it.
        process: Box<Process>,
    },
    /// Its mode keeps us out.
    #[error("{name} may not be opened: it belongs to {owner} and group {group}, mode {mode:04o}")]
    NotPermitted {
        /// The name, safe to show.
        name: String,
        /// The owning user.
        owner: String,
        /// The owning group.
        group: String,
        /// The permission bits.
        mode: u32,
    },
    /// It was replaced between looking at it and opening it.
    #[error("{name} became another device meanwhile")]
    Replaced {
        /// The name, safe to show.
        name: String,
    },
}

impl NotAConsole {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { name, .. } if is_serial(name) => {
                "`vconsole status` shows which consoles there are; a USB adapter has its port only \
                 while it is plugged in"
                    .to_owned()
            }
            Self::Missing { .. } => "`virsh ttyconsole DOMAIN` names a virtual machine's console; \
                 `vconsole host` makes one to try"
                .to_owned(),
            Self::AnotherKind { .. } | Self::Replaced { .. } => {
                "name the slave side of a PTY (/dev/pts/N) or a serial port (/dev/ttyS0)".to_owned()
            }
            Self::Master { .. } => "name its slave side, /dev/pts/N".to_owned(),
            Self::OwnTerminal { .. } => {
                "name another console: reading this one would take your own keystrokes away"
                    .to_owned()
            }
            Self::LoginTerminal { .. } => {
                "reading it would take half of what is typed there; --force does not change that"
                    .to_owned()
            }
            Self::NotPermitted { group, mode, .. } if mode & 0o060 == 0o060 => {
                format!("join the group {group}, or become the owner or root")
            }
            Self::NotPermitted { .. } => "become its owner or root".to_owned(),
        }
    }
}

impl Target {
    /// Finds the console with the name `given`: a path, or a bare name that is in `/dev`.
    ///
    /// Nothing is opened. What is no console, or may not be opened, is refused.
    pub fn find(given: &Path) -> Result<Self, NotAConsole> {
        let name = || Printable::new(given).to_string();
        let missing = |source| NotAConsole::Missing { name: name(), source };
        let path = in_dev(given);
        let file = fs::metadata(&path).map_err(missing)?;
        let device = Device::of(&file)
            .ok_or_else(|| NotAConsole::AnotherKind { name: name(), what: what_it_is(&file) })?;
        let kind = match Driver::of(device) {
            Driver::Line(kind) => kind,
            Driver::PtyMaster => return Err(NotAConsole::Master { name: name() }),
            Driver::OwnTerminal => return Err(NotAConsole::OwnTerminal { name: name() }),
            Driver::Other => {
                let what = "a character device that is no terminal line";
                return Err(NotAConsole::AnotherKind { name: name(), what });
            }
        };
        let names = every_name(&path).map_err(missing)?;
        Ok(Self { names, device, kind, changed: discover::changed(&file) })
    }

    /// Refuses a line that one of those who have it open is logged in on, our own above all, and one
    /// that we may not open.
    pub fn check_that_it_may_be_driven(&self, openers: &Openers) -> Result<(), NotAConsole> {
        let name = self.to_string();
        if owner::is_our_own(self.device) {
            return Err(NotAConsole::OwnTerminal { name });
        }
        if rustix::fs::accessat(
            CWD,
            self.path(),
            Access::READ_OK | Access::WRITE_OK,
            AtFlags::EACCESS,
        )
        .is_err()
        {
            return Err(self.not_permitted());
        }
        if let Some(process) = owner::logged_in(self.device, self.kind, openers) {
            return Err(NotAConsole::LoginTerminal { name, process: Box::new(process) });
        }
        Ok(())
    }

    /// Refuses a line that somebody is logged in on, our own above all, as far as a census tells.
    pub fn check_that_it_is_no_terminal(&self, census: &Census) -> Result<(), NotAConsole> {
        let name = self.to_string();
        if owner::is_our_own(self.device) {
            return Err(NotAConsole::OwnTerminal { name });
        }
        match owner::logged_in_of(self.device, self.kind, census) {
            None => Ok(()),
            Some(process) => {
                Err(NotAConsole::LoginTerminal { name, process: Box::new(process.clone()) })
            }
        }
    }

    /// Every name of it that we know: as it was given, each symlink behind that, the device itself.
    #[must_use]
    pub fn names(&self) -> &[PathBuf] {
        &self.names
    }

    /// The path of the device itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.names.last().map_or(Path::new(""), PathBuf::as_path)
    }

    /// What kind of line it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Adds the names by which the same console was found once more.
    pub fn also_called(&mut self, other: &Self) {
        let known = &self.names;
        let new = other.names.iter().filter(|name| !known.contains(name)).cloned();
        let mut names: Vec<PathBuf> = new.collect();
        names.append(&mut self.names);
        self.names = names;
    }

    /// When its node was made or last changed (`st_ctime`), in seconds and nanoseconds.
    #[must_use]
    pub fn changed(&self) -> (i64, i64) {
        self.changed
    }

    /// Whether the device `now`, whose node was made or last changed at `changed`, is the same console. The
    /// number of a PTY is given again, and only the time tells. A port is what its number says: it can have
    /// several nodes, and udev and others change the mode of one at any time.
    #[must_use]
    pub fn is_still(&self, now: Device, changed: (i64, i64)) -> bool {
        now == self.device && (self.kind == Kind::Serial || changed == self.changed)
    }

    /// What tells it from all others.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    pub(super) fn not_permitted(&self) -> NotAConsole {
        let name = self.to_string();
        let file = match fs::metadata(self.path()) {
            Ok(file) => file,
            Err(source) => return NotAConsole::Missing { name, source },
        };
        let owner = User::from_uid(Uid::from_raw(file.uid())).ok().flatten();
        let group = Group::from_gid(Gid::from_raw(file.gid())).ok().flatten();
        NotAConsole::NotPermitted {
            name,
            owner: owner.map_or_else(|| file.uid().to_string(), |user| user.name),
            group: group.map_or_else(|| file.gid().to_string(), |group| group.name),
            mode: file.mode() & 0o7777,
        }
    }
}

impl std::fmt::Display for Target {
    /// The name it was found by, safe to show on a terminal.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given = self.names.first().map_or(Path::new(""), PathBuf::as_path);
        Printable::new(given).fmt(out)
    }
}

/// Whether something with that name would be a serial port.
fn is_serial(name: &str) -> bool {
    name.strip_prefix("/dev/").unwrap_or(name).starts_with("tty")
}

/// `ttyS0` and `pts/5` mean the ones in `/dev`, unless the working directory has such a file.
fn in_dev(given: &Path) -> PathBuf {
    let bare = given.components().all(|part| matches!(part, Component::Normal(_)));
    let in_dev = Path::new("/dev").join(given);
    if bare && !given.as_os_str().is_empty() && !given.exists() && in_dev.exists() {
        in_dev
    } else {
        given.to_path_buf()
    }
}

/// The absolute path as given, that of each symlink behind it, and that of the device. Of all but the
/// first the directories are resolved.
fn every_name(path: &Path) -> io::Result<Vec<PathBuf>> {
    let device = fs::canonicalize(path)?;
    // As it was typed, whatever its directories are: minicom takes no more notice of them.
    let mut names = vec![std::path::absolute(path)?];
    let mut next = path.to_path_buf();
    // The kernel follows no more than 40 symlinks in a path (`path_resolution(7)`).
    for _ in 0..40 {
        let directory = match next.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs::canonicalize(parent)?,
            _ => fs::canonicalize(".")?,
        };
        let here = directory.join(next.file_name().unwrap_or(OsStr::new("")));
        if here == device {
            break;
        }
        let Ok(to) = fs::read_link(&here) else { break };
        next = directory.join(to);
        names.push(here);
    }
    names.push(device);
    names.dedup();
    Ok(names)
}

fn what_it_is(file: &Metadata) -> &'static str {
    let kind = file.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a regular file"
    } else if kind.is_fifo() {
        "a fifo"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a block device"
    }
}
