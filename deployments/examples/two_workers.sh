#!/bin/sh
# Two workers with homes of their own and a shared folder, on this machine, run smoke experiments; then what landed is counted.
#
#   deployments/examples/two_workers.sh [EXPERIMENTS [FOLDER]]     60 experiments, in a new temporary folder
#
# TRIAGE and PREFECT are the commands (`uv run triage`, `uv run prefect`), PORT that of the server (4300). It keeps its data
# in SQLite, or where PREFECT_SERVER_DATABASE_CONNECTION_URL says; on Debian:
#
#   apt-get install postgresql && service postgresql start
#   runuser -u postgres -- psql -c "CREATE ROLE triage LOGIN PASSWORD 'triage'" -c "CREATE DATABASE triage OWNER triage"
#   runuser -u postgres -- psql triage -c "CREATE EXTENSION pg_trgm"
#   export PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://triage:triage@localhost/triage
set -eu

experiments=${1:-60}
place=${2:-$(mktemp -d)}
port=${PORT:-4300}
triage=${TRIAGE:-uv run triage}
prefect=${PREFECT:-uv run prefect}
mkdir -p "$place"
export PREFECT_API_URL="http://127.0.0.1:$port/api" TRIAGE_SHARED="$place/shared" DO_NOT_TRACK=1

in_home() { # in_home NAME COMMAND...: with a home of that name; each worker has an accelerator of its own
    name=$1
    shift
    mkdir -p "$place/$name"
    $how env TRIAGE_HOME="$place/$name" TRIAGE_WAREHOUSE="$place/$name/triage.duckdb" \
        PREFECT_HOME="$place/$name/prefect" TRIAGE_ACCELERATOR="$name" "$@"
}
how= # in the background `exec`, so that a signal reaches the command

wait_for() { # wait_for PID COMMAND...: until the command succeeds; an end of the process is one of the script
    pid=$1
    shift
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || { cat "$place"/*.log; exit 1; }
        sleep 1
    done
}

pids=
trap 'for pid in $pids; do kill -TERM "$pid" 2>/dev/null || true; done; wait' EXIT
trap 'exit 130' INT TERM

(how=exec; in_home server $prefect server start --host 127.0.0.1 --port "$port") >"$place/server.log" 2>&1 &
pids=$!
wait_for "$pids" curl --silent --fail --output /dev/null "$PREFECT_API_URL/health"

for worker in one two; do
    (how=exec; in_home $worker $triage join "http://127.0.0.1:$port") >"$place/$worker.log" 2>&1 &
    pids="$! $pids"
done
set -- $pids
wait_for "$1" grep -q "Worker started" "$place/two.log"
wait_for "$2" grep -q "Worker started" "$place/one.log"
echo "Two workers have joined; their logs are in $place."

seeds=$(seq -s, 1 $(((experiments + 7) / 8)))
code=0
in_home asks $triage sweep smoke --pool fleet --set "seeds=[$seeds]" --limit "$experiments" || code=$?

count() { in_home asks $triage sql "$1" --format csv | tail -1; }
versions() { find "$place/shared/landing" -mindepth 2 -maxdepth 2 -type d | wc -l; }
ids() { find "$place/shared/landing" -mindepth 1 -maxdepth 1 -type d | wc -l; }
trained() { find "$place/$1/experiments" -mindepth 2 -maxdepth 2 -name child.log 2>/dev/null | wc -l; }

trainings="FROM experiment JOIN landed ON landed.id = training_id WHERE recipe IN ('baseline', 'balanced_safe')"
echo
echo "exit code of the sweep:            $code"
echo "experiments asked for:             $experiments"
echo "experiments landed:                $(count "SELECT count(*) $trainings AND status = 'completed'")"
echo "of them different:                 $(count "SELECT count(DISTINCT cell_id) $trainings AND status = 'completed'")"
echo "trained by the workers:            $(trained one) + $(trained two)"
echo "results in the shared folder:      $(ids), of which $(($(versions) - $(ids))) came twice and count once"
exit $code
