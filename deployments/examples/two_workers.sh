#!/bin/sh
# Two workers with homes of their own and a shared folder, on this machine, run smoke experiments; then what landed is counted.
#
#   deployments/examples/two_workers.sh [EXPERIMENTS [FOLDER]]     60 experiments, in a new temporary folder
#
# Run it where `uv run triage` works; see fleet.sh for other commands. The server keeps its data in SQLite, or where
# PREFECT_SERVER_DATABASE_CONNECTION_URL says; on Debian:
#
#   apt-get install postgresql && service postgresql start
#   runuser -u postgres -- psql -c "CREATE ROLE triage LOGIN PASSWORD 'triage'" -c "CREATE DATABASE triage OWNER triage"
#   runuser -u postgres -- psql triage -c "CREATE EXTENSION pg_trgm"
#   export PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://triage:triage@localhost/triage
set -eu

experiments=${1:-60}
place=${2:-$(mktemp -d)}
. "$(dirname "$0")/fleet.sh"
export PREFECT_API_URL="http://127.0.0.1:$port/api"

begin server $prefect server start --host 127.0.0.1 --port "$port"
wait_for "$pid" answers "$PREFECT_API_URL"

begin one $triage join "http://127.0.0.1:$port"
one=$pid
begin two $triage join "http://127.0.0.1:$port"
joined "$one" one
joined "$pid" two
echo "Two workers have joined; their logs are in $place."

code=0
began=$(date +%s)
in_home asks $triage sweep smoke --pool fleet --set "seeds=[$(seeds "$experiments")]" --limit "$experiments" || code=$?
took=$(($(date +%s) - began))

echo
echo "exit code of the sweep:            $code"
echo "experiments asked for:             $experiments"
echo "experiments landed:                $(landed)"
echo "of them different:                 $(different)"
echo "trained by the workers:            $(trained one | wc -l) + $(trained two | wc -l)"
echo "results in the shared folder:      $(in_shared_folder)"
echo "seconds of the sweep:              $took; beyond its steps, each run takes $(beyond_steps)"
exit $code
