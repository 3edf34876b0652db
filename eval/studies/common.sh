#!/usr/bin/env bash
# shellcheck disable=SC2034 # the studies use the variables
# Sourced by every study: its arguments, its named configs, and what all studies start from.
#
#   eval/studies/<study>.sh [--seeds 3] [--out build/studies/<study>] [--size small]
#
# small is the procedural corpus, or ESC-50 where a study says so, in this process; tiny is the same in seconds, for
# tests; full is for a cluster and real data. Stop a study at any time: the same command continues, and steps that are
# done return at once.
#
# --size full reads these variables. Paths are absolute or URIs, seen by every node:
#   SOURCE     tagged clips to caption: AudioSet's unbalanced_train_segments.csv, its class labels and audio beside it
#   CAPTIONED  captioned and tagged clips: AudioCaps' train.csv, AudioSet's tables beside it
#   ENCODER    the audio encoder to start from: CNN14 after `train convert`
#   TASK_DIR   the folder of the evaluation sets, each in a folder named as its task: esc50, audiocaps and so on
#   LISTS      official files of the evaluation sets, for --firewall.lists: their clips are left out
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
STUDY="$(basename "$0" .sh)"
SEEDS=3 SIZE=small OUT="build/studies/$STUDY"

refuse() { # the command is wrong
    echo "$0: $1" >&2
    exit 2
}

python() { # each command shows itself before it runs
    echo "$(date +%T) $STUDY: python $*" >&2
    command python "$@"
}

require() { # of each variable that is missing, its name and what it is
    for name in "$@"; do
        [ -n "${!name:-}" ] || refuse "the variable $name is missing; eval/studies/common.sh says what it is for"
    done
}

while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || refuse "$1 is missing its value, or is no flag of a study"
    case "$1" in
        --seeds) SEEDS="$2" ;;
        --out) OUT="${2%/}" ;;
        --size) SIZE="$2" ;;
        *) refuse "$1: no such flag; a study takes --seeds, --out and --size" ;;
    esac
    shift 2
done
[[ "$SEEDS" =~ ^[1-9][0-9]*$ ]] || refuse "--seeds '$SEEDS': give the number of runs, 1 or more"
BASE="${OUT%/*}/base" # studies beside each other share it

# Named configs with the flags that belong to them; how many steps the models of a study take, and in batches that a
# twentieth of the clips fills: their size, and the steps.
case "$SIZE" in
    small) synth=(demo) captioner=(demo) pretrain=(demo) suite=(laptop) steps=80 small_batch=(32 160) ;;
    tiny) synth=(tiny --num-tagged 40) captioner=(tiny) pretrain=(tiny) suite=(tiny) steps=4 small_batch=(2 4) ;;
    full)
        require SOURCE CAPTIONED ENCODER TASK_DIR LISTS
        captioner=("${CAPTIONER:-audiocaps}" --init-audio "$ENCODER") pretrain=("${PRETRAIN:-blat}")
        caption=("${CAPTION:-audioset}" --firewall.lists "$LISTS") score=("${SCORE:-audioset}") audit=(--no-in-process)
        zero_shot=(any --task esc50 --task-dir "$TASK_DIR/esc50" --workers 8 --gpus-per-worker 1)
        retrieval=(audiocaps --task-dir "$TASK_DIR/audiocaps" --workers 8 --gpus-per-worker 1)
        captioning=(ablation --task audiocaps --task-dir "$TASK_DIR/audiocaps" --device cuda)
        suite=("${SUITE:-cluster}")
        steps="${STEPS:-200000}" small_batch=(128 "$steps")
        ;;
    *) refuse "--size '$SIZE': use small, tiny or full" ;;
esac
if [ "$SIZE" != full ]; then
    SOURCE="$BASE/corpus/tagged_segments.csv" CAPTIONED="$BASE/corpus/captioned_segments.csv"
    caption=(demo) score=(demo) audit=(--in-process)
    zero_shot=(demo --task-dir "$BASE/corpus" --class-texts "$BASE/corpus/class_texts.json")
    retrieval=(demo --task-dir "$BASE/corpus") captioning=(demo --task-dir "$BASE/corpus")
    TASK_DIR="${TASK_DIR:-$BASE/corpus}"
fi

# base: for each seed a captioner, its captions guided by the clips' tags, and the model "guided" of those captions.
base() {
    if [ "$SIZE" != full ]; then
        python -m pipeline synth "${synth[@]}" --out "$BASE/corpus"
    fi
    python -m train captioner "${captioner[@]}" --seeds "$SEEDS" --source "$CAPTIONED" --out "$BASE/captioner"
    python -m pipeline caption "${caption[@]}" --seeds "$SEEDS" --source "$SOURCE" \
        --captioner "$BASE/captioner/seed{seed}" --out "$BASE/captions"
    python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$BASE/captions/seed{seed}" \
        --init-audio "$BASE/captioner/seed{seed}" --out "$BASE/models/guided"
    evaluate "$BASE/models/guided" "$BASE/results/guided"
}

# noisy <per cent>: DATA becomes captions guided by tags of which so many are wrong on purpose; real tags stay right.
noisy() {
    DATA="$BASE/captions"
    if [ "$1" != 0 ] && [ "$SIZE" != full ]; then
        DATA="$BASE/captions-noise$1"
        python -m pipeline synth "${synth[@]}" --tag-noise "0.$1" --out "$BASE/corpus-noise$1"
        python -m pipeline caption "${caption[@]}" --seeds "$SEEDS" \
            --source "$BASE/corpus-noise$1/tagged_segments.csv" --captioner "$BASE/captioner/seed{seed}" --out "$DATA"
    fi
}

# evaluate <models> <results>: zero-shot classification and tagging, and retrieval, by the model of each seed.
evaluate() {
    python -m eval zero-shot "${zero_shot[@]}" --seeds "$SEEDS" --model "$1/seed{seed}" --out "$2"
    python -m eval retrieval "${retrieval[@]}" --seeds "$SEEDS" --model "$1/seed{seed}" --out "$2"
}
