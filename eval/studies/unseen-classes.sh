#!/usr/bin/env bash
# What does a model know of classes that no training clip and no caption was of? Five draws of ten of ESC-50's classes,
# every fifth one from the first to the fifth on: every class is drawn once. Two towers train on the other forty classes
# of folds 1 to 3, from their labels ("labels"), or from half of that and half AudioSet's tags, which a tagger's scores
# assign to the same clips ("tags"). Tested are all clips of the ten classes, among their ten names, zero-shot. Beside
# them stands the same tagger without training ("transfer"). A run is a draw, and --seeds gives how many, up to 5.
#   TASK_DIR   folder with esc50/metadata.csv (columns file, split, fold and labels in this order) and its audio
#   TAGGER     mn04 after `train convert`
#   TAGS       AudioSet's class_labels_indices.csv
#   MINILM     folder of MiniLM; left out where the hub can be reached
# ESC-50 is all the data it takes: use the small size.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"
require TASK_DIR TAGGER TAGS
[ "$SEEDS" -le 5 ] || refuse "--seeds $SEEDS: there are 5 draws of classes"
MINILM="${MINILM:-sentence-transformers/all-MiniLM-L6-v2}"

esc50="$(cd "$TASK_DIR/esc50" && pwd)"
draws="$OUT/draws"
mkdir -p "$draws"
python -c 'import csv, sys; print(*(row["display_name"] for row in csv.DictReader(sys.stdin)), sep="\n")' \
    <"$TAGS" >"$draws/tags.txt"
for ((draw = 0; draw < SEEDS; draw++)); do
    tail -n +2 "$esc50/metadata.csv" | cut -d, -f4 | LC_ALL=C sort -u |
        awk -v draw="$draw" 'NR % 5 == (draw + 1) % 5' >"$draws/$draw.txt"
    for list in seen unseen; do
        {
            echo "file,labels"
            tail -n +2 "$esc50/metadata.csv" | cut -d, -f1,3,4 | awk -F, -v folder="$esc50" -v list="$list" '
                FNR == NR { unseen[$1]; next }
                list == "seen" ? !($3 in unseen) && $2 <= 3 : $3 in unseen { print folder "/" $1 "," $3 }
            ' "$draws/$draw.txt" -
        } >"$draws/$list$draw.csv"
    done
done

epochs=3
if [ "$SIZE" = tiny ]; then
    epochs=1
fi
pretrain=(esc50-minilm --network.text.name "$MINILM" --init-audio "$TAGGER" --seeds "$SEEDS")
pretrain+=(--optim.batch-size 32 --optim.lr 3e-3 --label-phrases "{}" "the sound of {}" "this is a sound of {}")

test_unseen() { # <flags>: of the ten classes of each draw
    python -m eval zero-shot any --task unseen-classes --task-dir "$draws/unseen{seed}.csv" --seeds "$SEEDS" "$@"
}

test_unseen --model "$TAGGER" --text-encoder "$MINILM" --transfer-over tags --out "$OUT/results/transfer"

python -m train pretrain "${pretrain[@]}" --optim.epochs "$((2 * epochs))" --data "$draws/seen{seed}.csv" \
    --out "$OUT/models/labels"
test_unseen --model "$OUT/models/labels/seed{seed}" --out "$OUT/results/labels"

python -m pipeline assign --seeds "$SEEDS" --source "$draws/seen{seed}.csv" --texts "$draws/tags.txt" \
    --model "$TAGGER" --text-encoder "$MINILM" --neighbours 0 --out "$OUT/captions"
python -m train pretrain "${pretrain[@]}" --optim.epochs "$epochs" \
    --data "$draws/seen{seed}.csv" "$OUT/captions/seed{seed}" --out "$OUT/models/tags"
test_unseen --model "$OUT/models/tags/seed{seed}" --out "$OUT/results/tags"

python -m eval report demo --draws --results "$OUT/results/transfer" "$OUT/results/labels" "$OUT/results/tags" \
    --out "$OUT/report"
