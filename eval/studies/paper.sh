#!/usr/bin/env bash
# The paper's tables for whoever has its data: zero-shot on ESC-50, UrbanSound8K, VGGSound, FSD50K and AudioSet,
# retrieval and captioning on AudioCaps and Clotho, fine-tuning; published numbers stand beside ours. BLAT's own tables
# could not be read where this was written, so that they are not among the published numbers.
#   --size full also reads REAL, the tables of people's captions that the second stage trains on, such as AudioCaps'
#   train.csv and Clotho's development table; several with blanks between them.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

# TASK_DIR of the other sizes is the procedural corpus, unless it is given.
if [ "$SIZE" = full ]; then
    require REAL
    read -ra tables <<<"$REAL"
    stage2=("${STAGE2:-blat-stage2}") plain=("${CAPTIONER:-audiocaps}")
else
    tables=("$CAPTIONED") stage2=("${pretrain[@]}") plain=("${captioner[@]}")
fi

# 1. First stage: a captioner guided by tags, its captions of AudioSet, and two towers of them ("guided").
base

# 2. Second stage: the two towers trained on with people's captions.
python -m train pretrain "${stage2[@]}" --seeds "$SEEDS" --data "${tables[@]}" --init "$BASE/models/guided/seed{seed}" \
    --out "$OUT/models/stage2"

# 3. Zero-shot classification and tagging, retrieval, and the encoder fine-tuned, on every set that is there.
for model in "$BASE/models/guided" "$OUT/models/stage2"; do
    python -m eval suite "${suite[@]}" --task-dir "$TASK_DIR" --stages zero-shot retrieval finetune --seeds "$SEEDS" \
        --model "$model/seed{seed}" --out "$OUT/results/${model##*/}"
done

# 4. Captioning: the guided captioner with and without tags, and a captioner without tags over the pre-trained encoder.
python -m eval captioning "${captioning[@]}" --seeds "$SEEDS" --model "$BASE/captioner/seed{seed}" \
    --out "$OUT/results/captioner"
python -m train captioner "${plain[@]}" --seeds "$SEEDS" --source "$CAPTIONED" --network.no-guided --network.no-tagger \
    --init-audio "$OUT/models/stage2/seed{seed}" --out "$OUT/models/captioner-of-stage2"
python -m eval suite "${suite[@]}" --task-dir "$TASK_DIR" --stages captioning --seeds "$SEEDS" \
    --model "$OUT/models/captioner-of-stage2/seed{seed}" --out "$OUT/results/captioner-of-stage2"

# 5. The tables.
python -m eval report demo --results "$OUT/results/guided" "$OUT/results/stage2" "$OUT/results/captioner" \
    "$OUT/results/captioner-of-stage2" --captions "$BASE/captions/seed0" --out "$OUT/report"
