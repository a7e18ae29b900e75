# shellcheck shell=bash
# For scripts that keep Envoy, Chancery and models running: source it after common.sh. Needs $http and $manifests.

# ---- ending -----------------------------------------------------------------------------------------------------------

children=() started=no
# A signal may come more than once: from the terminal, and again from make.
stop() {
    trap '' INT TERM HUP
    kill -TERM "${children[@]}" 2>/dev/null || true
    wait
    [[ $started == no ]] || say "all that was started has ended"
    exit "${1:-0}"
}
trap stop INT TERM HUP

# A make that alone is interrupted waits for its recipe without a word to it, and one that is killed says nothing at all.
# Both can be seen: an interrupted make no longer catches the signal (bit 2), a killed one is no longer our parent.
catches_interrupt() {
    local caught
    caught=$(sed -n 's/^SigCgt:\s*//p' "/proc/$1/status") && [[ -n $caught ]] && ((16#${caught: -1} & 2))
}
watch_parent() {
    local parent=$1 script=$2 caught=no
    catches_interrupt "$parent" && caught=yes
    while [[ $(sed -n 's/^PPid:\s*//p' "/proc/$script/status") == "$parent" ]]; do
        [[ $caught == no ]] || catches_interrupt "$parent" || break
        sleep 0.5
    done
    kill -TERM "$script"
}
watch_parent $PPID $$ 2>/dev/null &
children+=($!)

# ---- starting ---------------------------------------------------------------------------------------------------------

# In the background, since a shell takes its signals between commands, and within none but `wait`.
foreground() {
    "$@" &
    children+=($!)
    wait $!
    unset 'children[-1]'
}

# Anything that answers on the port now is somebody else's.
need_ports() {
    local port
    for port in "$@"; do
        if (exec 3<>"/dev/tcp/127.0.0.1/${port#*=}") 2>/dev/null; then
            say "port ${port#*=} is taken: choose another one with make ${0##*/} ${port%=*}=…"
            stop 1
        fi
    done
}

# The models of examples/quickstart/models.yaml.
models=(
    sentiment:v1=127.0.0.11:18080 sentiment:v2=127.0.0.12:18080
    translate:v1=127.0.0.13:18080 translate:v2=127.0.0.14:18080
    summarize:v1=127.0.0.15:18080 summarize:v2=127.0.0.16:18080
    chat:v1=127.0.0.17:18080 chat:v2=127.0.0.18:18080
    embed:v1=127.0.0.19:18080
)

# Whether all are there still: one that ended by itself has said why, and the others are of no use without it.
alive() { local child; for child in "${children[@]}"; do kill -0 "$child" 2>/dev/null || return 1; done; }

# Whether Envoy answers a request for this host and path.
answers() {
    local status=
    { exec 3<>"/dev/tcp/127.0.0.1/$http"; } 2>/dev/null || return 1
    printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
    read -r -t 5 _ status _ <&3 || true
    exec 3>&-
    [[ $status == 200 || ($status && $manifests != examples/quickstart) ]]
}
