//! `vconsole host`: runs a command and offers it as a console.
//!
//! There are two PTY pairs. The command lives on the first as on any terminal: it leads a session
//! there, and the line is cooked. The second is the offered console, raw from the start, as QEMU's
//! `-serial pty` is. Host sits at both masters and passes the bytes on, so that clients come and go,
//! and the command never knows.

mod attachment;
mod backlog;
mod child;
mod command;
mod exchange;
mod lender;
mod line;
mod link;
mod server;
mod signals;

use std::path::Path;

use anyhow::Context as _;

use self::attachment::Attachment;
use self::command::HostedCommand;
use self::exchange::Exchange;
use self::line::{CommandLine, OfferedLine};
use self::link::Link;
use self::server::Server;
use self::signals::Signals;
use crate::cli;
use crate::exit_status::ExitStatus;
use crate::printable::Printable;
use crate::relay::Notices;

/// Runs `vconsole host`.
pub fn run(options: &cli::Host) -> anyhow::Result<ExitStatus> {
    // From here on a signal is something to answer, and so the link never stays behind.
    let signals = Signals::watch().context("cannot watch for signals")?;
    let mut notices = Notices::new(false);
    let offered = OfferedLine::open().context("cannot make a PTY")?;
    let line = CommandLine::open().context("cannot make a PTY")?;
    let path = offered.path().to_owned();
    let name = options.link.as_deref();
    let _link = name.map(|name| Link::make(name, &path)).transpose()?;

    let command = match HostedCommand::start(&options.command, &line)? {
        Ok(command) => command,
        Err(refused) => {
            notices.answer(&refused);
            return Ok(refused.status());
        }
    };
    let mut server = Server::new(Exchange::between(line, offered), command, signals);
    if options.attach {
        server.attach(Attachment::start(&path).context("cannot start `vconsole attach`")?);
    } else if let Some(ended) = announce(&path, name, &mut notices)? {
        return Ok(ended);
    }
    server.serve(&mut notices).context("cannot serve the console")
}

/// Prints the path of the console, as a line that a script can read, and says how to attach to it.
fn announce(
    console: &Path,
    link: Option<&Path>,
    notices: &mut Notices,
) -> anyhow::Result<Option<ExitStatus>> {
    let ended = super::print(&format!("{}\n", console.display()))?;
    if ended.is_none() {
        let name = Printable::new(link.unwrap_or(console));
        notices.say(format_args!("attach with: vconsole attach {name}"));
    }
    Ok(ended)
}
