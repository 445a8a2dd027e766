#!/usr/bin/env bash
# TextVQA, validation: questions about text in images, with OCR tokens as a hint.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" textvqa llava_textvqa_val_v051_ocr "$@"

infer llava.eval.model_vqa_loader \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA/train_images"

python -m llava.eval.eval_textvqa \
    --annotation-file "$DATA/TextVQA_0.5.1_val.json" \
    --result-file "$ANSWERS" \
    --output "$RESULT"
