//! Consoles: finding one by its name, identifying it, opening it, its settings.

pub(crate) mod discover;
pub(crate) mod kind;
pub(crate) mod login;
pub(crate) mod open;
pub(crate) mod peer;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
pub(crate) mod target;
pub(crate) mod tty;
