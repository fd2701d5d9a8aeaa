#!/bin/sh
# How much faster two workers are than one, each bound to a core, on the same experiments of the smoke grid, whose trainings
# are made long enough (a minute) to be work.
#
#   deployments/examples/speed_up.sh [EXPERIMENTS [ITERATIONS [FOLDER]]]     4 experiments of 6000 updates
#
# Needs Linux, with two cores that do nothing else; the server and the sweep run on whichever has time.
set -eu

if ! command -v taskset curl >/dev/null || [ "$(nproc)" -lt 2 ]; then
    echo "This example binds two workers to a core each: run it on Linux, with two cores, util-linux and curl." >&2
    exit 2
fi

experiments=${1:-4}
iterations=${2:-6000}
place=${3:-$(mktemp -d)}
. "$(dirname "$0")/fleet.sh"
root=$place
server=http://127.0.0.1:$port
export PREFECT_API_URL="$server/api" OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

begin server $prefect server start --host 127.0.0.1 --port "$port"
wait_for "$pid" answers "$PREFECT_API_URL"

sweep_on() { # sweep_on POOL CORE...: the sweep with a worker on each of these cores; its wall seconds are $took
    pool=$1
    place=$root/$1
    mkdir -p "$place"
    shift
    workers=
    for core; do
        begin "core-$core" taskset -c "$core" $triage join "$server" --pool "$pool"
        joined "$pid" "core-$core"
        workers="$workers $pid"
    done
    began=$(date +%s)
    in_home asks $triage sweep smoke --pool "$pool" --limit "$experiments" --set "seeds=[$(seeds "$experiments")]" \
        --set "recipe.iterations=$iterations" --set training.evaluate_every=$((iterations / 4)) --set training.report_every=100
    took=$(($(date +%s) - began))
    kill -TERM $workers
    wait $workers || true
    of=$(count "SELECT concat_ws(' to ', min(train_seconds)::INTEGER, max(train_seconds)::INTEGER) $trainings")
    figures="$figures
$(printf '%-35s%s' "seconds with $# of them:" "$took; a training took $of; load $(cut -d' ' -f1 /proc/loadavg)")"
}

figures=
sweep_on one 0
alone=$took
sweep_on two 0 1

echo
echo "experiments, updates of each:      $experiments, $iterations"
echo "workers, each bound to a core:     1 and 2$figures"
echo "speed-up:                          $(echo "$alone $took" | awk '{printf "%.2f", $1 / $2}')"
