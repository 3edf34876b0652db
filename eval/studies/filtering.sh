#!/usr/bin/env bash
# Which captions should be left out before training? None, those that a model scores low, those that do not fit their
# clips' tags, or both; at three strengths. On the procedural corpus 0, 20 and 50 % of the tags are wrong on purpose.
# All models take the same number of steps, whatever a filter leaves. For time, the small form tries the weak and the
# strong filter on 20 % alone, and its eighteen models a seed have frozen audio towers, as the demo's, and take half the
# batch of the other studies.
# shellcheck source=eval/studies/common.sh
source "$(dirname "$0")/common.sh"

base
levels=(0) # wrong tags, per cent; of real data there is what there is
if [ "$SIZE" != full ]; then
    levels=(0 20 50)
    pretrain+=(--freeze-audio)
fi
if [ "$SIZE" = small ]; then
    pretrain+=(--optim.batch-size "${small_batch[0]}")
fi

for level in "${levels[@]}"; do
    noisy "$level"
    none="$OUT/models/noise$level/none" results="$OUT/results/noise$level"
    python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$DATA/seed{seed}" --optim.epochs 1 \
        --optim.min-steps "$steps" --init-audio "$BASE/captioner/seed{seed}" --out "$none"
    evaluate "$none" "$results/none"
    python -m pipeline score "${score[@]}" --seeds "$SEEDS" --data "$DATA/seed{seed}" --model "$none/seed{seed}" \
        --name filtering
    python -m pipeline audit "${audit[@]}" --seeds "$SEEDS" --data "$DATA/seed{seed}" --name filtering-audit

    strengths=(medium) shown=("$results/none")
    if [ "$level" = 20 ] || [ "$SIZE" = full ]; then
        strengths=(weak medium strong)
    fi
    for strength in "${strengths[@]}"; do
        case "$strength" in
            weak) best=(--keep-fraction 0.9) fitting=(--filter.max-unmentioned 1) ;;
            medium) best=(--keep-fraction 0.7) fitting=(--filter.max-unmentioned 0) ;;
            strong) best=(--keep-fraction 0.5) fitting=(--filter.max-unmentioned 0 --filter.max-foreign 0) ;;
        esac
        for filter in score tags both; do
            case "$filter" in
                score) flags=(--captions filtering "${best[@]}") ;;
                tags) flags=(--filter.audit filtering-audit "${fitting[@]}") ;;
                both) flags=(--captions filtering "${best[@]}" --filter.audit filtering-audit "${fitting[@]}") ;;
            esac
            model="$OUT/models/noise$level/$filter-$strength"
            python -m train pretrain "${pretrain[@]}" --seeds "$SEEDS" --data "$DATA/seed{seed}" "${flags[@]}" \
                --optim.epochs 1 --optim.min-steps "$steps" --init-audio "$BASE/captioner/seed{seed}" --out "$model"
            evaluate "$model" "$results/$filter-$strength"
            shown+=("$results/$filter-$strength")
        done
    done
    python -m eval report demo --results "${shown[@]}" --out "$OUT/report/noise$level"
done
