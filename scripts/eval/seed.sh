#!/usr/bin/env bash
# SEED-Bench: multiple choice about images and frames of videos.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" seed_bench llava-seed-bench "$@"

infer llava.eval.model_vqa_loader \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA"

python -m llava.eval score seed \
    --annotation-file "$DATA/SEED-Bench.json" \
    --result-file "$ANSWERS" \
    --output "$RESULT"
