#!/usr/bin/env bash
# The whole loop at full size, as one job:  cluster/submit.sh cluster/bootstrap.sh s3://corpus s3://blat
# Finished stages return at once, an interrupted one goes on where it was: after whatever happened, submit the same again.
#
# What lies in s3://corpus:  audioset/   unbalanced_train_segments.csv, class_labels_indices.csv, audio/
#                            audiocaps/  train.csv, val.csv, test.csv, audio/, AudioSet's tables for the labels
#                            lists/      the official files of the evaluation sets, for the firewall
#                            tasks/      the datasets to evaluate on, as `eval suite` reads them
#                            Cnn14_mAP=0.431.pth
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: cluster/bootstrap.sh <from> <to>: two folders or URIs that every node sees" >&2
    exit 2
fi
IN="$1" OUT="$2"

# The size of the loop: named configs. Smaller ones rehearse it.
CAPTIONER="${CAPTIONER:-audiocaps}" CAPTION="${CAPTION:-audioset}" PRETRAIN="${PRETRAIN:-blat}"
SCORE="${SCORE:-audioset}" SUITE="${SUITE:-cluster}"

# 1. An audio encoder that knows sounds; ENCODER names one that is there already.
if [ -z "${ENCODER:-}" ]; then
    ENCODER="$OUT/cnn14"
    python -m train convert cnn14 --weights "$IN/Cnn14_mAP=0.431.pth" --out "$ENCODER"
fi

# 2. A captioner that is guided by tags, from AudioCaps, and what its captions are worth.
python -m train captioner "$CAPTIONER" --source "$IN/audiocaps/train.csv" --validation "$IN/audiocaps/val.csv" --init-audio "$ENCODER" --out "$OUT/captioner"
python -m eval captioning ablation --task audiocaps --task-dir "$IN/audiocaps" --model "$OUT/captioner" --out "$OUT/results/captioner"

# 3. Captions for every clip that has tags.
python -m pipeline caption "$CAPTION" --source "$IN/audioset/unbalanced_train_segments.csv" --firewall.lists "$IN/lists" --captioner "$OUT/captioner" --out "$OUT/captions"

# 4. A language-audio model from those captions.
python -m train pretrain "$PRETRAIN" --data "$OUT/captions" --init-audio "$ENCODER" --out "$OUT/models/round1"

# 5. Round 2: the first model scores the captions, the best-scored nine tenths of the clips train the next model.
python -m pipeline score "$SCORE" --data "$OUT/captions" --model "$OUT/models/round1" --name round1
python -m train pretrain "$PRETRAIN" --data "$OUT/captions" --captions round1 --keep-fraction 0.9 --init-audio "$ENCODER" --out "$OUT/models/round2"

# 6. What the models can do, side by side.
for model in round1 round2; do
    python -m eval suite "$SUITE" --model "$OUT/models/$model" --task-dir "$IN/tasks" --out "$OUT/results/$model"
done
python -m eval report demo --results "$OUT/results/round1" "$OUT/results/round2" --captions "$OUT/captions" --out "$OUT/report"
