//! Finding a console by its name, without opening it.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::iter;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::console::kind::{DeviceClass, Kind};
use crate::console::login;
use crate::device::{self, Device};
use crate::printable::Printable;
use crate::process::Process;
use crate::process::snapshot::ProcessSnapshot;
use crate::user_name;

#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Every known name: the one given, each symlink behind that, other nodes that open the same
    /// port, the device itself.
    pub(crate) names: Vec<PathBuf>,
    pub(super) device: Device,
    pub(crate) kind: Kind,
    /// Its node, held without opening the device (`O_PATH`, open(2)). `None` in a survey of all
    /// consoles.
    pub(super) node: Option<Arc<File>>,
}

/// Why something cannot be attached to: exit status 6. The names are safe to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// Nothing has that name, or the path to it is broken.
    #[error("there is no console {name}")]
    Missing { name: String, source: io::Error },
    #[error("{name} is {what}, not a console")]
    AnotherKind { name: String, what: &'static str },
    /// The side of a PTY that a VMM or terminal emulator holds.
    #[error("{name} is the master side of a PTY, not a console")]
    Master { name: String },
    #[error("{name} is your own terminal")]
    OwnTerminal { name: String },
    #[error("{name} is the terminal of {process}, not a console")]
    LoginTerminal { name: String, process: Box<Process> },
    #[error("{name} may not be opened: it belongs to {owner} and group {group}, mode {mode:04o}")]
    NotPermitted { name: String, owner: String, group: String, mode: u32 },
    /// It was replaced between looking at it and opening it.
    #[error("{name} became another device meanwhile")]
    Replaced { name: String },
}

impl TargetError {
    pub(crate) fn hint(&self) -> String {
        let hint = match self {
            Self::Missing { name, .. } if is_serial(name) => {
                "`vconsole status` shows which consoles there are; a USB adapter has its port only \
                 while it is plugged in"
            }
            Self::Missing { .. } => {
                "`virsh ttyconsole DOMAIN` names a virtual machine's console; `vconsole host` makes \
                 one to try"
            }
            Self::AnotherKind { .. } | Self::Replaced { .. } => {
                "name the slave side of a PTY (/dev/pts/N) or a serial port (/dev/ttyS0)"
            }
            Self::Master { .. } => "name its slave side, /dev/pts/N",
            Self::OwnTerminal { .. } => {
                "name another console: reading this one would take your own keystrokes away"
            }
            Self::LoginTerminal { .. } => {
                "reading it would take half of what is typed there; --force does not change that"
            }
            Self::NotPermitted { group, mode, .. } if mode & 0o060 == 0o060 => {
                return format!("join the group {group}, or become the owner or root");
            }
            Self::NotPermitted { .. } => "become its owner or root",
        };
        hint.to_owned()
    }
}

impl Target {
    /// Finds the console `given` as a path or as a bare name in `/dev`, without opening it.
    pub(crate) fn find(given: &Path) -> Result<Self, TargetError> {
        let name = || Printable::new(given).to_string();
        let missing = |source| TargetError::Missing { name: name(), source };
        let path = in_dev(given);
        let node = match rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(node) => Some(File::from(node)),
            // EMFILE is reported when the console is opened.
            Err(Errno::MFILE | Errno::NFILE) => None,
            Err(errno) => return Err(missing(errno.into())),
        };
        let file = node.as_ref().map_or_else(|| fs::metadata(&path), File::metadata);
        let file = file.map_err(missing)?;
        let device = Device::of(&file)
            .ok_or_else(|| TargetError::AnotherKind { name: name(), what: what_it_is(&file) })?;
        let kind = match DeviceClass::of(device) {
            DeviceClass::Terminal(kind) => kind,
            DeviceClass::PtyMaster => return Err(TargetError::Master { name: name() }),
            DeviceClass::OwnTerminal => return Err(TargetError::OwnTerminal { name: name() }),
            DeviceClass::Other => {
                let what = "a character device that is no terminal line";
                return Err(TargetError::AnotherKind { name: name(), what });
            }
        };
        let mut names = every_name(&path).map_err(missing)?;
        if kind == Kind::Serial {
            add_aliases(&mut names, device);
        }
        Ok(Self { names, device, kind, node: node.map(Arc::new) })
    }

    /// Refuses our own terminal, a console that we may not open, and a login terminal.
    pub(crate) fn check_access(&self, snapshot: &ProcessSnapshot) -> Result<(), TargetError> {
        if login::is_our_own(self.device) {
            return Err(TargetError::OwnTerminal { name: self.to_string() });
        }
        let access = Access::READ_OK | Access::WRITE_OK;
        if rustix::fs::accessat(CWD, self.path(), access, AtFlags::EACCESS).is_err() {
            return Err(self.not_permitted());
        }
        self.check_login(snapshot)
    }

    /// Refuses our own terminal, and a login terminal.
    pub(crate) fn check_login(&self, snapshot: &ProcessSnapshot) -> Result<(), TargetError> {
        let name = self.to_string();
        if login::is_our_own(self.device) {
            return Err(TargetError::OwnTerminal { name });
        }
        match login::logged_in(self.device, self.kind, snapshot) {
            None => Ok(()),
            Some(it) => Err(TargetError::LoginTerminal { name, process: Box::new(it.clone()) }),
        }
    }

    /// The path of the device itself.
    pub(crate) fn path(&self) -> &Path {
        self.names.last().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Every known node that opens it, its own first.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Path> {
        let aliases = self.names.iter().rev().skip(1).map(PathBuf::as_path);
        iter::once(self.path()).chain(aliases.filter(|path| device::is_alias(path)))
    }

    /// Adds the names by which the same console was found once more.
    pub(crate) fn also_called(&mut self, other: &Self) {
        let new = other.names.iter().filter(|name| !self.names.contains(name)).cloned();
        let new: Vec<PathBuf> = new.collect();
        self.names.splice(0..0, new);
    }

    /// Whether the device that its path leads to now is still this console.
    pub(crate) fn is_still(&self, now: Device) -> bool {
        now == self.device && !self.is_gone()
    }

    /// Whether this PTY is gone. Its number can be given to another PTY a moment later, but its node
    /// has lost its name for ever (measured on Linux 6.18). A serial port is its number.
    fn is_gone(&self) -> bool {
        let unlinked = |node: &File| node.metadata().is_ok_and(|node| node.nlink() == 0);
        self.kind == Kind::Pty && self.node.as_deref().is_some_and(unlinked)
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    pub(super) fn not_permitted(&self) -> TargetError {
        let name = self.to_string();
        let file = match fs::metadata(self.path()) {
            Ok(file) => file,
            Err(source) => return TargetError::Missing { name, source },
        };
        TargetError::NotPermitted {
            name,
            owner: user_name::of(file.uid()),
            group: user_name::of_group(file.gid()),
            mode: file.mode() & 0o7777,
        }
    }
}

impl std::fmt::Display for Target {
    /// The name it was found by, safe to show.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given = self.names.first().map_or(Path::new(""), PathBuf::as_path);
        Printable::new(given).fmt(out)
    }
}

fn is_serial(name: &str) -> bool {
    name.strip_prefix("/dev/").unwrap_or(name).starts_with("tty")
}

/// `ttyS0` and `pts/5` mean those in `/dev`, unless the working directory has such a file.
fn in_dev(given: &Path) -> PathBuf {
    let bare = given.components().all(|part| matches!(part, Component::Normal(_)));
    let in_dev = Path::new("/dev").join(given);
    if bare && !given.as_os_str().is_empty() && !given.exists() && in_dev.exists() {
        in_dev
    } else {
        given.to_path_buf()
    }
}

/// The absolute path as given, each symlink behind it, and the device, in resolved directories.
fn every_name(path: &Path) -> io::Result<Vec<PathBuf>> {
    let device = fs::canonicalize(path)?;
    // As it was typed, with unresolved directories: minicom uses that name too.
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

/// Adds `/dev/console` and `/dev/tty0` before the port's own node, if they open the same port.
pub(super) fn add_aliases(names: &mut Vec<PathBuf>, device: Device) {
    let aliases: Vec<PathBuf> = device.aliases().filter(|alias| !names.contains(alias)).collect();
    let own_node = match names.last() {
        Some(last) if device::is_alias(last) => {
            let name = device::terminal_name(device.packed());
            let port = name.map(|name| Path::new("/dev").join(name));
            // In a container it may be missing.
            port.filter(|port| fs::metadata(port).is_ok_and(|it| Device::of(&it) == Some(device)))
        }
        last => last.cloned(),
    };
    names.extend(aliases);
    names.extend(own_node);
    names.dedup();
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
