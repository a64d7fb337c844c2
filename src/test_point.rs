//! Named points at which a test makes the program do what no input can.

/// A test point, in builds with debug assertions only.
///
/// - `VCONSOLE_TEST_PANIC=POINT` panics here.
/// - `VCONSOLE_TEST_PAUSE=POINT=FIFO` writes our pid to the fifo, and stops until SIGCONT.
/// - `VCONSOLE_TEST_HOLD=POINT=FIFO`, and `VCONSOLE_TEST_HOLD_TOO` for another point, stop again at
///   every SIGCONT until the fifo is removed.
/// - `VCONSOLE_TEST_HANG=POINT` hangs here until SIGKILL.
#[inline]
pub(crate) fn reached(point: &str) {
    #[cfg(debug_assertions)]
    assert!(
        std::env::var("VCONSOLE_TEST_PANIC").as_deref() != Ok(point),
        "the test point {point} was asked to panic"
    );
    #[cfg(debug_assertions)]
    for wish in ["VCONSOLE_TEST_PAUSE", "VCONSOLE_TEST_HOLD", "VCONSOLE_TEST_HOLD_TOO"] {
        let pause = std::env::var(wish).unwrap_or_default();
        let Some((_, fifo)) = pause.split_once('=').filter(|(wanted, _)| *wanted == point) else {
            continue;
        };
        let _ = std::fs::File::options().write(true).open(fifo).and_then(|mut fifo| {
            use std::io::Write as _;
            writeln!(fifo, "{}", std::process::id())
        });
        while std::path::Path::new(fifo).exists() {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
            if wish == "VCONSOLE_TEST_PAUSE" {
                break;
            }
        }
    }
    #[cfg(debug_assertions)]
    while std::env::var("VCONSOLE_TEST_HANG").as_deref() == Ok(point) {
        std::thread::park();
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// The value of an environment variable by which a test replaces a fixed value. `None` in a
/// release.
pub(crate) fn value(name: &str) -> Option<std::ffi::OsString> {
    if cfg!(debug_assertions) { std::env::var_os(name) } else { None }
}
