//! Named points at which a test makes the program do what no input makes it do.

/// Panics here, where the feature `test-points` is on and `VCONSOLE_TEST_PANIC` names this point.
/// Does nothing in any other build.
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
    #[cfg(not(feature = "test-points"))]
    let _ = point;
}

/// What a test wants instead of a fixed value: the environment variable `name`, where the feature
/// `test-points` is on. Nothing in any other build.
#[must_use]
pub fn value(name: &str) -> Option<std::ffi::OsString> {
    if cfg!(feature = "test-points") { std::env::var_os(name) } else { None }
}
