#!/usr/bin/env bash
# Does bootstrapping help when it is repeated? Round 0 is a model of all captions. In round n the model of round n - 1
# scores the captions, and a new model is trained, from the same start, on the four fifths of the clips that score best.
# On the procedural corpus a fifth of the tags is wrong on purpose, so that there is something to leave out. All models
# take the same number of steps.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

base
noisy 20

python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$DATA/seed{seed}" --optim.epochs 1 \
    --optim.min-steps "$steps" --init-audio "$BASE/captioner/seed{seed}" --out "$OUT/models/round0"
evaluate "$OUT/models/round0" "$OUT/results/round0"

for round in 1 2 3; do
    python -m pipeline score "${score[@]}" --seeds "$SEEDS" --data "$DATA/seed{seed}" \
        --model "$OUT/models/round$((round - 1))/seed{seed}" --name "round$round"
    python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$DATA/seed{seed}" --captions "round$round" \
        --keep-fraction 0.8 --optim.epochs 1 --optim.min-steps "$steps" \
        --init-audio "$BASE/captioner/seed{seed}" --out "$OUT/models/round$round"
    evaluate "$OUT/models/round$round" "$OUT/results/round$round"
done

python -m eval report demo --results "$OUT/results/round0" "$OUT/results/round1" "$OUT/results/round2" \
    "$OUT/results/round3" --out "$OUT/report"
