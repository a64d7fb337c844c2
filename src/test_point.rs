//! Named points at which a test makes the program do what no input makes it do.

/// Panics here where `VCONSOLE_TEST_PANIC` names this point. Where `VCONSOLE_TEST_PAUSE` is
/// `POINT=FIFO`, writes a line with our process number to the fifo, and stops until SIGCONT comes.
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
    if let Some((wanted, fifo)) =
        std::env::var("VCONSOLE_TEST_PAUSE").ok().as_deref().and_then(|pause| pause.split_once('='))
        && wanted == point
    {
        let _ = std::fs::File::options().write(true).open(fifo).and_then(|mut fifo| {
            use std::io::Write as _;
            writeln!(fifo, "{}", std::process::id())
        });
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
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
