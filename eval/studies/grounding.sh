#!/usr/bin/env bash
# Does a loss of frames teach when what is named sounds, and what does it cost? The model of captions alone ("guided" of
# base), and one that also learns from the times of phrases (frames). Measured by frame scores against strong labels, and
# by zero-shot classification and retrieval.
#
# --size full reads one variable more: TAGGER, an encoder with a tagging head after `train convert`, which finds the times
# of clips without strong labels. $TASK_DIR/audioset-strong is the folder of audioset_eval_strong.tsv and its audio.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

timed=(--timed)
if [ "$SIZE" = full ]; then
    require TAGGER
    timed+=(--timed.tagger "$TAGGER")
    grounding=(audioset-strong --task-dir "$TASK_DIR/audioset-strong" --device "${DEVICE:-cuda}")
else
    grounding=(demo --task-dir "$BASE/corpus" --class-texts "$BASE/corpus/class_texts.json")
fi

base

ground() { # <models> <results>
    python -m eval grounding "${grounding[@]}" --seeds "$SEEDS" --model "$1/seed{seed}" --out "$2"
}

ground "$BASE/models/guided" "$BASE/results/guided"
python -m pipeline caption "${caption[@]}" "${timed[@]}" --seeds "$SEEDS" --source "$SOURCE" \
    --captioner "$BASE/captioner/seed{seed}" --out "$OUT/captions"
python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$OUT/captions/seed{seed}" --frame-weight 1 \
    --init-audio "$BASE/captioner/seed{seed}" --out "$OUT/models/frames"
evaluate "$OUT/models/frames" "$OUT/results/frames"
ground "$OUT/models/frames" "$OUT/results/frames"

python -m eval report demo --results "$BASE/results/guided" "$OUT/results/frames" --out "$OUT/report"
