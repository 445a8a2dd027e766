#!/usr/bin/env bash
# MME: yes or no, two questions per image, fourteen categories.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" MME llava_mme "$@"

infer llava.eval.model_vqa_loader \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA/MME_Benchmark_release_version"

python -m llava.eval score mme \
    --data-dir "$DATA/MME_Benchmark_release_version" \
    --result-file "$ANSWERS" \
    --output "$RESULT"
