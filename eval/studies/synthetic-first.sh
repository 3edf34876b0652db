#!/usr/bin/env bash
# Does an encoder that knows procedural sounds learn real ones from fewer clips? Two towers of 100, 400 and 1,200 clips
# of ESC-50, captioned by their labels; the audio tower starts from random weights ("random"), or from the encoder of
# the captioner that was trained on the procedural corpus ("synthetic"). All take the same number of steps. Fold 4 is
# tested, zero-shot; the clips come from folds 1 to 3, and the smaller lists are parts of the larger ones.
#   TASK_DIR   folder with esc50/metadata.csv (columns file, split, fold and labels in this order) and its audio
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"
require TASK_DIR

base
esc50="$(cd "$TASK_DIR/esc50" && pwd)"
mkdir -p "$OUT/lists"

shown=()
for clips in 100 400 1200; do
    # Of the 24 clips of each class in folds 1 to 3, every twelfth, every third or all.
    list="$OUT/lists/$clips.csv"
    {
        echo "file,labels"
        tail -n +2 "$esc50/metadata.csv" | cut -d, -f1,3,4 | awk -F, -v folder="$esc50" -v stride="$((1200 / clips))" \
            '$2 <= 3 && seen[$3]++ % stride == 0 { gsub("_", " ", $3); print folder "/" $1 "," $3 }'
    } >"$list"
    for start in random synthetic; do
        init=()
        if [ "$start" = synthetic ]; then
            init=(--init-audio "$BASE/captioner/seed{seed}")
        fi
        python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$list" --label-phrases "{}" \
            --mask-duplicates --optim.batch-size 50 --optim.epochs "$((4800 / clips))" ${init[@]+"${init[@]}"} \
            --out "$OUT/models/$start-$clips"
        python -m eval zero-shot esc50 --seeds "$SEEDS" --prompts "{}" --model "$OUT/models/$start-$clips/seed{seed}" \
            --task-dir "$esc50" --out "$OUT/results/$start-$clips"
        shown+=("$OUT/results/$start-$clips")
    done
done

for clips in 100 400 1200; do
    python -m eval report demo --results "$OUT/results/random-$clips" "$OUT/results/synthetic-$clips" \
        --out "$OUT/report-$clips"
done
python -m eval report demo --results "${shown[@]}" --out "$OUT/report"
