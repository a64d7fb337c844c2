//! `vconsole host`: runs a command and offers it as a console. There are two PTY pairs. The command
//! leads a session on the first, which is cooked. The second is the offered console, raw from the
//! start, as QEMU's `-serial pty` is. Host has both masters and passes the bytes on: the command
//! does not notice clients that come and go.

pub(crate) mod backlog;
pub(crate) mod child;
pub(crate) mod exchange;
pub(crate) mod line;
pub(crate) mod link;
pub(crate) mod server;

use std::{ffi::OsString, path::PathBuf};

use anyhow::Context as _;

use crate::commands::host::child::{Attachment, HostedCommand};
use crate::commands::host::line::{CommandLine, OfferedLine};
use crate::commands::host::server::{Server, end_signals};
use crate::commands::host::{exchange::Exchange, link::Link};
use crate::{commands::print, exit_status::ExitStatus, messages::Messages, printable::Printable};

/// The options of `vconsole host`; `vconsole-host(1)` describes them.
pub(crate) struct HostOptions {
    pub(crate) link: Option<PathBuf>,
    pub(crate) attach: bool,
    /// The command and its arguments; empty for the user's shell.
    pub(crate) command: Vec<OsString>,
}

pub(crate) fn run(options: &HostOptions) -> anyhow::Result<ExitStatus> {
    // From here on a signal is handled, and so the link never stays behind.
    let signals = end_signals().context("cannot watch for signals")?;
    let mut messages = Messages::new(false);
    let offered = OfferedLine::open().context("cannot make a PTY")?;
    let line = CommandLine::open().context("cannot make a PTY")?;
    let path = offered.path.clone();
    let name = options.link.as_deref();
    let _link = name.map(|name| Link::make(name, &path)).transpose()?;

    let command = match HostedCommand::start(&options.command, &line)? {
        Ok(command) => command,
        Err(refused) => {
            messages.important(&refused);
            return Ok(refused.status());
        }
    };
    let exchange = Exchange::between(line, offered);
    let mut server = Server { exchange, command, attachment: None, signals, messages };
    if options.attach {
        let attachment = Attachment::start(&path).context("cannot start `vconsole attach`")?;
        server.attachment = Some(attachment);
    } else {
        // The path is for scripts.
        if let Some(ended) = print(&format!("{}\n", path.display()))? {
            return Ok(ended);
        }
        let name = Printable::new(name.unwrap_or(&path));
        server.messages.info(format_args!("attach with: vconsole attach {name}"));
    }
    server.serve().context("cannot serve the console")
}
