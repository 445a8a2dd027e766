#!/usr/bin/env bash
# GQA, testdev balanced: compositional questions about real scenes.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" gqa llava_gqa_testdev_balanced "$@"

infer llava.eval.model_vqa_loader \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA/data/images"

annotations=$DATA/data/testdev_balanced_questions.json
[[ -f $annotations ]] || annotations=$DATA/data/questions/testdev_balanced_questions.json
python -m llava.eval score gqa \
    --annotation-file "$annotations" \
    --result-file "$ANSWERS" \
    --output "$RESULT"
