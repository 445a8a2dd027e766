#!/usr/bin/env bash
# Shapes: drawn scenes for the model that comes with the repository; it is used unless CKPT names another one.
here=$(cd "$(dirname "$0")" && pwd)
if [[ -z ${CKPT:-} ]]; then CKPT=llava-shapes CKPT_DIR=$here/../../llava/shapes/checkpoints; fi
# shellcheck source=scripts/eval/driver.sh
source "$here/driver.sh" shapes shapes_test "$@"

if [[ ! -f $DATA/$SPLIT.jsonl || ! -f $DATA/${SPLIT}_labels.jsonl ]]; then
    python -m llava.shapes.benchmark --output-dir "$DATA" --split test --num-questions 1000 --seed 0
fi

infer llava.eval.model_vqa_loader \
    --question-file "$DATA/$SPLIT.jsonl" \
    --image-folder "$DATA/images"

python -m llava.eval score shapes \
    --annotation-file "$DATA/${SPLIT}_labels.jsonl" \
    --result-file "$ANSWERS" \
    --output "$RESULT"
