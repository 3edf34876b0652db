#!/usr/bin/env bash
# Does it help to give the captioner the clips' tags? Captions, and models of them, from the clips' own tags, from none,
# from those that the captioner predicts, and from those of other clips, a control; and from a captioner that was trained
# without tags.
#
# The small form also captions real clips where three variables name them: REAL_TRAIN and REAL_TEST, tables of captioned
# clips with labels (train/README.md shows how a tagger writes them), and ENCODER, EfficientAT's mn04 after
# `train convert`. They are too few for models of their captions.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

base

# 1. The captions beside people's, on clips that nothing was trained on.
python -m eval captioning "${captioning[@]}" --seeds "$SEEDS" --model "$BASE/captioner/seed{seed}" \
    --out "$OUT/results/captioner"

# 2. Models of the captions. That of the clips' own tags is the model "guided" of base.
for guidance in none predicted shuffled; do
    python -m pipeline caption "${caption[@]}" --seeds "$SEEDS" --source "$SOURCE" --guidance "$guidance" \
        --captioner "$BASE/captioner/seed{seed}" --out "$OUT/captions/$guidance"
    python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$OUT/captions/$guidance/seed{seed}" \
        --init-audio "$BASE/captioner/seed{seed}" --out "$OUT/models/$guidance"
    evaluate "$OUT/models/$guidance" "$OUT/results/$guidance"
done

# 3. The same of a captioner that was trained without tags; the audio towers start as those of the others.
python -m train captioner "${captioner[@]}" --seeds "$SEEDS" --source "$CAPTIONED" --network.no-guided \
    --out "$OUT/captioner-no-tags"
python -m eval captioning "${captioning[@]}" --guidance none --seeds "$SEEDS" \
    --model "$OUT/captioner-no-tags/seed{seed}" --out "$OUT/results/captioner-no-tags"
python -m pipeline caption "${caption[@]}" --seeds "$SEEDS" --source "$SOURCE" --guidance none \
    --captioner "$OUT/captioner-no-tags/seed{seed}" --out "$OUT/captions/no-tags"
python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$OUT/captions/no-tags/seed{seed}" \
    --init-audio "$BASE/captioner/seed{seed}" --out "$OUT/models/no-tags"
evaluate "$OUT/models/no-tags" "$OUT/results/no-tags"

# 4. Captions of real clips.
real=()
if [ "$SIZE" != full ] && [ -n "${REAL_TRAIN:-}" ]; then
    require REAL_TEST ENCODER
    python -m train captioner esc50-mn04 --seeds "$SEEDS" --source "$REAL_TRAIN" --exclude-folds \
        --init-audio "$ENCODER" --network.clip-s 10 --optim.epochs 40 --optim.batch-size 21 --out "$OUT/captioner-real"
    python -m eval captioning ablation --task real-clips --task-dir "$REAL_TEST" --seeds "$SEEDS" \
        --model "$OUT/captioner-real/seed{seed}" --out "$OUT/results/captioner-real"
    real=("$OUT/results/captioner-real")
fi

# 5. The table.
python -m eval report demo --results "$BASE/results/guided" "$OUT/results/none" "$OUT/results/predicted" \
    "$OUT/results/shuffled" "$OUT/results/no-tags" "$OUT/results/captioner" "$OUT/results/captioner-no-tags" \
    ${real[@]+"${real[@]}"} --out "$OUT/report"
