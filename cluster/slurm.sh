#!/usr/bin/env bash
# A stage, or a script of stages, on Ray over the nodes of one Slurm allocation; submit it from the root of the repository:
#   sbatch cluster/slurm.sh pipeline caption audioset --source ... --captioner ... --out ...
#   sbatch --nodes=4 cluster/slurm.sh cluster/bootstrap.sh <from> <to>
# Every node sees the paths, and this folder with its .venv. Options before the script's name win over those below. Ray's
# logs stay on each node, in /tmp/ray-<job>.
#SBATCH --job-name=blat-ray
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
# EDIT: the three above, --partition and --account where the site asks for them. Training takes 8 CPUs for each GPU.
# Whole nodes, all of whose memory Ray offers: every node decodes here, also those with GPUs.
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --ntasks-per-node=1
# Before the time limit the command gets SIGTERM: training saves, the job is queued again, the same command goes on.
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
if [ $# -lt 3 ] || [ ! -e pipeline/__main__.py ]; then
    echo "usage, in the root of the repository:" >&2
    echo "sbatch cluster/slurm.sh <room> <stage> <config> [--field value], or <script> <from> <to>" >&2
    exit 2
fi
case "$1" in
    *.sh) command=(bash) ;;
    *) command=(python -m) ;;
esac

export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" RAY_USAGE_STATS_ENABLED=0
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID" PORT="$((20000 + SLURM_JOB_ID % 2500 * 4))" # of this job alone
RAY_ADDRESS="$(python -c 'import ray; print(ray.util.get_node_ip_address())'):$PORT"
RAY_AUTH_TOKEN="$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" # of this allocation; it goes from environment to environment
export RAY_ADDRESS RAY_AUTH_TOKEN RAY_AUTH_MODE=token
if [[ "$RAY_ADDRESS" == 127.* ]]; then
    echo "cluster/slurm.sh: this node has no address but ${RAY_ADDRESS%:*}, as nodes without a default route: no other will join" >&2
fi
ulimit -n "$(ulimit -Hn)"

# Not `ray symmetric-run`: Ray 2.60's gives the command no SIGTERM, and returns 0 when Ray does not start.
# The first task, on the node of this script, is the head. The others wait for it, and start again should their Ray end.
set -m # each of the two below in a process group of its own
# shellcheck disable=SC2016
srun --cpu-bind=none --kill-on-bad-exit=1 bash -c '
    mkdir -p -m 700 "$RAY_TMPDIR" && [ -O "$RAY_TMPDIR" ] || exit 1
    node() {
        ray start --block --num-cpus "$SLURM_CPUS_ON_NODE" ${SLURM_GPUS_ON_NODE:+--num-gpus "$SLURM_GPUS_ON_NODE"} "$@" \
            >"$RAY_TMPDIR/$SLURM_PROCID.log" 2>&1 || tail -n 20 "$RAY_TMPDIR/$SLURM_PROCID.log" >&2
    }
    if [ "$SLURM_PROCID" = 0 ]; then
        node --head --node-ip-address "${RAY_ADDRESS%:*}" --port "$PORT" \
            --ray-client-server-port "$((PORT + 1))" --dashboard-port "$((PORT + 2))"
        exit 1
    fi
    while sleep 1; do
        ! (: <"/dev/tcp/${RAY_ADDRESS/://}") 2>/dev/null || node --address "$RAY_ADDRESS"
    done' </dev/null &
ray=$! main="" again=""
end_ray() { [ -z "$ray" ] || { kill "$ray" && wait "$ray"; } 2>/dev/null || true; }
stop() { if [ -z "$main" ]; then exit 143; else kill -TERM -- "-$main" || true; fi; }
trap end_ray EXIT
trap stop TERM
trap 'again=yes; stop' USR1

until (: <"/dev/tcp/${RAY_ADDRESS/://}") 2>/dev/null; do kill -0 "$ray"; sleep 1; done
"${command[@]}" "$@" </dev/null &
main=$!
while kill -0 -- "-$main" 2>/dev/null; do # any process of it: a script ends by SIGTERM before its stage has saved
    if [ -n "$ray" ] && ! kill -0 "$ray" 2>/dev/null; then
        echo "cluster/slurm.sh: Ray ended before the command" >&2
        ray="" && stop
    fi
    sleep 1
done
code=0 && wait "$main" || code=$?
if [ -n "$again" ] && [ "$code" != 0 ]; then
    end_ray
    scontrol requeue "$SLURM_JOB_ID" || echo "cluster/slurm.sh: not queued again; submit the same command" >&2
fi
exit "$code"
