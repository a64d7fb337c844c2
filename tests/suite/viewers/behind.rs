//! Who watches on a slow terminal, and wants control: what came and was not shown yet is shown all the same.

use rustix::process::Signal;

use super::super::harness::{Guest, Locks, Pause, Piped, Session, Terminal, Vconsole, until};
use super::{leaves, lines, viewer, watches};

/// A console with an operator, and one who watches it on a screen that takes no more.
struct Scene {
    guest: Guest,
    locks: Locks,
    operator: Piped,
    desk: Terminal,
    /// What the viewer shows, as it is.
    screen: Guest,
    viewer: Session,
    /// What the console has printed.
    said: String,
}

impl Scene {
    /// The viewer has more before it than there is room for: it sees nothing of what becomes of its operator.
    #[track_caller]
    fn new(operator: impl FnOnce(&Guest, &Locks) -> Piped) -> Self {
        let (guest, locks, desk, screen) =
            (Guest::new(), Locks::new(), Terminal::new(), Guest::new());
        let operator = operator(&guest, &locks);
        screen.stops_reading();
        let viewer = viewer(&guest, &locks).stdout_to(screen.path()).on(&desk);
        desk.shows("watching");
        desk.becomes_raw();
        let (said, before) = (lines(30_000), viewer.bytes_read());
        guest.say(&said);
        operator.stdout().receives_exactly(&said);
        // Nothing more goes into the screen, nor what waits for it.
        until("it is behind", || viewer.bytes_read() - before > 65_536);
        viewer.reads_no_more();
        Self { guest, locks, operator, desk, screen, viewer, said }
    }

    /// The screen shows all that was printed, each byte once.
    #[track_caller]
    fn shows_all(&self) {
        self.screen.reads_on();
        self.screen.receives_exactly(&self.said);
    }
}

fn operates(guest: &Guest, locks: &Locks) -> Piped {
    Vconsole::attach(guest).locks(locks).attached_to_pipes()
}

#[test]
fn who_wants_control_of_a_console_that_is_gone_is_shown_the_rest_of_it() {
    let mut scene = Scene::new(operates);
    scene.guest.hang_up();
    assert_eq!(scene.operator.wait(), 5);
    scene.desk.clear();
    scene.desk.types("\x1df");
    scene.desk.shows("watching");
    scene.shows_all();
    assert_eq!(scene.viewer.wait(), 5);
    scene.desk.shows("hung up");
}

#[test]
fn who_is_ended_while_it_takes_control_says_what_it_could_not_show() {
    let pause = Pause::held_at("handing-over");
    let scene = Scene::new(|guest, locks| {
        pause.of(Vconsole::attach(guest).locks(locks)).attached_to_pipes()
    });
    scene.desk.types("\x1df");
    let paused = pause.reached();
    scene.viewer.signal(Signal::TERM);
    scene.desk.shows("bytes of output lost: they could not be shown");
    assert_eq!(scene.viewer.wait(), 143);
    pause.is_over(&[&paused]);
}

#[test]
fn who_takes_control_from_who_came_to_read_meanwhile_sees_what_that_one_read() {
    let mut scene = Scene::new(operates);
    let reader = watches(&scene.guest, &scene.locks);
    leaves(&scene.operator);
    reader.stderr().receives("connected to");
    scene.guest.say("news");
    until("it is read", || reader.stdout().so_far().ends_with(b"news"));
    scene.said += "news";
    scene.desk.types("\x1df");
    scene.desk.shows("connected to");
    reader.stderr().receives("taken over by vconsole");
    scene.shows_all();
    scene.desk.types("x");
    scene.guest.receives_exactly("x");
}
