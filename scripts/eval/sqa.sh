#!/usr/bin/env bash
# ScienceQA, test: school science. CQM-I holds the questions with an image, which papers report; CQM-A holds all.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" scienceqa "llava_test_CQM-I llava_test_CQM-A" "$@"

if [[ $SPLIT == *CQM-I && ! -f $EVAL/$SPLIT.json ]]; then
    python "$(dirname "$0")/select_image_questions.py" --src "$EVAL/llava_test_CQM-A.json" --dst "$EVAL/$SPLIT.json"
fi

infer llava.eval.model_vqa_science \
    --question-file "$EVAL/$SPLIT.json" \
    --image-folder "$DATA/images/test" \
    --single-pred-prompt

python -m llava.eval.eval_science_qa \
    --base-dir "$DATA" \
    --result-file "$ANSWERS" \
    --output "$RESULT"
