//! The audit trail in the system's log: operators, refusals and evictions. Not by syslog(3): it
//! waits for a log that accepts nothing, and its socket's path is fixed. One datagram is enough.

use std::fmt::{self, Write as _};
use std::{os::unix::ffi::OsStrExt as _, os::unix::net::UnixDatagram};

use nix::unistd::getuid;

use crate::{device, printable::Printable, proc_stat::Stat, test_point, user_name};

const LOG: &str = "/dev/log";
/// `LOG_AUTHPRIV`, as syslog(3) numbers facilities.
const AUTHPRIV: u8 = 10 << 3;
const LONGEST: usize = 256;

/// One line of keys and values.
pub(crate) struct Event {
    severity: u8,
    line: String,
}

impl Event {
    /// `LOG_INFO`.
    pub(crate) fn usual(name: &str) -> Self {
        Self { severity: 6, line: format!("event={name}") }
    }

    /// `LOG_NOTICE`.
    pub(crate) fn notable(name: &str) -> Self {
        Self { severity: 5, ..Self::usual(name) }
    }

    pub(crate) fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        let _ = write!(self.line, " {key}={}", Value(&value.to_string()));
        self
    }

    pub(crate) fn with_reason(self, reason: Option<&str>) -> Self {
        match reason {
            Some(reason) => self.with("reason", reason),
            None => self,
        }
    }
}

/// Never waits: without a log, or if it accepts nothing, the event is lost.
pub(crate) fn record(console: &str, event: &Event) {
    let path = test_point::value("VCONSOLE_TEST_SYSLOG").unwrap_or_else(|| LOG.into());
    let Ok(socket) = UnixDatagram::unbound() else { return };
    if socket.set_nonblocking(true).is_err() || socket.connect(&path).is_err() {
        return;
    }
    // As syslog(3) sends it: RFC 3164, section 4.1, without a host.
    let now = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::system());
    let (now, pid) = (now.strftime("%b %e %H:%M:%S"), std::process::id());
    let (priority, who) = (AUTHPRIV | event.severity, who());
    let console = Value(console);
    let line = format!("<{priority}>{now} vconsole[{pid}]: {} console={console} {who}", event.line);
    let _ = socket.send(line.as_bytes());
}

/// Our user, terminal, and host.
fn who() -> String {
    let uid = getuid();
    let user = user_name::of(uid.as_raw());
    let mut who = format!("user={} uid={uid}", Value(&user));
    let own = Stat::read(std::process::id().cast_signed());
    if let Some(terminal) = own.and_then(|own| device::terminal_name(own.terminal)) {
        let _ = write!(who, " tty={}", Value(&terminal));
    }
    // The user can set it to anything: it is only a hint.
    let ssh = std::env::var_os("SSH_CONNECTION").unwrap_or_default();
    if let Some(host) = ssh.to_string_lossy().split_ascii_whitespace().next() {
        let _ = write!(who, " ssh={}", Value(host));
    }
    who
}

/// A value that others chose: it can neither control a terminal nor look like another key.
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
        let event = Event::notable("evicted").with("whom", "x\" how=y\n").with("how", "SIGHUP");
        assert_eq!(event.line, r#"event=evicted whom="x\" how=y\n" how=SIGHUP"#);
        assert_eq!(Value("").to_string(), "\"\"");
    }
}
