//! A real libvirtd with a real guest, both of the test's own: nothing of the system's libvirt is used,
//! and nothing is left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Uid, chown};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::super::harness::{Client, DEADLINE, Piped, Process, Program, until_within};
use super::console::{Console, fields_of, open_to_all, processes};
use super::qemu::boot_image;
use super::{User, token};

/// The guest's name.
pub(super) const DOMAIN: &str = "vconsole-guest";

/// Everybody may connect: who does is not what is tested.
const DAEMON_SETTINGS: &str = "\
unix_sock_rw_perms = \"0777\"
auth_unix_ro = \"none\"
auth_unix_rw = \"none\"
";

/// Guests without what a container cannot give them. They run as the daemon does, since libvirtd would
/// look for the accelerator anew, all the time, when they may not use what it may.
const GUEST_SETTINGS: &str = "\
security_operator = \"none\"
stdio_handler = \"file\"
";
const ROOTS_GUEST_SETTINGS: &str = "\
user = \"root\"
group = \"root\"
namespaces = [ ]
cgroup_controllers = [ ]
remember_owner = 0
";

/// The system's libvirtd keeps its files where it was built to: here it finds ours in these places.
const IN_THE_PLACE_OF_THE_SYSTEM_S: &str = "\
for place in etc:/etc run:/run lib:/var/lib cache:/var/cache log:/var/log; do
  mount --bind \"$1/${place%%:*}\" \"${place#*:}/libvirt\" || exit 1
done
exec libvirtd -f \"$1/libvirtd.conf\" -p \"$1/pid\"
";

/// A libvirtd that `user` started (root: the system's kind, an ordinary user: the session's), and a
/// guest whose serial line is a PTY. Dropping it ends both.
pub(super) struct Libvirt {
    daemon: Piped,
    guest: Option<Process>,
    uri: String,
    console: PathBuf,
    directory: TempDir,
    _undertaker: Undertaker,
    _made: Vec<MadeDirectory>,
}

impl Libvirt {
    /// Starts the daemon and the guest, and waits until the guest answers.
    pub(super) fn start(user: User) -> Self {
        let directory = TempDir::with_prefix("vconsole-libvirt-").unwrap();
        let undertaker = Undertaker::start();
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("libvirtd.conf"), DAEMON_SETTINGS).unwrap();
        fs::write(path.join("domain.xml"), domain(&boot_image(path), path)).unwrap();
        let (daemon, made, socket, kind) = match user.ids() {
            None => {
                for name in ["etc", "run", "lib", "cache", "log"] {
                    fs::create_dir(path.join(name)).unwrap();
                }
                let settings = format!("{GUEST_SETTINGS}{ROOTS_GUEST_SETTINGS}");
                fs::write(path.join("etc/qemu.conf"), settings).unwrap();
                let places = ["/etc", "/run", "/var/lib", "/var/cache", "/var/log"];
                let made = places.map(|place| MadeDirectory::at(Path::new(place).join("libvirt")));
                let daemon = Program::new("unshare")
                    .args(["--mount", "sh", "-c", IN_THE_PLACE_OF_THE_SYSTEM_S, "sh"])
                    .arg(path);
                let made: Vec<_> = made.into_iter().flatten().collect();
                (daemon, made, path.join("run/libvirt-sock"), "system")
            }
            Some((owner, group)) => {
                let settings = path.join("libvirt");
                fs::create_dir(&settings).unwrap();
                fs::write(settings.join("qemu.conf"), GUEST_SETTINGS).unwrap();
                for mine in [path, &*settings] {
                    chown(mine, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group))).unwrap();
                }
                let mut daemon = Program::new("libvirtd")
                    .arg("-f")
                    .arg(path.join("libvirtd.conf"))
                    .arg("-p")
                    .arg(path.join("pid"))
                    .env("HOME", path);
                for place in ["RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME"] {
                    daemon = daemon.env(format!("XDG_{place}"), path);
                }
                (user.runs(daemon), Vec::new(), path.join("libvirt/libvirt-sock"), "session")
            }
        };
        let uri = format!("qemu+unix:///{kind}?socket={}", socket.display());
        let mut libvirt = Self {
            daemon: daemon.piped(),
            guest: None,
            uri,
            console: PathBuf::new(),
            directory,
            _undertaker: undertaker,
            _made: made,
        };
        // It looks at all that the machine has first, which takes its time on a busy one.
        // Its socket is there before it listens.
        let listens = || UnixStream::connect(&socket).is_ok();
        until_within(Duration::from_secs(60), "libvirtd listens", listens);
        libvirt.boot();
        libvirt
    }

    /// Starts the guest.
    fn boot(&mut self) {
        let xml = self.directory.path().join("domain.xml");
        self.virsh(&["create", xml.to_str().unwrap()]);
        self.guest = qemu_of(self.directory.path());
        self.console = self.virsh(&["ttyconsole", DOMAIN]).trim().into();
        open_to_all(&self.console);
        let start = Instant::now();
        // QEMU hears nobody who does not stay: it looks once a second whether somebody is there.
        let client = Client::asleep(&self.console);
        loop {
            let word = token();
            client.types(&word);
            std::thread::sleep(Duration::from_millis(50));
            if self.has_heard(&word) {
                break;
            }
            assert!(start.elapsed() < 3 * DEADLINE, "the guest does not answer");
        }
    }

    /// Runs `virsh` to its end, however long it takes, and gives what it printed.
    fn virsh(&self, arguments: &[&str]) -> String {
        let mut virsh = std::process::Command::new("virsh");
        let output = virsh.args(["-c", &self.uri]).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "virsh {arguments:?}: {}; libvirtd: {}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&self.daemon.stderr().so_far()),
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The numbers of libvirtd and of the guest, if both are alive.
    #[track_caller]
    pub(super) fn pids(&self) -> [i32; 2] {
        let guest = self.guest.as_ref().unwrap();
        assert!(!self.daemon.has_ended() && !guest.has_ended(), "one of them has ended");
        [self.daemon.pid(), guest.pid()]
    }

    /// Where QEMU itself writes down all that the guest says, whoever reads its console.
    fn log(&self) -> PathBuf {
        self.directory.path().join("serial.log")
    }
}

impl Console for Libvirt {
    fn path(&self) -> &Path {
        &self.console
    }

    /// The guest says all that it hears.
    fn heard(&self) -> Vec<u8> {
        fs::read(self.log()).unwrap_or_default()
    }

    /// It is told to say so, by one who writes to the console and does not read.
    fn say(&self, text: &str) {
        Client::asleep(&self.console).types(text);
    }

    fn uri(&self) -> Option<&str> {
        Some(&self.uri)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let guest = self.guest.take().or_else(|| qemu_of(self.directory.path()));
        // The undertaker reaps it: it is no child of libvirtd's.
        guest.iter().for_each(Process::kill);
        self.daemon.signal(Signal::TERM);
        let start = Instant::now();
        while !self.daemon.has_ended() && start.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A directory that was not there before, and goes again.
struct MadeDirectory(PathBuf);

impl MadeDirectory {
    fn at(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).is_ok().then_some(Self(path))
    }
}

impl Drop for MadeDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn domain(image: &Path, directory: &Path) -> String {
    format!(
        "<domain type='qemu'>
          <name>{DOMAIN}</name>
          <memory unit='MiB'>16</memory>
          <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='fd'/></os>
          <devices>
            <emulator>/usr/bin/qemu-system-x86_64</emulator>
            <disk type='file' device='floppy'>
              <operator name='qemu' type='raw'/>
              <source file='{}'/><target dev='fda'/><readonly/>
            </disk>
            <serial type='pty'><log file='{}/serial.log' append='off'/></serial>
            <memballoon model='none'/>
          </devices>
        </domain>",
        image.display(),
        directory.display(),
    )
}

/// The QEMU whose command line names a file in `directory`.
fn qemu_of(directory: &Path) -> Option<Process> {
    let directory = directory.to_str().unwrap();
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("qemu-system") && line.contains(DOMAIN) && line.contains(directory)
    };
    Process::find(Pid::from_raw(processes().find(is_it)?)?)
}

/// Reaps the QEMUs that libvirtd starts as daemons. They are ours, since the harness adopts orphans, and
/// libvirtd waits until they are gone altogether.
struct Undertaker {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Undertaker {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                processes().filter(|&pid| is_dead_daemon_of_ours(pid)).for_each(|pid| {
                    Pid::from_raw(pid).and_then(Process::find).iter().for_each(Process::kill);
                });
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether `pid` is a QEMU that ended, that was started as a daemon, and that lost its parent to us.
/// Other tests' are their children, and in our own session.
fn is_dead_daemon_of_ours(pid: i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let Some(fields) = fields_of(pid) else { return false };
    // The state, the parent, the process group, the session.
    let fields: Vec<String> = fields.take(4).collect();
    let own = std::process::id().to_string();
    let own_session = rustix::process::getsid(None).unwrap().as_raw_nonzero().to_string();
    name.starts_with("qemu-system")
        && fields[0] == "Z"
        && fields[1] == own
        && fields[3] != own_session
}
