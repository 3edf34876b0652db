#!/usr/bin/env bash
# The whole loop on one machine: tagged audio in, evaluated language-audio models out. Stop it at any time; the same
# command continues: finished steps return at once, an interrupted one goes on where it was.
set -euo pipefail
D="${1:-build/demo}" # everything is written here; delete it to start over
S="${2:-0}"          # seed of the captioner and the towers; another seed needs another folder
export RAY_USAGE_STATS_ENABLED=0

# 1. A corpus to work on: twenty AudioSet sounds as procedures, mixed into scenes.
python -m pipeline synth demo --out "$D/corpus"

# 2. A captioner that is guided by tags, from 400 captioned clips.
python -m train captioner demo --source "$D/corpus/captioned_segments.csv" --out "$D/captioner" --optim.seed "$S"

# 3. Captions for new clips: with their own tags, without tags, with predicted ones, and with those of other clips.
python -m eval captioning demo --model "$D/captioner" --task-dir "$D/corpus" --out "$D/results/captioner"

# 4. Captions for 640 clips that have only tags: guided by the tags, and without them for comparison.
python -m pipeline caption demo --source "$D/corpus/tagged_segments.csv" --captioner "$D/captioner" --out "$D/guided"
python -m pipeline caption demo --source "$D/corpus/tagged_segments.csv" --captioner "$D/captioner" \
    --guidance none --out "$D/unguided"

# 5. Language-audio models from those captions. The audio tower is the captioner's, frozen (eval/studies/encoders.sh).
python -m train pretrain demo --data "$D/guided" --init-audio "$D/captioner" --freeze-audio \
    --out "$D/models/round1" --optim.seed "$S"
python -m train pretrain demo --data "$D/unguided" --init-audio "$D/captioner" --freeze-audio \
    --out "$D/models/round1-unguided" --optim.seed "$S"

# 6. Round 2: the first model scores the captions, the best-scored nine tenths of the clips train the next model.
python -m pipeline score demo --data "$D/guided" --model "$D/models/round1" --name round1
python -m train pretrain demo --data "$D/guided" --captions round1 --keep-fraction 0.9 \
    --init-audio "$D/captioner" --freeze-audio --out "$D/models/round2" --optim.seed "$S"

# 7. What the models can do on clips that none of them was trained on, with prompts in the words of captions.
for model in round1-unguided round1 round2; do
    python -m eval zero-shot demo --model "$D/models/$model" --task-dir "$D/corpus" \
        --class-texts "$D/corpus/class_texts.json" --out "$D/results/$model"
    python -m eval retrieval demo --model "$D/models/$model" --task-dir "$D/corpus" --out "$D/results/$model"
done

# 8. Clips to listen to beside their captions, and everything side by side.
python -m pipeline listen --data "$D/guided" --captions round1
python -m eval report demo --results "$D/results/round1-unguided" "$D/results/round1" "$D/results/round2" \
    --captions "$D/guided" "$D/unguided" --out "$D/report"

# 9. A search over the captioned clips. The last line prints the command that opens its page.
python -m eval index-search laptop --data "$D/guided" --captions round1 --model "$D/models/round1" --out "$D/search"
echo "$(command -v python) -m eval serve --index $D/search"
