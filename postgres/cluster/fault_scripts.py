"""What breaking a node runs on its machine; see `host_scripts`.

An agent never dies before its server: it is stopped, its server is killed, and only then it is
killed or let go on. A stopped agent lets its leader key run out while its server would still take
writes, so nothing may end in between: signals are ignored, a process of its own lets the agent
go on when the script dies after all, and whoever cannot kill in time gives up.
"""

from __future__ import annotations

from typing import Final

from postgres.cluster.host_scripts import HEAD

_FIND: Final = """
refuse() { echo "refused $*"; exit 0; }
pause() { sleep 0.05 2>/dev/null || sleep 1; }
find_servers() { # all that work in the folder, the postmaster first
    note_pid
    found=
    if [ "$pid" -gt 0 ] && is_server "$pid"; then found=$pid; fi
    for entry in /proc/[0-9]*; do
        one=${entry#/proc/}
        [ "$one" != "$pid" ] && is_server "$one" && found="$found $one"
    done
    found=${found# }
}
lives() {
    state_of "$1"
    case $state in '' | Z | X) return 1 ;; esac
}
is_patroni() { # by one of its first words, not by a file that it reads: /usr/bin/patroni
    tr '\\0' '\\n' <"/proc/$1/cmdline" 2>/dev/null | head -n 4 | grep -qE '(^|/)patroni([.]py)?$'
}
is_above() { # whether $1 started $2, or who did
    child=$2
    while [ "$child" -gt 1 ]; do
        parent=
        while read -r word value; do
            [ "$word" = PPid: ] && parent=$value && break
        done <"/proc/$child/status"
        case $parent in '' | *[!0-9]*) return 1 ;; esac
        [ "$parent" = "$1" ] && return 0
        child=$parent
    done 2>/dev/null
    return 1
}
find_agent() { # the pid in the file $1 if it is an agent's; says what is wrong with it
    agent=
    [ -f "$1" ] && read -r agent <"$1"
    case $agent in
    '') wrong="$1 names no process" ; return 1 ;;
    *[!0-9]*) wrong="$1 holds no process id" ; return 1 ;;
    esac
    if ! lives "$agent"; then wrong="its agent does not run (process $agent)"; return 1; fi
    if is_server "$agent"; then
        wrong="process $agent of $1 is the server itself"
        return 1
    fi
    is_patroni "$agent" && return 0
    [ "$pid" -gt 0 ] && is_above "$agent" "$pid" && return 0
    wrong="process $agent of $1 is no agent of this server"
    return 1
}
"""

# What would be hit: said, and nothing done.
AIM: Final = (
    HEAD
    + _FIND
    + """
file=$2
[ -O "$data" ] && [ -e /proc/self/cwd ] && echo sees
find_servers
for one in $found; do echo server "$one"; done
[ -n "$file" ] && find_agent "$file" && echo agent "$agent"
exit 0
"""
)

# Two empty looks in a row: a backend that was just being started works in the folder only after
# a moment. Whoever comes back again and again is started by somebody else.
_KILL: Final = """
tell_time() { read -r now _ </proc/uptime && now=${now%%.*}; }
kill_servers() { # for so many seconds; what lives on is in $found
    tell_time
    end=$((now + $1))
    empty=0
    while :; do
        find_servers
        if [ -z "$found" ]; then
            empty=$((empty + 1))
            [ "$empty" -ge 2 ] && return 0
        else
            empty=0
            tell_time
            [ "$now" -gt "$end" ] && return 1
            kill -s KILL $found 2>/dev/null
        fi
        pause
    done
}
let_go_on() { # when we die, even by a signal that nobody can catch
    words='while [ -e "/proc/$1/cwd" ]; do sleep 0.1 || sleep 1; done; kill -s CONT "$2"'
    own=
    command -v setsid >/dev/null && own=setsid
    $own sh -c "$words" sh "$$" "$agent" </dev/null >/dev/null 2>&1 &
}
stop_agent() { # where somebody kills it meanwhile, the server is to be killed all the more
    kill -s STOP "$agent"
    looks=20
    while lives "$agent"; do
        case $state in T | t) return 0 ;; esac
        looks=$((looks - 1))
        [ "$looks" -le 0 ] && { kill -s CONT "$agent"; return 1; }
        pause
    done
}
kill_agent() {
    kill -s KILL "$agent"
    looks=20
    while [ "$looks" -gt 0 ] && lives "$agent"; do
        looks=$((looks - 1))
        pause
    done
}
"""

# $2: server or host; $3: the agent's file, '' where there is none; $4: seconds. Answers what was
# there (server, agent) and what is left (left, alive).
INJECT: Final = (
    HEAD
    + _FIND
    + _KILL
    + """
fault=$2 file=$3 seconds=$4
[ -O "$data" ] && [ -e /proc/self/cwd ] || refuse "the account that was asked does not see it"
find_servers
[ -n "$found" ] || refuse "no process of the server lives"
if [ -n "$file" ]; then find_agent "$file" || refuse "$wrong"; fi
was=$found
trap '' HUP INT TERM PIPE
if [ -n "$file" ]; then
    let_go_on
    stop_agent || refuse "its agent cannot be stopped (process $agent)"
fi
kill_servers "$seconds"
if [ -n "$file" ]; then
    if [ "$fault" = host ] && [ -z "$found" ]; then
        kill_agent
        kill_servers 1
    else
        kill -s CONT "$agent"
    fi
fi
for one in $was; do echo server "$one"; done
for one in $found; do echo left "$one"; done
if [ -n "$file" ]; then
    echo agent "$agent"
    lives "$agent" && echo alive "$agent"
fi
exit 0
"""
)

# An agent that was stopped goes on.
THAW: Final = (
    HEAD
    + _FIND
    + """
find_servers
find_agent "$2" && kill -s CONT "$agent"
exit 0
"""
)
