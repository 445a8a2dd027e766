#!/usr/bin/env bash
# VQAv2: open questions about COCO images. The challenge's server scores.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" vqav2 "llava_vqav2_mscoco_test-dev2015 llava_vqav2_mscoco_test2015" "$@"

infer llava.eval.model_vqa_loader \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA/test2015"

python "$CONVERTERS/convert_vqav2_for_submission.py" \
    --dir "$EVAL" \
    --src "${ANSWERS#"$EVAL/"}" \
    --dst "${UPLOAD#"$EVAL/"}.json"
submit "$UPLOAD.json" https://eval.ai/web/challenges/challenge-page/830
