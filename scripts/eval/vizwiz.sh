#!/usr/bin/env bash
# VizWiz: questions by blind people about their photographs. The challenge's server scores.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" vizwiz llava_test "$@"

infer llava.eval.model_vqa_loader \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA/test"

python "$CONVERTERS/convert_vizwiz_for_submission.py" \
    --annotation-file "$EVAL/$SPLIT.jsonl" \
    --result-file "$ANSWERS" \
    --result-upload-file "$UPLOAD.json"
submit "$UPLOAD.json" https://eval.ai/web/challenges/challenge-page/2185
