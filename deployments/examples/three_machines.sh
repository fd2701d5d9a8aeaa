#!/bin/sh
# Three machines on one Linux computer run smoke experiments, and two of them have accidents in mid training: one is cut off
# from the network for longer than a lease, and one is killed. Then what landed is counted.
#
#   deployments/examples/three_machines.sh [EXPERIMENTS [FOLDER [SECONDS]]]     24 experiments; cut off for 150 s
#
# Each machine is a network namespace on a bridge, with processes, a host name and a home of its own; the folder that they
# share stays in reach. The server is on the bridge's side, has a password, and keeps its data as in two_workers.sh. Needs
# root, and the commands ip (iproute2), unshare (util-linux) and curl.
set -eu

if [ "$(id -u)" != 0 ] || ! command -v ip unshare curl >/dev/null; then
    echo "This example makes network namespaces: run it on Linux, as root, with iproute2, util-linux and curl installed." >&2
    exit 2
fi

experiments=${1:-24}
place=${2:-$(mktemp -d)}
seconds=${3:-150} # a worker counts as gone 90 s after its last heartbeat
iterations=${ITERATIONS:-480} # of a training: longer than a checkpoint takes to be shared, on any machine
. "$(dirname "$0")/fleet.sh"
machines="one two three"
network=10.87.65

remove_machines() { # with all their processes
    for name in $machines; do
        ip netns pids "triage-$name" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
        ip netns del "triage-$name" 2>/dev/null || true
    done
    ip link del triage-bridge 2>/dev/null || true
}
remove_machines # of a run that was killed
trap 'remove_machines; finish' EXIT

ip link add triage-bridge type bridge
ip address add $network.1/24 dev triage-bridge
ip link set triage-bridge up
for name in $machines; do
    case $name in one) host=11 ;; two) host=12 ;; three) host=13 ;; esac
    ip netns add "triage-$name"
    ip link add "triage-$name" type veth peer name eth0 netns "triage-$name"
    ip link set "triage-$name" master triage-bridge up
    ip -n "triage-$name" address add $network.$host/24 dev eth0
    ip -n "triage-$name" link set eth0 up
    ip -n "triage-$name" link set lo up
done

begin_on() { # begin_on NAME COMMAND...: on that machine, all of whose processes end with the one in $pid
    machine=$1
    shift
    begin "$machine" ip netns exec "triage-$machine" unshare --uts --pid --fork --kill-child --mount-proc \
        sh -c 'hostname "$0"; "$@"; exit' "$machine" "$@"
}

say() { echo "$(date +%H:%M:%S)  $*"; }

trains() { # trains NAME: the machine is in mid training, and has shared a checkpoint; the id is in $id
    for checkpoints in "$place/$1"/experiments/*/checkpoint; do
        folder=${checkpoints%/checkpoint}
        id=${folder##*/}
        [ ! -e "$place/shared/checkpoints/$id/manifest.json" ] || [ -e "$folder/manifest.json" ] || return 0
    done
    return 1
}

have_ended() { [ "$(find "$place"/shared/experiments -name manifest.json 2>/dev/null | wc -l)" -ge "$1" ]; }

export PREFECT_SERVER_API_AUTH_STRING="fleet:$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')"
server=http://$network.1:$port
begin server $triage up --host 0.0.0.0 --port "$port"
up=$pid
wait_for "$up" grep -qs "Stop with Ctrl-C" "$place/server.log"

echo "Without a password:"
in_home one ip netns exec triage-one $triage join "$server" && exit 1
export PREFECT_API_URL="$server/api" PREFECT_API_AUTH_STRING="$PREFECT_SERVER_API_AUTH_STRING"
unset PREFECT_SERVER_API_AUTH_STRING

begin_on one $triage join "$server"
one=$pid
begin_on two $triage join "$server"
two=$pid
begin_on three $triage join "$server"
three=$pid
joined "$one" one
joined "$two" two
joined "$three" three
echo "Three machines have joined; their logs are in $place."

(how=exec; in_home asks $triage sweep smoke --pool fleet --limit "$experiments" \
    --set "seeds=[$(seeds "$experiments")]" --set "recipe.iterations=$iterations") &
sweep=$!
pids="$sweep $pids"

wait_for "$sweep" have_ended $((experiments / 4))
wait_for "$sweep" trains two
ip link set triage-two down
cut=$(date +%s)
say "two is cut off, in the training of $id"
wait_for "$sweep" trains three
kill -KILL "$three"
say "three is killed, in the training of $id"
while [ $(($(date +%s) - cut)) -lt "$seconds" ] && kill -0 "$sweep" 2>/dev/null; do sleep 1; done
in_home asks $triage fleet
ip link set triage-two up
say "two is back, after $(($(date +%s) - cut)) s"

code=0
wait "$sweep" || code=$?

twice() { for name in $machines; do trained "$name"; done | sort | uniq -d; }
went_on() {
    curl --silent --user "$PREFECT_API_AUTH_STRING" --json '{"logs": {"text": {"query": "\"Training goes on from update\""}}}' \
        "$PREFECT_API_URL/logs/filter" | grep -o "Training goes on from update" | wc -l
}

echo
echo "exit code of the sweep:            $code"
echo "experiments asked for:             $experiments"
echo "experiments landed:                $(landed)"
echo "of them different:                 $(different)"
echo "trained by the machines:           $(trained one | wc -l) + $(trained two | wc -l) + $(trained three | wc -l)"
echo "gone on from a shared checkpoint:  $(went_on)"
echo "trained to their end twice:        $(twice | wc -l), of which two, which was cut off, had $(twice | grep -c -x "$(trained two)")"
echo "results in the shared folder:      $(in_shared_folder)"
exit $code
