# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_vconsole_global_optspecs
    string join \n h/help V/version
end

function __fish_vconsole_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_vconsole_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_vconsole_using_subcommand
    set -l cmd (__fish_vconsole_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

# A console: one of those that are there, or else a file.
function __fish_vconsole_console
    set -l typed (commandline -ct)
    set -l consoles (vconsole status --names 2>/dev/null | string match -- "$typed*")
    if set -q consoles[1]
        string join \n $consoles
    else
        __fish_complete_path "$typed"
    end
end

complete -c vconsole -n "__fish_vconsole_needs_command" -s h -l help -d 'Print help'
complete -c vconsole -n "__fish_vconsole_needs_command" -s V -l version -d 'Print version'
complete -c vconsole -n "__fish_vconsole_needs_command" -f -a "attach" -d 'Attach to a console: take it for yourself alone, and relay it to this terminal'
complete -c vconsole -n "__fish_vconsole_needs_command" -f -a "status" -d 'Show who has which console, without touching any'
complete -c vconsole -n "__fish_vconsole_needs_command" -f -a "host" -d 'Run a command and offer it as a console on a new PTY'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -l reason -d 'Why: told to the user of the vconsole that is taken over, and recorded in the system\'s log' -r
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -s w -l wait -d 'If it is busy, wait until it is free: for ever, or for TIME (90s, 5m), then exit status 124. Waiters are served first come, first served. With --force: take it over from holders that can be evicted, and wait for the others'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -s e -l escape -d 'The key that begins a command to vconsole: ^] or any other ^X, or none' -r
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -l linger -d 'After the end of input, stay until the console was quiet for TIME (500ms, 90s, 5m), or `forever`. Without this: up to 3 s for a first byte, then until 1 s of quiet' -r
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -l linger-max -d 'Exit no later than TIME after the end of input, with exit status 124' -r
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -l locks -d 'What to do about lock files: `auto` takes them, and where an ordinary user may not write to the lock directory checks them; `require` insists on taking them; `check` only ever checks them; `off` does without' -r -f -a "auto\t'Take them; an ordinary user who may not write to the lock directory checks them'
require\t'Take them, or fail'
check\t'Check them, make none'
off\t'Do without'"
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -l lock-dir -d 'The lock directory, or `auto`: the system\'s (/var/lock, else /run/lock). A directory named lockdev in it is used as well' -r -f -a "(__fish_complete_directories)"
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -s f -l force -d 'Take the console over: from a vconsole that holds it (your own, or as root anybody\'s; its user is told who came), from other programs that have it (evicted by SIGHUP, then SIGTERM; as root also by hanging it up), or from a lock of an unknown owner; as root clear an exclusive flag that somebody left behind'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -s r -l read-only -d 'Watch and never type: what the operator sees, beginning with the last 64 KiB. If there is no operator, read the console until one comes, who needs no --force. The end of input is ignored'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -l private -d 'Let nobody watch'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -l stay -d 'When somebody takes the console over, stay on and watch'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -l ask -d 'If it is busy, ask what to do: wait as with --wait, take it over as with --force, or quit. Without a terminal on standard input and standard error nothing is asked'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -s q -l quiet -d 'No messages but errors'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vconsole -n "__fish_vconsole_using_subcommand status" -l watch -d 'Look again and again, every second or every TIME (500ms, 5s, 1m), until q or Ctrl-C: on a terminal in place, else one table, or one line of JSON, after the other'
complete -c vconsole -n "__fish_vconsole_using_subcommand status" -l lock-dir -d 'The lock directory, or `auto`: the system\'s (/var/lock, else /run/lock). A directory named lockdev in it is used as well' -r -f -a "(__fish_complete_directories)"
complete -c vconsole -n "__fish_vconsole_using_subcommand status" -s a -l all -d 'Also show PTYs whose other end is not known to offer a console, and that nobody holds'
complete -c vconsole -n "__fish_vconsole_using_subcommand status" -l json -d 'Print one JSON document; vconsole-status(1) describes it'
complete -c vconsole -n "__fish_vconsole_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vconsole -n "__fish_vconsole_using_subcommand host" -l link -d 'Also make this symlink to the PTY, and remove it at the end. Nothing is replaced but a symlink of yours that leads to a PTY which is gone' -r -F
complete -c vconsole -n "__fish_vconsole_using_subcommand host" -l attach -d 'Attach to it at once; leaving ends the command'
complete -c vconsole -n "__fish_vconsole_using_subcommand host" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vconsole -n "__fish_vconsole_using_subcommand attach status" -f -a "(__fish_vconsole_console)"
