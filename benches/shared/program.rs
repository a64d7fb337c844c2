//! The program as it is shipped.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// `vconsole`, built with what it is shipped with. The one that cargo makes beside a bench has the tests'
/// points as well (it is a dependency of its own tests), and looks for them at each read.
pub(crate) fn vconsole() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(build);
    &PROGRAM
}

fn build() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = package.join("target/shipped");
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--locked", "--release", "--bin", "vconsole", "--target-dir"])
        .arg(&directory)
        .current_dir(package)
        .status()
        .unwrap();
    assert!(built.success(), "vconsole cannot be built");
    let program = directory.join("release/vconsole");
    let contents = fs::read(&program).unwrap();
    let points = b"VCONSOLE_TEST_";
    assert!(!contents.windows(points.len()).any(|window| window == points), "it has test points");
    program
}
