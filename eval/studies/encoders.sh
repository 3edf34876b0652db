#!/usr/bin/env bash
# What should the audio tower start from, and should it learn? The encoder of the captioner left as it is (frozen), the
# same trained on ("guided" of base, as BLAT does it with PANNs), and the same network from random weights (scratch).
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

base

python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$BASE/captions/seed{seed}" \
    --init-audio "$BASE/captioner/seed{seed}" --freeze-audio --out "$OUT/models/frozen"
evaluate "$OUT/models/frozen" "$OUT/results/frozen"

python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$BASE/captions/seed{seed}" \
    --out "$OUT/models/scratch"
evaluate "$OUT/models/scratch" "$OUT/results/scratch"

python -m eval report demo --results "$BASE/results/guided" "$OUT/results/frozen" "$OUT/results/scratch" \
    --out "$OUT/report"
