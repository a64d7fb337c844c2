//! `/dev/console` and the port that it stands for are one console.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::harness::{Bystander, Locks, Vconsole, not_root};
use super::status::json;

/// The port behind `/dev/console`, on a machine that has both nodes.
fn port() -> Option<PathBuf> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let port = active.split_whitespace().last().map(|name| Path::new("/dev").join(name));
    let port = port.filter(|port| port.exists() && Path::new("/dev/console").exists());
    if port.is_none() {
        eprintln!("skipped: this machine has no /dev/console");
    }
    port
}

#[test]
fn a_reader_of_dev_console_holds_the_port_behind_it() {
    let Some(port) = port().filter(|_| !not_root()) else { return };
    let locks = Locks::new();
    let reader = Bystander::with_open("/dev/console");
    for name in [port.as_path(), Path::new("/dev/console")] {
        let document = json(&locks, &[name.to_str().unwrap()]);
        let row = &document["consoles"][0];
        assert_eq!(row["path"], port.to_str().unwrap(), "{document:#}");
        assert_eq!(row["holders"][0]["pid"], reader.pid(), "{document:#}");
        let output = Vconsole::attach(name).locks(&locks).output();
        assert_eq!(output.status, 3, "{output:?}");
        let who = format!("is open in sleep (pid {}", reader.pid());
        assert!(output.stderr().contains(&who), "{output:?}");
    }
}

#[test]
fn a_lock_of_dev_console_is_a_lock_of_the_port_behind_it() {
    let Some(port) = port().filter(|_| !not_root()) else { return };
    let port = port.to_str().unwrap();
    let (locks, owner) = (Locks::new(), Bystander::new());
    let of_port = format!("LCK..{}", port.trim_start_matches("/dev/"));
    let filesystem = rustix::fs::major(fs::metadata("/dev/console").unwrap().dev());
    let numbers = format!("LK.{filesystem:03}.005.001");
    for (lock, console) in
        [("LCK..console", port), (of_port.as_str(), "/dev/console"), (numbers.as_str(), port)]
    {
        let file = locks.write(lock, format!("{:>10}\n", owner.pid()));
        let output = Vconsole::attach(console).locks(&locks).output();
        assert_eq!(output.status, 3, "{output:?}");
        let holder = format!("is held by sleep (pid {}", owner.pid());
        assert!(output.stderr().contains(&holder), "{output:?}");
        let document = json(&locks, &[console]);
        assert_eq!(document["consoles"][0]["state"], "held", "{document:#}");
        fs::remove_file(file).unwrap();
    }
}
