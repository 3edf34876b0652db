#!/usr/bin/env bash
# Do hard negatives teach word order and negation, and what do they cost? Models without them, with captions in the
# wrong order, with statements on absent sounds, and with both. Measured by right captions against wrong ones of the
# same form, and by zero-shot classification and retrieval.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

base

# The model without hard negatives is "guided" of base.
compositional() { # <models> <results>
    python -m eval compositional "${compositional[@]}" --seeds "$SEEDS" --model "$1/seed{seed}" --out "$2"
}

if [ "$SIZE" = full ]; then
    compositional=(any --task audiocaps --task-dir "$TASK_DIR/audiocaps" --device "${DEVICE:-cuda}")
else
    compositional=(demo --task-dir "$BASE/corpus")
fi
compositional "$BASE/models/guided" "$BASE/results/guided"
for negatives in order absence "order absence"; do
    name="${negatives/ /-}"
    # shellcheck disable=SC2086 # the kinds are words
    python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$BASE/captions/seed{seed}" \
        --hard-negatives $negatives --init-audio "$BASE/captioner/seed{seed}" --out "$OUT/models/$name"
    evaluate "$OUT/models/$name" "$OUT/results/$name"
    compositional "$OUT/models/$name" "$OUT/results/$name"
done

python -m eval report demo --results "$BASE/results/guided" "$OUT/results/order" "$OUT/results/absence" \
    "$OUT/results/order-absence" --out "$OUT/report"
