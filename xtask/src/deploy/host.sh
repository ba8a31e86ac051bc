#!/bin/sh
# Runs on the host that is deployed to, as root; needs a POSIX shell, coreutils and util-linux. A deployment is one run of
# it: a connection that breaks midway (the new release may take it down) must not keep the host from rolling back.
#
#   host.sh deploy FOLDER VERSION     judge, install, switch, restart, wait, roll back     0 done, 1 rolled back, 2 refused
#   host.sh try FOLDER VERSION        judge only; changes nothing
#   host.sh rollback                  back to the release before
#   host.sh status                    what is installed and how it is
#   host.sh supervise                 the service manager of hosts that have none
#
# From the environment: SERVICE (systemd, process, auto), WAIT (seconds), KEEP (releases), ACCEPT (yes: the doctor's problems
# do not matter). The cores are the release's (its file `cpus`, a list or empty): it goes back to them when it is gone back to.
set -u
root=/opt/feedhandler
pidfile=/run/feedhandler/supervisor.pid
log=/var/log/feedhandler.log
unit=/etc/systemd/system/feedhandler.service

# Nobody may be listening any more.
trap '' HUP PIPE
say() { echo "$*" 2>/dev/null || :; }
fail() { status=$1; shift; say "error: $*"; exit "$status"; }

service=${SERVICE:-auto}
if [ "$service" = auto ]; then
    # The test of sd_booted(3).
    if [ -d /run/systemd/system ]; then service=systemd; else service=process; fi
fi

current() { readlink "$root/current" 2>/dev/null | sed 's|^releases/||'; }
previous() { readlink "$root/previous" 2>/dev/null | sed 's|^releases/||'; }

# Everybody sees the old release or the new one, never none: rename(2).
point() { ln -sfn "releases/$2" "$root/.$1.new" && mv -fT "$root/.$1.new" "$root/$1"; }

alive() { [ -r "/proc/$1/stat" ] && ! grep -q ') Z ' "/proc/$1/stat" 2>/dev/null; }

# The pid of the supervisor; nothing if another process has that number now.
supervisor() {
    pid=$(cat "$pidfile" 2>/dev/null) || return 0
    if alive "$pid" && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'host.sh supervise'; then echo "$pid"; fi
}

supervise() {
    exec 9>&-
    trap - HUP PIPE
    child=
    stopping=
    failures=0
    rm -f "$pidfile.failures"
    trap 'stopping=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
    while [ -z "$stopping" ]; do
        "$root/current/bin/feedhandler" run --config "$root/current/feedhandler.toml" &
        child=$!
        # It may have ended before anybody looks, and a signal ends a wait early.
        while :; do
            wait "$child"
            status=$?
            alive "$child" || break
        done
        if [ "$status" = 0 ]; then break; fi
        failures=$((failures + 1))
        echo "$failures" >"$pidfile.failures"
        [ -n "$stopping" ] || echo "supervisor: the handler ended with status $status; starting it again" >&2
        sleep 1 &
        child=$!
        wait "$child"
    done
    rm -f "$pidfile"
}

stop_process() {
    pid=$(supervisor)
    [ -n "$pid" ] || return 0
    kill -TERM "$pid"
    left=150
    while alive "$pid"; do
        left=$((left - 1))
        if [ "$left" = 0 ]; then
            # Itself and what it runs: one session.
            kill -KILL "-$pid" 2>/dev/null
        fi
        [ "$left" -gt -20 ] || fail 1 "the handler (supervisor $pid) cannot be stopped"
        sleep 0.1
    done
}

start_process() {
    mkdir -p "${pidfile%/*}"
    rm -f "$pidfile.failures"
    # One old log is kept, and none grows for ever.
    if [ -f "$log" ] && [ "$(stat -c %s "$log")" -gt 67108864 ]; then mv -f "$log" "$log.1"; fi
    cpus=$(cat "$root/current/cpus")
    pin=
    if [ -n "$cpus" ]; then pin="taskset -c $cpus"; fi
    # shellcheck disable=SC2086
    setsid $pin sh "$root/current/host.sh" supervise </dev/null >>"$log" 2>&1 9>&- &
    echo $! >"$pidfile"
}

# Restarts into what `current` is; returns when the service manager says that it runs.
restart() {
    if [ "$service" = systemd ]; then
        install -m 644 "$root/current/feedhandler.sysusers" /etc/sysusers.d/feedhandler.conf &&
            systemd-sysusers /etc/sysusers.d/feedhandler.conf &&
            chgrp feedhandler "$root/current/feedhandler.toml" && chmod 640 "$root/current/feedhandler.toml" &&
            install -m 644 "$root/current/feedhandler.service" "$unit.new" && mv -f "$unit.new" "$unit" &&
            systemctl daemon-reload && systemctl --quiet enable feedhandler.service &&
            systemctl restart feedhandler.service
    else
        stop_process && start_process
    fi
}

stop_service() {
    if [ "$service" = systemd ]; then systemctl stop feedhandler.service; else stop_process; fi
}

# Whether what `current` is becomes ready, and still is a moment later.
is_ready() {
    feedctl="$root/current/bin/feedctl --endpoint $(cat "$root/current/endpoint") ready"
    why=
    left=$1
    until why=$($feedctl --wait 1 2>&1); do
        left=$((left - 1))
        # A handler that has ended twice will do so again: the release before should not wait for that.
        if [ "$left" -le 0 ] || gives_up; then
            say "$why"
            return 1
        fi
    done
    sleep 1
    why=$($feedctl --wait 2 2>&1) || { say "$why"; return 1; }
}

gives_up() {
    if [ "$service" = systemd ]; then
        [ "$(systemctl show -P NRestarts feedhandler.service)" -ge 2 ]
    else
        [ "$(cat "$pidfile.failures" 2>/dev/null || echo 0)" -ge 2 ]
    fi
}

last_words() {
    say "its last words:"
    if [ "$service" = systemd ]; then
        journalctl --no-pager --quiet -u feedhandler.service -n 15 -o cat 2>/dev/null ||
            systemctl --no-pager status feedhandler.service 2>/dev/null
    else
        tail -n 15 "$log"
    fi | sed 's/^/  | /'
}

# Switches to a release and starts it; back to the one before if that one does not become ready.
activate() {
    before=$(current)
    point current "$1" || fail 1 "cannot switch $root/current"
    say "switched to $1; starting it ($service)"
    if restart && is_ready "${WAIT:-30}"; then
        if [ -n "$before" ] && [ "$before" != "$1" ]; then point previous "$before"; fi
        say "ready: $1"
        return 0
    fi
    say "$1 does not become ready"
    last_words
    if [ -z "$before" ] || [ "$before" = "$1" ]; then
        stop_service
        # What is enabled would be tried at every boot, again and again.
        if [ "$service" = systemd ]; then systemctl --quiet disable feedhandler.service; fi
        rm -f "$root/current"
        fail 1 "$1 does not become ready, and there is no release before it to go back to: nothing runs"
    fi
    point current "$before" || fail 1 "cannot switch $root/current back"
    say "switched back to $before; starting it"
    if restart && is_ready 30; then fail 1 "$1 did not become ready; rolled back to $before, which is ready"; fi
    last_words
    fail 1 "$1 did not become ready; rolled back to $before, which is not ready either"
}

# The doctor's word on this host, for the configuration in a folder.
judge() {
    folder=$1
    "$folder/bin/feedhandler" --version >/dev/null || fail 2 "the program does not run on this host: another architecture or older libraries, or $folder is mounted noexec (TMPDIR names another folder)"
    cpus=$(cat "$folder/cpus")
    pin=
    # Isolated cores are the service's, though not this session's.
    if command -v taskset >/dev/null; then
        pin="taskset -c ${cpus:-0-$(($(nproc --all) - 1))}"
        # Its own failure would look like the doctor's warnings.
        if ! $pin true 2>/dev/null; then
            [ -z "$cpus" ] || fail 2 "refused: cores $cpus are not to be had on this host (it has 0-$(($(nproc --all) - 1)))"
            pin=
        fi
    elif [ -n "$cpus" ] && [ "$service" = process ]; then
        fail 2 "refused: cores $cpus are asked for, and this host has no taskset (package util-linux)"
    fi
    $pin "$folder/bin/feedhandler" doctor --config "$folder/feedhandler.toml" 2>&1
    case $? in
    0 | 1) say "doctor: no problem on this host" ;;
    *)
        [ "${ACCEPT:-}" = yes ] || fail 2 "refused: the doctor sees problems on this host (above); --accept-problems deploys all the same"
        say "doctor: problems, which are accepted"
        ;;
    esac
}

# Releases that nobody needs: all but the newest KEEP, the current one and the one before.
prune() {
    for old in $(cd "$root/releases" && ls -1 | sort | head -n "-${KEEP:-5}"); do
        if [ "$old" != "$(current)" ] && [ "$old" != "$(previous)" ]; then rm -rf "${root:?}/releases/$old"; fi
    done
}

lock() {
    mkdir -p "$root/releases" || fail 1 "cannot write to $root"
    exec 9>"$root/.lock"
    flock -n 9 || fail 1 "somebody else deploys to this host"
}

case ${1:-} in
try)
    judge "$2"
    say "service: $service; now: $(current | grep . || echo none); would be: $3"
    ;;
deploy)
    lock
    judge "$2"
    # Copied under another name first: a release is there as a whole or not at all. The configuration may hold passwords: it
    # is root's, and its group's under systemd (restart), at every moment.
    new="$root/releases/.$3"
    rm -rf "$new"
    (umask 077 && mkdir "$new" && cp -R "$2/." "$new/") && chmod -R u=rwX,go=rX "$new/"* &&
        chmod 600 "$new/feedhandler.toml" && chmod 755 "$new" &&
        sync -f "$root/releases" && mv -T "$new" "$root/releases/$3" || fail 1 "cannot install $3"
    # Whoever shipped it may not be there any more to do so.
    rm -rf "${2:?}"
    activate "$3"
    prune
    ;;
rollback)
    lock
    target=$(previous)
    [ -n "$target" ] || fail 1 "there is no release before $(current | grep . || echo 'the first')"
    activate "$target"
    ;;
status)
    say "current:  $(current | grep . || echo none)"
    say "previous: $(previous | grep . || echo none)"
    say "releases: $(ls -1 "$root/releases" 2>/dev/null | tr '\n' ' ')"
    if [ "$service" = systemd ]; then
        say "service:  systemd, $(systemctl is-active feedhandler.service)"
    else
        pid=$(supervisor)
        say "service:  process, ${pid:+supervisor }${pid:-not running}"
    fi
    [ -n "$(current)" ] || exit 1
    exec "$root/current/bin/feedctl" --endpoint "$(cat "$root/current/endpoint")" ready
    ;;
supervise) supervise ;;
*) fail 2 "host.sh: unknown verb ${1:-}" ;;
esac
