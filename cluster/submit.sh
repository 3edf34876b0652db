#!/usr/bin/env bash
# Run one stage as a Ray job:  cluster/submit.sh pipeline caption demo --source s3://... --out s3://...
# or a script of stages:       cluster/submit.sh cluster/bootstrap.sh s3://corpus s3://blat
# The cluster is RAY_API_SERVER_ADDRESS, by default the local one that `ray start --head` brings up.
# Paths in the command are seen by the cluster: use absolute paths or s3:// URIs, not paths relative to this folder.
# PASS_ENV="HF_TOKEN WANDB_API_KEY" hands variables of this shell to the job; SECURITY.md says who can read them there.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 3 ]; then
    echo "usage: cluster/submit.sh <room> <stage> <config> [--field value], or <script> <from> <to>" >&2
    exit 2
fi
for word in "${@:2}"; do
    if [[ "$word" != [/-]* && "$word" != *://* && "$word" == */* && -e "${word%%/*}" ]]; then
        echo "cluster/submit.sh: $word: the job runs elsewhere; give an absolute path that its nodes see, or a URI" >&2
        exit 2
    fi
done

case "$1" in
    *.sh) command=(bash) ;;
    *) command=(python -m) ;;
esac

# Ray guards its job server with a token; the client sends the one it has only when it is told to.
if [ -n "${RAY_AUTH_TOKEN:-}" ] || [ -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
    export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
fi
address="${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}" id="blat-$(date +%Y%m%d-%H%M%S)-$RANDOM"
environment="$(mktemp)" # only this user can read it
trap 'rm -f "$environment"' EXIT
read -ra names <<<"${PASS_ENV:-}"
# So written, bash 3 of macOS takes an empty list.
python cluster/submission.py "$address" ${names[@]+"${names[@]}"} >"$environment"
# Where the head goes away, Ray's client ends with a stack of its own; of a job that was stopped, with 0.
ray job submit --address "$address" --submission-id "$id" \
    --working-dir . --runtime-env "$environment" -- "${command[@]}" "$@" || true
if [[ "$(ray job status --address "$address" "$id" 2>&1)" != *succeeded* ]]; then
    echo "cluster/submit.sh: job $id has not succeeded; the same command goes on from storage" >&2
    exit 1
fi
