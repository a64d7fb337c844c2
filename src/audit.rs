//! The audit trail: who drove which console, and who was kept out or ended, in the system's log.
//!
//! Not by syslog(3): it waits for a log that takes nothing, and its socket's path is fixed. A datagram
//! is all there is to it.

use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;

use nix::unistd::{Uid, User, getuid};

use crate::printable::Printable;
use crate::process::Process;
use crate::test_point;

/// Where the system's log listens.
const LOG: &str = "/dev/log";

/// `LOG_AUTHPRIV`, as syslog(3) numbers facilities.
const AUTHPRIV: u8 = 10 << 3;

/// No value is longer than this.
const LONGEST: usize = 256;

/// Something that was done to a console, or tried.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// We drive it now.
    Attached {
        /// By which options: `plain`, `force`, `wait`, `read-only`.
        how: &'a str,
        /// What `--reason` says.
        reason: Option<&'a str>,
    },
    /// We waited for it, and that has ended.
    Waited {
        /// How: `got it`, or why not.
        end: &'a str,
        /// For so many seconds.
        seconds: u64,
    },
    /// The console was busy, and our user was asked what to do.
    Asked {
        /// What the answer was.
        answer: &'a str,
    },
    /// We were not let in.
    Refused {
        /// Why.
        why: &'a str,
    },
    /// Our session ended.
    Ended {
        /// Why.
        why: &'a str,
        /// So many bytes came from the console.
        received: u64,
        /// So many went to it.
        sent: u64,
    },
    /// Another session drives it now.
    TakenOver {
        /// Whose.
        by: &'a str,
        /// So many bytes came to ours from the console.
        received: u64,
        /// So many went to it.
        sent: u64,
    },
    /// A session that did not answer was ended by its guard, which gave it to another.
    TakenFromTheDead {
        /// Whose session has it now.
        by: &'a str,
        /// The process that was ended.
        session: i32,
    },
    /// Another session was given it, and did not take it: we drive it as before.
    NotTaken {
        /// Whose.
        by: &'a str,
    },
    /// We drive it now, and another did before.
    TookOver {
        /// From whom.
        from: &'a str,
        /// What `--reason` says.
        reason: Option<&'a str>,
    },
    /// We watch.
    Watches {
        /// Whose session.
        whom: &'a str,
        /// What `--reason` says.
        reason: Option<&'a str>,
    },
    /// Somebody watches our session.
    Watched {
        /// Who.
        by: &'a str,
    },
    /// Somebody wanted to watch our session, and does not.
    WatchRefused {
        /// Who.
        by: &'a str,
        /// Why not.
        why: &'a str,
    },
    /// Somebody talked to our session's socket who may not.
    PeerRefused {
        /// Who.
        peer: &'a str,
    },
    /// We made a program let go.
    Evicted {
        /// Which.
        whom: &'a str,
        /// By what.
        how: &'a str,
    },
}

/// Writes an event into the system's log, never waiting for it. Where there is none, or it takes
/// nothing, the event is lost.
pub fn record(console: &str, event: &Event<'_>) {
    let path = test_point::value("VCONSOLE_TEST_SYSLOG").unwrap_or_else(|| LOG.into());
    let Ok(socket) = UnixDatagram::unbound() else { return };
    if socket.set_nonblocking(true).is_err() || socket.connect(&path).is_err() {
        return;
    }
    // As syslog(3) sends it: RFC 3164, section 4.1, without a host.
    let (now, pid) = (
        jiff::Timestamp::now()
            .to_zoned_datetime(jiff::tz::TimeZone::system())
            .strftime("%b %e %H:%M:%S")
            .to_string(),
        Process::own_pid(),
    );
    let (priority, who) = (AUTHPRIV | event.severity(), who());
    let console = Value(console);
    let line = format!("<{priority}>{now} vconsole[{pid}]: {event} console={console} {who}");
    let _ = socket.send(line.as_bytes());
}

impl Event<'_> {
    /// `LOG_INFO` for what is usual, `LOG_NOTICE` for the rest.
    fn severity(&self) -> u8 {
        match self {
            Self::Attached { .. }
            | Self::Waited { .. }
            | Self::Watches { .. }
            | Self::Watched { .. }
            | Self::Ended { .. } => 6,
            _ => 5,
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |out: &mut fmt::Formatter<'_>, reason: Option<&str>| match reason {
            Some(reason) => write!(out, " reason={}", Value(reason)),
            None => Ok(()),
        };
        match *self {
            Self::Attached { how, reason } => {
                write!(out, "event=attached how={}", Value(how))?;
                because(out, reason)
            }
            Self::Refused { why } => write!(out, "event=refused why={}", Value(why)),
            Self::Waited { end, seconds } => {
                write!(out, "event=waited end={} seconds={seconds}", Value(end))
            }
            Self::Asked { answer } => write!(out, "event=asked answer={}", Value(answer)),
            Self::Ended { why, received, sent } => {
                write!(out, "event=ended why={} received={received} sent={sent}", Value(why))
            }
            Self::TakenOver { by, received, sent } => {
                write!(out, "event=taken-over by={} received={received} sent={sent}", Value(by))
            }
            Self::TakenFromTheDead { by, session } => {
                write!(out, "event=taken-over by={} ended={session}", Value(by))
            }
            Self::NotTaken { by } => write!(out, "event=not-taken by={}", Value(by)),
            Self::TookOver { from, reason } => {
                write!(out, "event=took-over from={}", Value(from))?;
                because(out, reason)
            }
            Self::Watches { whom, reason } => {
                write!(out, "event=watches whom={}", Value(whom))?;
                because(out, reason)
            }
            Self::Watched { by } => write!(out, "event=watched by={}", Value(by)),
            Self::WatchRefused { by, why } => {
                write!(out, "event=watch-refused by={} why={}", Value(by), Value(why))
            }
            Self::PeerRefused { peer } => write!(out, "event=peer-refused peer={}", Value(peer)),
            Self::Evicted { whom, how } => {
                write!(out, "event=evicted whom={} how={}", Value(whom), Value(how))
            }
        }
    }
}

/// Who we are: user, terminal, and where from.
fn who() -> String {
    let uid = getuid();
    let user = User::from_uid(Uid::from_raw(uid.as_raw())).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    let mut who = format!("user={} uid={uid}", Value(&user));
    if let Some(terminal) = Process::shown(Process::own_pid()).and_then(|own| own.terminal_name()) {
        let _ = write!(who, " tty={}", Value(&terminal));
    }
    // The user can make it say anything, and so it proves nothing: a hint where to ask.
    let ssh = std::env::var_os("SSH_CONNECTION").unwrap_or_default();
    if let Some(host) = ssh.to_string_lossy().split_ascii_whitespace().next() {
        let _ = write!(who, " ssh={}", Value(host));
    }
    who
}

/// A value that others chose: it can neither drive a terminal nor look like another key.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = std::ffi::OsStr::new(self.0).as_bytes();
        let shown = Printable::bytes(&bytes[..bytes.len().min(LONGEST)]).to_string();
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=');
        if !shown.is_empty() && shown.chars().all(plain) {
            return out.write_str(&shown);
        }
        write!(out, "\"{}\"", shown.replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Value};

    #[test]
    fn a_value_cannot_look_like_another_key() {
        let event = Event::Evicted { whom: "x\" how=y\n", how: "SIGHUP" };
        assert_eq!(event.to_string(), r#"event=evicted whom="x\" how=y\n" how=SIGHUP"#);
        assert_eq!(Value("").to_string(), "\"\"");
    }
}
