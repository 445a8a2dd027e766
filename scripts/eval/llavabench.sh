#!/usr/bin/env bash
# LLaVA-Bench (in the wild): open questions. GPT-4 reviews; the reviews, once stored, are added up here.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" llava-bench-in-the-wild questions "$@"

infer llava.eval.model_vqa \
    --question-file "$EVAL/$SPLIT.jsonl" \
    --image-folder "$DATA/images"

reviews=$EVAL/reviews/$WHICH.jsonl
if [[ -f $reviews ]]; then
    python -m llava.eval score llavabench \
        --result-file "$reviews" \
        --question-file "$EVAL/$SPLIT.jsonl" \
        --output "$RESULT"
else
    submit "$ANSWERS" "GPT-4 with LLaVA's eval_gpt_review_bench.py, and put its reviews at $reviews"
fi
