#!/usr/bin/env bash
# What can be learned from real audio without a label? ESC-50's folds 1 to 3 are clips without labels; the class names
# are the texts. A tagger and a sentence encoder say how well each name fits each clip ("tag transfer"). `pipeline
# assign` makes captions of that: every name gets as many clips as any other ("balanced"), and clips that are close to
# each other get similar names ("smoothed"). Two towers train on them. In a second round the towers of the first assign
# the names anew ("round2"). Fold 4 is tested, zero-shot. Labels are read by the test alone.
# That the names are equally frequent is taken as known: it is so in ESC-50.
#   TASK_DIR   folder with esc50/metadata.csv (columns file, split, fold and labels in this order) and its audio
#   TAGGER     mn04 after `train convert`
#   MINILM     folder of MiniLM; left out where the hub can be reached
# --size full trains on the clips of SOURCE in place of folds 1 to 3, by the config PRETRAIN.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"
require TASK_DIR TAGGER
MINILM="${MINILM:-sentence-transformers/all-MiniLM-L6-v2}"
prompts=("{}" "the sound of {}" "this is a sound of {}") # those of `eval zero-shot`

esc50="$(cd "$TASK_DIR/esc50" && pwd)"
mkdir -p "$OUT"
tail -n +2 "$esc50/metadata.csv" | cut -d, -f4 | LC_ALL=C sort -u >"$OUT/names.txt"

if [ "$SIZE" = full ]; then
    clips=(--source "$SOURCE")
else
    epochs=3
    if [ "$SIZE" = tiny ]; then
        epochs=1
    fi
    clips=(--source "$esc50/metadata.csv" --folds 1 2 3)
    pretrain=(esc50-minilm --network.text.name "$MINILM")
    pretrain+=(--optim.epochs "$epochs" --optim.batch-size 32 --optim.lr 3e-3)
fi

test_transfer() { # <over> <out>: no training and no chance in it, so that one run is all there is
    python -m eval zero-shot esc50 --model "$TAGGER" --text-encoder "$MINILM" --transfer-over "$1" \
        --task-dir "$esc50" --cache "$OUT/embeddings" --out "$2"
}

learn() { # <name> <captions>: towers of the captions, and their numbers on fold 4
    python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$2" --init-audio "$TAGGER" \
        --out "$OUT/models/$1"
    python -m eval zero-shot esc50 --seeds "$SEEDS" --model "$OUT/models/$1/seed{seed}" --task-dir "$esc50" \
        --out "$OUT/results/$1"
}

test_transfer classes "$OUT/results/transfer-classes"
test_transfer tags "$OUT/results/transfer-tags"

python -m pipeline assign "${clips[@]}" --texts "$OUT/names.txt" --prompts "${prompts[@]}" --model "$TAGGER" \
    --text-encoder "$MINILM" --neighbours 0 --out "$OUT/captions/balanced"
learn balanced "$OUT/captions/balanced"

python -m pipeline assign "${clips[@]}" --texts "$OUT/names.txt" --prompts "${prompts[@]}" --model "$TAGGER" \
    --text-encoder "$MINILM" --out "$OUT/captions/smoothed"
learn smoothed "$OUT/captions/smoothed"

python -m pipeline assign "${clips[@]}" --seeds "$SEEDS" --texts "$OUT/names.txt" --prompts "${prompts[@]}" \
    --model "$OUT/models/smoothed/seed{seed}" --out "$OUT/captions/round2"
learn round2 "$OUT/captions/round2/seed{seed}"

python -m eval report demo --results "$OUT/results/transfer-classes" "$OUT/results/transfer-tags" \
    "$OUT/results/balanced" "$OUT/results/smoothed" "$OUT/results/round2" --out "$OUT/report"
python -m eval report demo --results "$OUT/results/transfer-tags" "$OUT/results/balanced" "$OUT/results/smoothed" \
    "$OUT/results/round2" --out "$OUT/report-tags"
