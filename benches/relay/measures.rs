//! What is measured, and how.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use vconsole::sys;

use crate::client::Client;
use crate::figures::{Report, median_and_interval};
use crate::scene::{PtyLine, Scene, Viewer};
use crate::sleepers::Sleepers;
use crate::walk;

type Measure = fn(&mut Report, usize);

/// Every measurement, by its name.
pub(crate) const ALL: [(&str, Measure); 7] = [
    ("down", down),
    ("up", up),
    ("echo", echo),
    ("start", start),
    ("takeover", takeover),
    ("viewers", viewers),
    ("memory", memory),
];

const MB: f64 = 1e6;

/// Measures each of `all`, and begins with another in each round: so that none always comes after the same.
fn by_turns<T: Copy, U>(round: usize, all: &[T], mut measure: impl FnMut(T) -> U) -> Vec<U> {
    let first = round % all.len();
    let (later, sooner) = all.split_at(first);
    let mut done: Vec<U> = sooner.iter().chain(later).map(|&one| measure(one)).collect();
    done.rotate_right(first);
    done
}

/// From the console to the terminal: throughput, and what the client's processor time per MB is.
fn down(report: &mut Report, rounds: usize) {
    transfer(report, rounds, "down", &Client::all(), |scene, terminal| (&scene.console, terminal));
}

/// From the terminal to the console.
fn up(report: &mut Report, rounds: usize) {
    let clients: Vec<_> = Client::all().into_iter().filter(|client| client.pastes()).collect();
    transfer(report, rounds, "up", &clients, |scene, terminal| (terminal, &scene.console));
}

fn transfer(
    report: &mut Report,
    rounds: usize,
    name: &str,
    clients: &[Client],
    way: impl for<'a> Fn(&'a Scene, &'a PtyLine) -> (&'a PtyLine, &'a PtyLine),
) {
    let (mut speeds, mut costs) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let moved = by_turns(round, clients, |client| {
            let scene = Scene::new();
            let running = scene.attach(client);
            let (from, to) = way(&scene, &running.terminal);
            let cpu = running.cpu();
            let (took, arrived) = pour(from, to, client.portion());
            let cpu = running.cpu().saturating_sub(cpu);
            running.end();
            let amount = arrived as f64 / MB;
            (amount / took.as_secs_f64(), cpu.as_secs_f64() * 1e3 / amount)
        });
        let (speed, cost) = moved.into_iter().unzip();
        // The first round only warms up.
        if round > 0 {
            speeds.push(speed);
            costs.push(cost);
        }
    }
    let names: Vec<_> = clients.iter().map(|client| client.name()).collect();
    report.add(&format!("{name}: throughput"), "MB/s", &names, &speeds);
    report.add(&format!("{name}: processor time"), "ms/MB", &names, &costs);
}

/// Sends `count` bytes of text into `from`, and tells how long it took until the last of them came out
/// of `to`, and how many did: some programs lose some.
fn pour(from: &PtyLine, to: &PtyLine, count: usize) -> (Duration, usize) {
    // No byte of it means anything to any of the clients.
    let text: Vec<u8> = (0..64 * 1024_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let portions = (0..count).step_by(text.len());
            portions.map(|sent| text.len().min(count - sent)).all(|next| from.write(&text[..next]))
        });
        let (last, arrived) = to.swallow(count);
        (last - start, arrived)
    })
}

/// A key is pressed, the guest sends it back, and it is shown.
fn echo(report: &mut Report, rounds: usize) {
    const KEYS: usize = 300;
    let clients: Vec<_> =
        Client::all().into_iter().filter(|client| *client != Client::Minicom).collect();
    let (mut usual, mut slowest) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let all = by_turns(round, &clients, |client| {
            let scene = Scene::new();
            let running = scene.attach(client);
            let mut times = scene.with_echo(|| {
                (0..KEYS).map(|_| press_a_key(&running.terminal)).collect::<Vec<f64>>()
            });
            running.end();
            times.sort_by(f64::total_cmp);
            (times[KEYS / 2], times[KEYS * 99 / 100])
        });
        let (p50, p99) = all.into_iter().unzip();
        usual.push(p50);
        slowest.push(p99);
    }
    let names: Vec<_> = clients.iter().map(|client| client.name()).collect();
    report.add("echo: p50", "us", &names, &usual);
    report.add("echo: p99", "us", &names, &slowest);
}

fn press_a_key(terminal: &PtyLine) -> f64 {
    // As long as a key takes that is held down, and a little of what else happens on a machine.
    thread::sleep(Duration::from_millis(1));
    let start = Instant::now();
    let _ = terminal.write(b"k");
    let mut byte = [0; 16];
    terminal.read(&mut byte, start + Duration::from_secs(10));
    start.elapsed().as_secs_f64() * 1e6
}

/// From exec to the first byte that is shown, of what the guest has printed before and prints every
/// millisecond; and what that is made of at least: the bound's start, a guard's and one plain walk over
/// `/proc`. Alone, and beside 3,000 processes more.
fn start(report: &mut Report, rounds: usize) {
    let mut sleepers = Sleepers::default();
    for more in [0, 3_000] {
        sleepers.grow(more);
        start_beside(more, report, rounds);
    }
}

fn start_beside(more: usize, report: &mut Report, rounds: usize) {
    let clients: Vec<_> = Client::all()
        .into_iter()
        .filter(|client| !matches!(client, Client::Minicom | Client::Tio))
        .collect();
    let mut times = Vec::new();
    for round in 0..rounds {
        let start = |client| first_byte(&Scene::new(), |scene| scene.command(client));
        let mut round: Vec<f64> = by_turns(round, &clients, start);
        round.push(guard_s_start());
        round.push(plain_walk());
        let least = round[0] + round[round.len() - 2] + round[round.len() - 1];
        round.push(least);
        times.push(round);
    }
    let mut names: Vec<_> = clients.iter().map(|client| client.name()).collect();
    names.extend(["a guard's start", "one walk over /proc", "bound + guard + walk"]);
    let title = format!("start: exec to first byte, {more} processes more");
    report.add(&title, "ms", &names, &times);
    let own = names.iter().position(|name| *name == "vconsole").unwrap();
    let of_least = times.iter().map(|round| round[own] / round[names.len() - 1]).collect();
    let (ratio, [low, high]) = median_and_interval(of_least);
    println!("  vconsole is {ratio:.3} of bound + guard + walk ({low:.3} to {high:.3})");
    if let Some(picocom) = names.iter().position(|name| *name == "picocom") {
        let of_picocom = times.iter().map(|round| round[own] / round[picocom]).collect();
        let (ratio, [low, high]) = median_and_interval(of_picocom);
        println!("  vconsole is {ratio:.3} of picocom ({low:.3} to {high:.3})");
    }
}

/// How long it takes until the program that `command` gives shows what the console prints, in ms.
fn first_byte(scene: &Scene, command: impl FnOnce(&Scene) -> Command) -> f64 {
    let _ = scene.console.write(b"!");
    let command = command(scene);
    let start = Instant::now();
    let running = Scene::start(command);
    let mut bytes = [0; 4096];
    loop {
        let count = running.terminal.read_within(&mut bytes, Duration::from_millis(1));
        if bytes[..count].contains(&b'!') {
            break;
        }
        let _ = scene.console.write(b"!");
    }
    let took = start.elapsed().as_secs_f64() * 1e3;
    running.end();
    took
}

/// From the making of a copy of this process, as a guard is one, to its end, in ms.
fn guard_s_start() -> f64 {
    let start = Instant::now();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let pid = sys::copy("guard", theirs.into(), |_, socket| drop(socket)).unwrap();
    let ended = (&ours).read(&mut [0]).unwrap();
    let took = start.elapsed().as_secs_f64() * 1e3;
    assert_eq!(ended, 0);
    waitpid(pid, None).unwrap();
    took
}

/// Looks at what every process has open, in ms.
fn plain_walk() -> f64 {
    let start = Instant::now();
    assert!(walk::processes().map(|process| walk::look_at(&process)).sum::<usize>() > 0);
    start.elapsed().as_secs_f64() * 1e3
}

/// From the exec of `attach --force` to the first byte, where a session has the console, against a
/// plain attach to a console that is free.
fn takeover(report: &mut Report, rounds: usize) {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let plain = first_byte(&Scene::new(), |scene| scene.command(Client::Vconsole));
        let scene = Scene::new();
        let holder = scene.attach(Client::Vconsole);
        let forced = first_byte(&scene, |scene| {
            let mut command = scene.command(Client::Vconsole);
            command.arg("--force");
            command
        });
        holder.end();
        times.push(vec![plain, forced]);
    }
    report.add("takeover: exec to first byte", "ms", &["plain attach", "attach --force"], &times);
}

/// The operator's throughput from the console to the terminal while others watch.
fn viewers(report: &mut Report, rounds: usize) {
    let counts = [0, 1, 10, 50];
    let mut speeds = Vec::new();
    for round in 0..=rounds {
        let speed = by_turns(round, &counts, |count| {
            let scene = Scene::new();
            let operator = scene.attach(Client::Vconsole);
            let mut viewers: Vec<_> = (0..count).map(|_| Viewer::of(&scene)).collect();
            viewers.iter_mut().for_each(Viewer::watches);
            let (took, arrived) =
                pour(&scene.console, &operator.terminal, Client::Vconsole.portion());
            drop(viewers);
            operator.end();
            arrived as f64 / MB / took.as_secs_f64()
        });
        // The first round only warms up.
        if round > 0 {
            speeds.push(speed);
        }
    }
    let names = ["nobody watches", "1 viewer", "10 viewers", "50 viewers"];
    report.add("viewers: throughput of the operator", "MB/s", &names, &speeds);
}

/// The most memory that a client ever had, and what it started: a flood down and a paste up.
fn memory(report: &mut Report, rounds: usize) {
    let clients: Vec<_> =
        Client::all().into_iter().filter(|client| *client != Client::Minicom).collect();
    let mut peaks = Vec::new();
    for round in 0..rounds {
        let peak = by_turns(round, &clients, |client| {
            let scene = Scene::new();
            let running = scene.attach(client);
            pour(&scene.console, &running.terminal, client.portion() / 4);
            pour(&running.terminal, &scene.console, client.portion() / 4);
            let peak = running.peak_memory();
            running.end();
            peak as f64 / MB
        });
        peaks.push(peak);
    }
    let names: Vec<_> = clients.iter().map(|client| client.name()).collect();
    report.add("memory: peak", "MB", &names, &peaks);
}

/// Whether throughput falls as the stream grows. The longest goes once.
pub(crate) fn stream(report: &mut Report) {
    for (megabytes, rounds) in [(1, 15), (10, 15), (100, 9), (1_000, 3), (10_000, 1)] {
        let both = [Client::Bound, Client::Vconsole];
        let speed = |client| {
            let scene = Scene::new();
            let running = scene.attach(client);
            let (took, _) = pour(&scene.console, &running.terminal, megabytes * 1_000_000);
            running.end();
            megabytes as f64 / took.as_secs_f64()
        };
        let speeds: Vec<_> = (0..rounds).map(|round| by_turns(round, &both, speed)).collect();
        let name = format!("stream of {megabytes} MB: throughput");
        report.add(&name, "MB/s", &both.map(Client::name), &speeds);
    }
}
