//! Named points at which a test makes the program do what no input makes it do.

/// Panics here where `VCONSOLE_TEST_PANIC` names this point. Where `VCONSOLE_TEST_PAUSE` is
/// `POINT=FIFO`, writes a line with our process number to the fifo, and stops until SIGCONT comes; with
/// `VCONSOLE_TEST_HOLD`, and with `VCONSOLE_TEST_HOLD_TOO` at another point, it stops again whenever SIGCONT
/// comes, until there is no such fifo any more.
/// Where `VCONSOLE_TEST_HANG` names it, does nothing any more, whatever comes but SIGKILL.
/// Does nothing where the feature `test-points` is off.
///
/// # Panics
///
/// When asked to.
#[inline]
pub fn reached(point: &str) {
    #[cfg(feature = "test-points")]
    assert!(
        std::env::var("VCONSOLE_TEST_PANIC").as_deref() != Ok(point),
        "the test point {point} was asked to panic"
    );
    #[cfg(feature = "test-points")]
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
    #[cfg(feature = "test-points")]
    while std::env::var("VCONSOLE_TEST_HANG").as_deref() == Ok(point) {
        std::thread::park();
    }
    #[cfg(not(feature = "test-points"))]
    let _ = point;
}

/// What a test wants instead of a fixed value: the environment variable `name`, where the feature
/// `test-points` is on. Nothing in any other build.
#[must_use]
pub fn value(name: &str) -> Option<std::ffi::OsString> {
    if cfg!(feature = "test-points") { std::env::var_os(name) } else { None }
}
