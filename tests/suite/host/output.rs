//! What the command prints, and who gets it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{read, write};

use super::{Hosted, Notes, noise};
use crate::harness::Client;

/// What the reader is told first when output was dropped, and how much that was.
fn told(heard: &[u8]) -> Option<(usize, &[u8])> {
    let rest = heard.strip_prefix(b"\r\n[vconsole host: ")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest_of_line = b" bytes of older output dropped]\r\n";
    let count = std::str::from_utf8(&rest[..digits]).unwrap().parse().unwrap();
    Some((count, rest[digits..].strip_prefix(rest_of_line)?))
}

/// Hosts a command that prints all of `bytes`, says so, and lives on.
fn printing(bytes: &[u8]) -> (Hosted, Notes) {
    let notes = Notes::new();
    std::fs::write(notes.path("bytes"), bytes).unwrap();
    let (bytes, done) = (notes.path("bytes"), notes.path("done"));
    (Hosted::script(&format!("cat {bytes}; : >{done}; sleep 1000")), notes)
}

#[test]
fn the_64_kib_printed_before_anybody_attached_are_delivered_whole() {
    let bytes = noise(64 * 1024);
    let (hosted, notes) = printing(&bytes);
    notes.wait_for("done");
    hosted.client().ear().receives_exactly(&bytes);
}

#[test]
fn of_more_the_oldest_is_dropped_and_the_reader_told_how_much() {
    let bytes = noise(500_000);
    let (hosted, notes) = printing(&bytes);
    notes.wait_for("done");
    let client = hosted.client();
    let dropped = client.ear().wait_for("all that is left", |heard| {
        let (dropped, rest) = told(heard)?;
        (dropped + rest.len() == bytes.len()).then_some(dropped)
    });
    let heard = client.ear().so_far();
    let (_, rest) = told(&heard).unwrap();
    assert!(rest == &bytes[dropped..]);
    assert!(rest.len() >= 64 * 1024);
    let notice = format!("vconsole: {dropped} bytes of output dropped");
    hosted.host.stderr().receives(notice);
}

#[test]
fn nothing_is_dropped_while_somebody_is_attached_however_slow() {
    let bytes = noise(1_000_000);
    let notes = Notes::new();
    std::fs::write(notes.path("bytes"), &bytes).unwrap();
    let (file, done) = (notes.path("bytes"), notes.path("done"));
    let hosted = Hosted::script(&format!("read -r go; cat {file}; : >{done}; sleep 1000"));
    let client = Client::asleep(&hosted.console);
    client.types("\n");
    super::until("it is being written to", || client.unread() > 1000);
    assert!(!std::path::Path::new(&notes.path("done")).exists());
    client.ear().resume();
    client.ear().receives_exactly(&bytes);
    notes.wait_for("done");
}

#[test]
fn a_reader_who_leaves_in_the_middle_leaves_the_rest_to_the_next() {
    let bytes = noise(64 * 1024);
    let (hosted, notes) = printing(&bytes);
    notes.wait_for("done");
    let mut heard = Vec::new();
    for _ in 0..5 {
        let reader = Client::asleep(&hosted.console);
        super::until("there is something to read", || reader.unread() > 0);
        let mut piece = [0; 1000];
        let count = read(reader.line(), &mut piece).unwrap();
        heard.extend_from_slice(&piece[..count]);
    }
    assert!(heard == bytes[..heard.len()]);
    hosted.client().ear().receives_exactly(&bytes[heard.len()..]);
}

#[test]
fn a_look_that_reads_nothing_takes_nothing() {
    let bytes = noise(64 * 1024);
    let (hosted, notes) = printing(&bytes);
    notes.wait_for("done");
    for _ in 0..100 {
        drop(Client::asleep(&hosted.console));
    }
    hosted.client().ear().receives_exactly(&bytes);
}

#[test]
fn what_is_typed_by_one_who_leaves_at_once_arrives() {
    let notes = Notes::new();
    let typed = notes.path("typed");
    let hosted = Hosted::script(&format!("head -c 5 >{typed}.part; mv {typed}.part {typed}; cat"));
    // As `echo abcde >/dev/pts/5` does it.
    std::fs::write(&hosted.console, "abcde").unwrap();
    notes.wait_for("typed");
    assert_eq!(notes.read("typed"), b"abcde");
}

#[test]
fn what_is_typed_to_a_busy_command_arrives_though_its_typist_has_left() {
    let notes = Notes::new();
    let (ready, count, typed) = (notes.path("ready"), notes.path("count"), notes.path("typed"));
    let hosted = Hosted::script(&format!(
        "stty raw -echo; : >{ready}; while [ ! -s {count} ]; do sleep 0.05; done; \
         head -c $(cat {count}) >{typed}.part; mv {typed}.part {typed}; cat"
    ));
    notes.wait_for("ready");
    let (bytes, mut sent) = (noise(1_000_000), 0);
    let client = Client::asleep(&hosted.console);
    fcntl_setfl(client.line(), OFlags::RDWR | OFlags::NONBLOCK).unwrap();
    // All that there is room for, in host and on both lines.
    let half_a_second = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    while poll(&mut [PollFd::new(client.line(), PollFlags::OUT)], Some(&half_a_second)).unwrap() > 0
    {
        sent += write(client.line(), &bytes[sent..sent + 1000]).unwrap_or_default();
    }
    assert!(sent > 64 * 1024, "{sent}");
    drop(client);
    std::fs::write(&count, sent.to_string()).unwrap();
    notes.wait_for("typed");
    assert!(notes.read("typed") == bytes[..sent]);
}

#[test]
fn a_flood_that_nobody_reads_takes_no_memory() {
    let notes = Notes::new();
    let done = notes.path("done");
    let hosted = Hosted::script(&format!("head -c 30000000 /dev/zero; : >{done}; sleep 1000"));
    notes.wait_for("done");
    assert!(hosted.host.peak_memory() < 16_000_000, "{}", hosted.host.peak_memory());
}
