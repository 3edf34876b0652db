#!/usr/bin/env bash
# What are more clips worth? Models of 5, 20 and 100 % of the captioned clips; each share is a part of the larger one.
# All take the same number of steps: with the same number of epochs the model of 5 % would take a twentieth of them, and
# the curve would show too little training, not too few clips. The same steps cost the same, and the batch is one that
# the smallest share fills, since the loss compares each clip with its batch.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

base

for share in 5 20 100; do
    python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$BASE/captions/seed{seed}" \
        --sample-fraction "$(awk "BEGIN { print $share / 100 }")" \
        --optim.epochs 1 --optim.batch-size "${small_batch[0]}" --optim.min-steps "${small_batch[1]}" \
        --init-audio "$BASE/captioner/seed{seed}" --out "$OUT/models/clips-$share"
    evaluate "$OUT/models/clips-$share" "$OUT/results/clips-$share"
done

python -m eval report demo --results "$OUT/results/clips-5" "$OUT/results/clips-20" "$OUT/results/clips-100" \
    --axis 5 20 100 --axis-title "share of the clips, %" --out "$OUT/report"
