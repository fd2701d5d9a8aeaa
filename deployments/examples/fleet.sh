# What the examples of a fleet have in common; they read it with `.`, after setting `place` to the folder of all that they make.
#
# TRIAGE and PREFECT are the commands (`uv run triage`, `uv run prefect`), PORT that of the server (4300).

triage=${TRIAGE:-uv run triage}
prefect=${PREFECT:-uv run prefect}
port=${PORT:-4300}
mkdir -p "$place"
export DO_NOT_TRACK=1
# As with `triage up`: a lease ends although the server was killed.
export PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem
unset PREFECT_API_AUTH_STRING PREFECT_SERVER_API_AUTH_STRING # an example chooses its own, or has none

in_home() { # in_home NAME COMMAND...: with a home of that name; each has an accelerator of its own
    name=$1
    shift
    mkdir -p "$place/$name"
    $how env TRIAGE_HOME="$place/$name" TRIAGE_WAREHOUSE="$place/$name/triage.duckdb" TRIAGE_SHARED="$place/shared" \
        PREFECT_HOME="$place/$name/prefect" TRIAGE_ACCELERATOR="$name-$$" "$@"
}
how= # in the background `exec`, so that a signal reaches the command

pids=
begin() { # begin NAME COMMAND...: in_home, in the background; its process id is $pid, its output in $place/NAME.log
    (how=exec; in_home "$@") >"$place/$1.log" 2>&1 &
    pid=$!
    pids="$pid $pids"
}

wait_for() { # wait_for PID COMMAND...: until the command succeeds; an end of the process is one of the script
    awaited=$1
    shift
    until "$@"; do
        kill -0 "$awaited" 2>/dev/null || { cat "$place"/*.log; exit 1; }
        sleep 0.5
    done
}

finish() { # end all that was begun, workers before their server
    for pid in $pids; do kill -TERM "$pid" 2>/dev/null || true; done
    wait
    pids=
}
trap finish EXIT
trap 'exit 130' INT TERM

answers() { curl --silent --fail --output /dev/null ${PREFECT_API_AUTH_STRING:+--user "$PREFECT_API_AUTH_STRING"} "$1/health"; }
joined() { wait_for "$1" grep -qs "Worker started" "$place/$2.log"; } # joined PID NAME

seeds() { seq -s, 1 $((($1 + 7) / 8)); } # of the smoke grid, whose seed is 8 experiments

# What the machine that asks has in its warehouse, and the workers in their homes.
count() { in_home asks $triage sql "$1" --format csv | tail -1; }
trainings="FROM experiment JOIN landed ON landed.id = training_id WHERE recipe IN ('baseline', 'balanced_safe')"
landed() { count "SELECT count(*) $trainings AND status = 'completed'"; }
different() { count "SELECT count(DISTINCT cell_id) $trainings AND status = 'completed'"; }

beyond_steps() { # seconds that an experiment's run takes beyond the processes of its steps: Prefect, landing, sharing
    count "SELECT round((run_seconds - step_seconds) / experiments, 1) FROM sweep ORDER BY started_at DESC LIMIT 1"
}

trained() { # trained NAME: ids of the trainings that ended in this home; one that came from another machine has no log
    for log in "$place/$1"/experiments/*/child.log; do
        [ ! -e "${log%child.log}manifest.json" ] || basename "${log%/child.log}"
    done
}

in_shared_folder() { # how many results it holds, and how many of them several machines have written
    versions=$(find "$place/shared/landing" -mindepth 2 -maxdepth 2 -type d | wc -l)
    ids=$(find "$place/shared/landing" -mindepth 1 -maxdepth 1 -type d | wc -l)
    echo "$ids, of which $((versions - ids)) came twice and count once"
}
