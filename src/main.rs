//! The `vconsole` binary. The program itself is the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    vconsole::main()
}
