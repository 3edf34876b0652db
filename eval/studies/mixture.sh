#!/usr/bin/env bash
# Does it help to choose how much of each kind of clip a model is trained on? Captions are clustered, small models try
# mixtures of the clusters, and the mixture that suits the validation clips best trains the model ("searched").
# Beside it stand every cluster alike ("uniform") and the clips as they come ("proportional"), for the same number of
# steps, but for rounding.
# The clips are skewed on purpose: of those with one of ten rare sounds, one in twelve is left, while validation and
# evaluation clips have all twenty sounds alike.
#   --size full takes the captions of base and VALIDATION, a listing of captioned clips like those the model is for.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

if [ "$SIZE" = full ]; then
    require VALIDATION
    base
    search=("${MIXTURE:-blat}") training="$BASE/captions/seed{seed}" held_out="$VALIDATION"
    pretrain+=(--init-audio "$BASE/captioner/seed{seed}")
else
    # A corpus of its own: captions by procedure, so that nothing but the mixture differs. A small encoder learns it.
    corpus="$OUT/corpus" training="$OUT/training.csv" held_out="$OUT/validation.csv" captioned=100
    zero_shot=(demo --task-dir "$corpus" --class-texts "$corpus/class_texts.json") retrieval=(demo --task-dir "$corpus")
    search=("${pretrain[@]}")
    if [ "$SIZE" = small ]; then
        captioned=1600
        pretrain+=(--network.audio.hop-samples 1920 --network.audio.channels 8 16 32 64 --optim.batch-size 32)
    fi
    python -m pipeline synth "${synth[@]}" --num-captioned "$captioned" --num-tagged 0 --out "$corpus"
    # The last tenth of the clips validates.
    awk -F, -v last="$((captioned * 9 / 10 + 1))" -v folder="$(cd "$corpus" && pwd)/audio" \
        -v training="$training" -v held_out="$held_out" '
        FNR == 1 { table++; if (table == 1) next }
        table == 1 { if ($1 >= 10) rare[$2]; next } # class_labels_indices.csv: the mids of ten sounds
        table == 2 { for (mid in rare) if (index($0, mid "\"") || index($0, mid ",")) has_rare[$1]; next }
        FNR == 1 { print "file,caption" > training; print "file,caption" > held_out; next }
        {
            caption = $0
            sub(/^[^"]*/, "", caption)
            line = folder "/Y" $2 ".flac," caption
            if (FNR > last) print line > held_out
            else if (!($2 in has_rare) || seen++ % 12 == 0) print line > training
        }' "$corpus/class_labels_indices.csv" "$corpus/captioned_segments.csv" "$corpus/captioned_segments_captions.csv"
fi

train() { # <name> <flags>: a model, and its numbers on clips that neither it nor the search has seen
    python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$training" "${@:2}" --out "$OUT/models/$1"
    evaluate "$OUT/models/$1" "$OUT/results/$1"
}

# The model of the clips as they come is also the one that embeds the captions for clustering.
train proportional
python -m train mixture "${search[@]}" --seeds "$SEEDS" --recipe.data "$training" --recipe.validation "$held_out" \
    --model "$OUT/models/proportional/seed{seed}" --out "$OUT/search"
train uniform --mixture "$OUT/search/seed{seed}/uniform.json"
train searched --mixture "$OUT/search/seed{seed}/searched.json"

python -m eval report demo --results "$OUT/results/uniform" "$OUT/results/searched" --out "$OUT/report-uniform"
python -m eval report demo --results "$OUT/results/proportional" "$OUT/results/uniform" "$OUT/results/searched" \
    --out "$OUT/report"
