"""What is run on a node's machine, for any POSIX shell: `sh -c SCRIPT sh DATA ...`.

Each script answers with `twokey` first, so that an answer of a login shell, of a broken `ssh` or
of a container that is gone is never taken for one of ours. Beside the data folder stands
DATA.twokey-kept while a node is rewound or rebuilt: our copy of its configuration, and `half`.
"""

from __future__ import annotations

from typing import Final

HEAD: Final = """
echo twokey
set -u
data=$1
[ -L "$data" ] && data=$(readlink -f "$data")
state_of() { # the letter after the name, which may hold blanks and brackets
    state=
    { IFS= read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
    state=${line##*) }
    state=${state%% *}
}
is_server() { # lives, and works in the folder: not one that got its number
    comm=
    { read -r comm <"/proc/$1/comm"; } 2>/dev/null || return 1
    case $comm in postgres | postmaster) ;; *) return 1 ;; esac
    [ "/proc/$1/cwd" -ef "$data" ]
}
note_pid() {
    pid=
    [ -f "$data/postmaster.pid" ] && read -r pid <"$data/postmaster.pid"
    pid=${pid#-}
    case $pid in '' | *[!0-9]*) pid=0 ;; esac
}
"""

# A backend outlives its postmaster for as long as its statement takes, and may commit: every
# process that works in the folder counts. A zombie works nowhere and holds no socket.
LOOK: Final = (
    HEAD
    + """
port=$2
[ -f "$data.twokey-kept/half" ] && echo half
[ -e /proc/self/cwd ] && echo sees
if [ -r /proc/net/tcp ] && [ "$port" -gt 0 ]; then
    hex=$(printf '%04X' "$port")
    listening="^ *[0-9]+: [0-9A-F]+:$hex [0-9A-F]+:[0-9A-F]+ 0A"
    if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -qE "$listening"; then
        echo listens yes
    else
        echo listens no
    fi
fi
[ -d "$data" ] || exit 0
echo exists
[ -O "$data" ] && echo owner
[ -f "$data/PG_VERSION" ] && echo version "$(cat "$data/PG_VERSION")"
[ -f "$data/standby.signal" ] && echo standby
for entry in /proc/[0-9]*; do
    one=${entry#/proc/}
    comm=
    { read -r comm <"$entry/comm"; } 2>/dev/null || continue
    case $comm in
    postgres | postmaster)
        if [ "$entry/cwd" -ef "$data" ]; then
            state_of "$one"
            [ -n "$state" ] && echo server "$one" "$state"
        fi
        ;;
    pg_rewind | pg_basebackup)
        tr '\\0' '\\n' <"$entry/cmdline" 2>/dev/null | grep -qxF -e "$data" -e "$data.twokey-new" &&
            echo tool "$one"
        ;;
    esac
done
note_pid
if [ "$pid" -gt 0 ]; then
    state_of "$pid"
    case $state in
    '') echo note "$pid" gone ;;
    Z | X) echo note "$pid" zombie ;;
    *) if is_server "$pid"; then echo note "$pid" server; else echo note "$pid" other; fi ;;
    esac
fi
"""
)

# pg_ctl looks ten times a second; whoever waits for a primary waits for this. Answers with what
# pg_controldata says when it has ended, or `running` when it has not.
_STOP: Final = """
stop_server() { # signal, tries
    tries=$2
    note_pid
    if [ "$pid" -gt 0 ] && is_server "$pid"; then
        kill -s "$1" "$pid" || return 1
        while is_server "$pid"; do
            state_of "$pid"
            case $state in Z | X) break ;; esac
            tries=$((tries - 1))
            [ "$tries" -le 0 ] && { echo running; return 0; }
            sleep 0.01 2>/dev/null || sleep 1
        done
    fi
    LC_ALL=C "$programs/pg_controldata" -D "$data"
}
"""
_MARK: Final = """
mark() {
    umask 077
    true >"$data/standby.signal" || return 1
    sync "$data/standby.signal" "$data" 2>/dev/null || true
}
"""
STOP: Final = HEAD + _STOP + 'programs=$2\nstop_server "$3" "$4"\n'

# Waits for a word on standard input before each step, so that nobody waits for a shell or an
# `ssh` to come up while no server takes writes. Ends when the words end: nothing more happens.
HAND: Final = (
    HEAD
    + _STOP
    + _MARK
    + """
programs=$2
read -r word || exit 1 # standard input is not passed on
echo ready
read -r word signal tries || exit 0
[ "$word" = stop ] || exit 0
stop_server "$signal" "$tries" || exit 1
echo ended
read -r word || exit 0
[ "$word" = mark ] || exit 0
mark || exit 1
echo marked
"""
)

CONTROL: Final = HEAD + 'LC_ALL=C "$2/pg_controldata" -D "$data"\n'

# Started as what the caller means it to be, or not at all. A dead server's note whose number
# belongs to a zombie or to another program would stop it, so that goes; PostgreSQL keeps it to
# see whether old backends live on, which is looked at here.
READY_TO_START: Final = (
    HEAD
    + """
role=$2
[ -f "$data.twokey-kept/half" ] && { echo half; exit 1; }
is=primary
[ -f "$data/standby.signal" ] && is=standby
[ -f "$data/recovery.signal" ] && is="server to be restored"
[ "$is" = "$role" ] || { echo "it would start as a $is"; exit 1; }
note_pid
if [ "$pid" -gt 0 ] && ! is_server "$pid" && [ -e "/proc/$pid" ]; then
    for entry in /proc/[0-9]*; do
        one=${entry#/proc/}
        is_server "$one" && { echo "process $one of the server still lives"; exit 1; }
    done
    # The same number stands in the lock of its socket, which also names its folder.
    port=$(sed -n 4p "$data/postmaster.pid")
    socket=$(sed -n 5p "$data/postmaster.pid")/.s.PGSQL.$port
    if [ -f "$socket.lock" ] && [ "$(sed -n 1p "$socket.lock")" = "$pid" ] &&
        [ "$(sed -n 2p "$socket.lock")" -ef "$data" ]; then
        rm -f "$socket" "$socket.lock"
    fi
    rm -f "$data/postmaster.pid"
fi
"""
)
START: Final = (
    READY_TO_START
    + """
programs=$3 options=$4
log=
for log in "$data.run/log" "$data.log" "$data/pg_start.log"; do
    ( true >>"$log" ) 2>/dev/null && break
done
echo log "$log"
"$programs/pg_ctl" start -W -s -D "$data" -l "$log" ${options:+-o "$options"} 2>&1
"""
)

LOG: Final = (
    HEAD
    + """
for log in "$data.run/log" "$data.log" "$data/pg_start.log"; do
    [ -w "$log" ] && { tail -n 20 "$log"; break; }
done
"""
)

READ: Final = HEAD + '[ -f "$data/$2" ] || exit 0\ncat "$data/$2"\n'

# Whole or not at all, and on the disk before anybody relies on it. A `via` that passes no
# standard input on (docker exec without -i) must not empty a file.
WRITE: Final = (
    HEAD
    + """
umask 077
cat >"$data/$2.twokey" || exit 1
[ "$(wc -c <"$data/$2.twokey")" -eq "$3" ] || {
    rm -f "$data/$2.twokey"
    echo "standard input was not passed on"
    exit 1
}
mv -f "$data/$2.twokey" "$data/$2" || exit 1
sync "$data/$2" "$data" 2>/dev/null || true
"""
)
SIGNAL: Final = HEAD + _MARK + "mark\n"
REMOVE: Final = HEAD + 'rm -f "$data/$2" && { sync "$data" 2>/dev/null || :; }\n'
RELOAD: Final = HEAD + 'note_pid\nis_server "$pid" && kill -s HUP "$pid"\n'
