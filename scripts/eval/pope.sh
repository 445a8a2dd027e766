#!/usr/bin/env bash
# POPE: does the image show an object? Three COCO splits in one file.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" pope llava_pope_test "$@"

infer llava.eval.model_vqa_loader \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA/val2014"

python -m llava.eval.eval_pope \
    --annotation-dir "$DATA/coco" \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --result-file "$ANSWERS" \
    --output "$RESULT"
