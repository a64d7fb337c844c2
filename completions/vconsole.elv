
use builtin;
use str;

set edit:completion:arg-completer[vconsole] = {|@words|
    fn spaces {|n|
        builtin:repeat $n ' ' | str:join ''
    }
    fn cand {|text desc|
        edit:complex-candidate $text &display=$text' '(spaces (- 14 (wcswidth $text)))$desc
    }
    var command = 'vconsole'
    for word $words[1..-1] {
        if (str:has-prefix $word '-') {
            break
        }
        set command = $command';'$word
    }
    var completions = [
        &'vconsole'= {
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
            cand attach 'Attach to a console: take it for yourself alone, and relay it to this terminal'
            cand status 'Show who has which console, without touching any'
            cand host 'Run a command and offer it as a console on a new PTY'
        }
        &'vconsole;attach'= {
            cand --reason 'Why: told to the user of the vconsole that is taken over, and recorded in the system''s log'
            cand -w 'If it is busy, wait until it is free: for ever, or for TIME (90s, 5m), then exit status 124. Waiters are served first come, first served. With --force: take it over from holders that can be evicted, and wait for the others'
            cand --wait 'If it is busy, wait until it is free: for ever, or for TIME (90s, 5m), then exit status 124. Waiters are served first come, first served. With --force: take it over from holders that can be evicted, and wait for the others'
            cand -e 'The key that begins a command to vconsole: ^] or any other ^X, or none'
            cand --escape 'The key that begins a command to vconsole: ^] or any other ^X, or none'
            cand --linger 'After the end of input, stay until the console was quiet for TIME (500ms, 90s, 5m), or `forever`. Without this: up to 3 s for a first byte, then until 1 s of quiet'
            cand --linger-max 'Exit no later than TIME after the end of input, with exit status 124'
            cand --locks 'What to do about lock files: `auto` takes them, and where an ordinary user may not write to the lock directory checks them; `require` insists on taking them; `check` only ever checks them; `off` does without'
            cand --lock-dir 'The lock directory, or `auto`: the system''s (/var/lock, else /run/lock). A directory named lockdev in it is used as well'
            cand -f 'Take the console over: from a vconsole that holds it (your own, or as root anybody''s; its user is told who came), from other programs that have it (evicted by SIGHUP, then SIGTERM; as root also by hanging it up), or from a lock of an unknown owner; as root clear an exclusive flag that somebody left behind'
            cand --force 'Take the console over: from a vconsole that holds it (your own, or as root anybody''s; its user is told who came), from other programs that have it (evicted by SIGHUP, then SIGTERM; as root also by hanging it up), or from a lock of an unknown owner; as root clear an exclusive flag that somebody left behind'
            cand -r 'Watch and never type: what the operator sees, beginning with the last 64 KiB. If there is no operator, read the console until one comes, who needs no --force. The end of input is ignored'
            cand --read-only 'Watch and never type: what the operator sees, beginning with the last 64 KiB. If there is no operator, read the console until one comes, who needs no --force. The end of input is ignored'
            cand --private 'Let nobody watch'
            cand --stay 'When somebody takes the console over, stay on and watch'
            cand --ask 'If it is busy, ask what to do: wait as with --wait, take it over as with --force, or quit. Without a terminal on standard input and standard error nothing is asked'
            cand -q 'No messages but errors'
            cand --quiet 'No messages but errors'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
        &'vconsole;status'= {
            cand --watch 'Look again and again, every second or every TIME (500ms, 5s, 1m), until q or Ctrl-C: on a terminal in place, else one table, or one line of JSON, after the other'
            cand --lock-dir 'The lock directory, or `auto`: the system''s (/var/lock, else /run/lock). A directory named lockdev in it is used as well'
            cand -a 'Also show PTYs whose other end is not known to offer a console, and that nobody holds'
            cand --all 'Also show PTYs whose other end is not known to offer a console, and that nobody holds'
            cand --json 'Print one JSON document; vconsole-status(1) describes it'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
        &'vconsole;host'= {
            cand --link 'Also make this symlink to the PTY, and remove it at the end. Nothing is replaced but a symlink of yours that leads to a PTY which is gone'
            cand --attach 'Attach to it at once; leaving ends the command'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
        }
    ]
    $completions[$command]
}
