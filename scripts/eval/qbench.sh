#!/usr/bin/env bash
# Q-Bench: multiple choice about the quality of images. Its organisers score the test split.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" qbench "dev test" "$@"

infer llava.eval.model_vqa_qbench \
    --questions-file "$EVAL/llvisionqa_$SPLIT.json" \
    --image-folder "$DATA/images_llvisionqa" \
    --lang en

if [[ $SPLIT == dev ]]; then
    python -m llava.eval score qbench \
        --annotation-file "$EVAL/llvisionqa_$SPLIT.json" \
        --result-file "$ANSWERS" \
        --output "$RESULT"
else
    submit "$ANSWERS" "the organisers, https://github.com/Q-Future/Q-Bench"
fi
