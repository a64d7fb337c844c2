//! The options of `vconsole attach`.

use std::path::PathBuf;
use std::time::Duration;

use crate::claim::request::LockMode;
use crate::locks::directory::LockPlace;
use crate::relay;

/// The options of `vconsole attach`; `vconsole-attach(1)` describes them.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct AttachOptions {
    /// The console, as the user named it.
    pub(crate) console: PathBuf,
    pub(crate) force: bool,
    pub(crate) reason: Option<String>,
    pub(crate) read_only: bool,
    pub(crate) private: bool,
    pub(crate) stay: bool,
    #[allow(clippy::option_option, reason = "no wait, a wait without an end, or a limit")]
    pub(crate) wait: Option<Option<Duration>>,
    pub(crate) ask: bool,
    pub(crate) relay: relay::Options,
    pub(crate) quiet: bool,
    pub(crate) lock_mode: LockMode,
    pub(crate) lock_place: LockPlace,
}
