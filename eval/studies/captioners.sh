#!/usr/bin/env bash
# Which captioner writes the best captions, and is a choice among several better than each? On clips that have people's
# captions and that nothing was trained on: a captioner guided by the clips' tags, one that never had tags, and an LLM;
# and the best caption of each clip by a model's score, by the captioners' agreement, both without and with what an audit
# against tags rejects left out, and by the audit alone.
#
# In the small form a rule on localhost stands for the LLM (rule_captioner.py): it writes from the tags alone, for all
# seeds the same. It is a baseline, and no measure of what an LLM can do. Variables name a real one:
#   LLM        as --captioner has it: hf:<name or folder> or openai:<model>; --size full needs it
#   LLM_URL    the endpoint of openai:, which gets the audio of every clip
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

llm=(--decoding.method greedy --decoding.num-captions 1)
if [ "$SIZE" = full ]; then
    require LLM
    JUDGED="$TASK_DIR/audiocaps/test.csv" allowed=(audiocaps audioset-eval vggsound) recaption=("${CAPTION:-audioset}")
    choose=(--no-in-process)
else
    JUDGED="$BASE/corpus/evaluation_segments.csv" allowed=(audiocaps) recaption=(demo) choose=(--in-process)
fi
if [ -z "${LLM:-}" ]; then
    exec 3< <(exec python3 "$(dirname "$0")/rule_captioner.py")
    server=$!
    trap 'kill "$server"' EXIT
    read -r LLM_URL <&3
    LLM=openai:rules
    llm+=(--rewrite tags)
fi
case "$LLM" in
    openai:*) llm+=(--captioner "$LLM" --captioner-url "${LLM_URL:-}" --actors.gpus 0) ;;
    *) llm+=(--captioner "$LLM") ;;
esac

base

# 1. Three captioners for the same clips: the shards' own captions are those of the guided one.
data="$OUT/captions"
each=(--seeds "$SEEDS" --data "$data/seed{seed}")
python -m train captioner "${captioner[@]}" --seeds "$SEEDS" --source "$CAPTIONED" --network.no-guided \
    --out "$OUT/captioner-unguided"
python -m pipeline caption "${caption[@]}" --seeds "$SEEDS" --source "$JUDGED" --firewall.allow "${allowed[@]}" \
    --captioner "$BASE/captioner/seed{seed}" --out "$data"
python -m pipeline recaption "${recaption[@]}" "${each[@]}" --captioner "$OUT/captioner-unguided/seed{seed}" \
    --guidance none --name unguided
python -m pipeline recaption "${recaption[@]}" "${each[@]}" "${llm[@]}" --name llm

# 2. Scores by the model that base trained, audits against tags, and the choices.
python -m pipeline score "${score[@]}" "${each[@]}" --model "$BASE/models/guided/seed{seed}" --name scored-guided
python -m pipeline audit "${audit[@]}" "${each[@]}" --name audit-guided
for name in unguided llm; do
    python -m pipeline score "${score[@]}" "${each[@]}" --model "$BASE/models/guided/seed{seed}" --captions "$name" \
        --name "scored-$name"
    python -m pipeline audit "${audit[@]}" "${each[@]}" --captions "$name" --name "audit-$name"
done
scored=(scored-guided scored-unguided scored-llm) plain=(shards unguided llm)
audits=(--audits audit-guided audit-unguided audit-llm)
python -m pipeline choose "${choose[@]}" "${each[@]}" --overlays "${scored[@]}" --by score --name score
python -m pipeline choose "${choose[@]}" "${each[@]}" --overlays "${scored[@]}" --by score "${audits[@]}" \
    --name score-veto
python -m pipeline choose "${choose[@]}" "${each[@]}" --overlays "${plain[@]}" --by agreement --name agreement
python -m pipeline choose "${choose[@]}" "${each[@]}" --overlays "${plain[@]}" --by agreement "${audits[@]}" \
    --name agreement-veto
python -m pipeline choose "${choose[@]}" "${each[@]}" --overlays "${plain[@]}" --by audit "${audits[@]}" --name audit

# 3. All of them beside people's captions. What an LLM writes greedily is the same for every seed, and counts once.
python -m eval captioning "${captioning[@]}" --seeds "$SEEDS" --data "$data/seed{seed}" --out "$OUT/results/guided"
shown=("$OUT/results/guided")
for name in unguided score score-veto agreement agreement-veto audit; do
    python -m eval captioning "${captioning[@]}" --seeds "$SEEDS" --data "$data/seed{seed}" --captions "$name" \
        --out "$OUT/results/$name"
    shown+=("$OUT/results/$name")
done
python -m eval captioning "${captioning[@]}" --data "$data/seed0" --captions llm --out "$OUT/results/llm"

# 4. The table, and a page of clips with the captions of each captioner.
python -m pipeline listen --data "$data/seed0" --captions agreement --audit audit-guided
python -m eval report demo --results "${shown[@]}" "$OUT/results/llm" --out "$OUT/report"
