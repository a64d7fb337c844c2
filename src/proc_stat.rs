//! One line of `/proc/PID/stat`.

use std::fs::File;

use rustix::io::retry_on_intr;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProcessState {
    Living,
    Zombie,
}

/// The fields of `/proc/PID/stat` that we use (`proc_pid_stat(5)`).
#[derive(Debug)]
pub(crate) struct Stat {
    pub(crate) program: String,
    pub(crate) state: ProcessState,
    /// By a signal: SIGSTOP, or SIGTSTP and the like from a terminal.
    pub(crate) stopped: bool,
    pub(crate) terminal: u64,
    pub(crate) start: u64,
    pub(crate) of_the_kernel: bool,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) foreground: i32,
}

impl Stat {
    /// The line of process `pid`, if `/proc` shows it.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        // The file has no size to ask for: read it at once.
        let mut text = vec![0; 1024];
        let file = File::open(format!("/proc/{pid}/stat")).ok()?;
        let count = retry_on_intr(|| rustix::io::read(&file, &mut text[..])).ok()?;
        Self::parse(text.get(..count)?)
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        // The name in parentheses may contain any of these bytes: the last parenthesis ends it.
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let program = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `fields` begins with field 3 of the manual page.
        let field = |number: usize| fields.get(number - 3).copied();
        let threads: u64 = field(20)?.parse().ok()?;
        // A process whose first thread has ended looks like a zombie while other threads go on.
        let zombie = matches!(field(3)?, "Z" | "X") && threads <= 1;
        // PF_KTHREAD in the kernel's linux/sched.h.
        let of_the_kernel = field(9)?.parse::<u64>().is_ok_and(|flags| flags & 0x20_0000 != 0);
        Some(Self {
            program,
            state: if zombie { ProcessState::Zombie } else { ProcessState::Living },
            stopped: field(3)? == "T",
            terminal: field(7)?.parse().unwrap_or(0),
            start: field(22)?.parse().ok()?,
            of_the_kernel,
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            foreground: field(8)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "S 1 7 7 34823 7 4194304 1 2 3 4 5 6 7 8 20 0 1 0 1234 0";

    #[test]
    fn a_name_may_look_like_the_fields_behind_it() {
        let stat = Stat::parse(format!("42 (a) Z 1 (b) {REST}").as_bytes()).unwrap();
        assert_eq!(stat.program, "a) Z 1 (b");
        assert_eq!((stat.terminal, stat.start, stat.state), (34823, 1234, ProcessState::Living));
    }

    #[test]
    fn half_a_line_is_no_process() {
        for text in ["", "42", "42 (a", "42 (a)", "42 (a) S 1 7", ")(", "42 )a( S"] {
            assert!(Stat::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
