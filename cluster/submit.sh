#!/usr/bin/env bash
# Run one stage as a Ray job:  cluster/submit.sh pipeline caption demo --source s3://... --out s3://...
# The cluster is RAY_API_SERVER_ADDRESS, by default the local one that `ray start --head` brings up.
# Paths in the command are seen by the cluster: use absolute paths or s3:// URIs, not paths relative to this folder.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 3 ]; then
    echo "usage: cluster/submit.sh <room> <stage> <config> [--field value]" >&2
    exit 2
fi
# Ray guards its job server with a token; the client sends the one it has only when it is told to.
if [ -n "${RAY_AUTH_TOKEN:-}" ] || [ -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
    export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
fi
exec ray job submit --address "${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}" \
    --working-dir . --runtime-env cluster/runtime_env.yaml -- python -m "$@"
