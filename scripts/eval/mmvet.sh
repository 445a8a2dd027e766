#!/usr/bin/env bash
# MM-Vet: open questions that need several abilities. GPT-4 grades; the grades, once stored, are added up here.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" mm-vet llava-mm-vet "$@"

infer llava.eval.model_vqa \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA/images"

grades=$EVAL/grades/$WHICH.json
if [[ -f $grades ]]; then
    python -m llava.eval score mmvet \
        --annotation-file "$DATA/mm-vet.json" \
        --result-file "$grades" \
        --output "$RESULT"
else
    python "$CONVERTERS/convert_mmvet_for_eval.py" --src "$ANSWERS" --dst "$UPLOAD.json"
    submit "$UPLOAD.json" "https://huggingface.co/spaces/whyu/MM-Vet_Evaluator, and put its grades at $grades"
fi
