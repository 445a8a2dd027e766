#!/usr/bin/env bash
# MMBench: multiple choice, each question in several orders of its options. Its server scores the test split.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" mmbench "mmbench_dev_20230712 mmbench_test_20230712" "$@"

infer llava.eval.model_vqa_mmbench \
    --question-file "$DATA/$SPLIT.tsv" \
    --single-pred-prompt \
    --lang en

if [[ $SPLIT == *_dev_* ]]; then
    python -m llava.eval score mmbench \
        --annotation-file "$DATA/$SPLIT.tsv" \
        --result-file "$ANSWERS" \
        --output "$RESULT"
else
    python "$CONVERTERS/convert_mmbench_for_submission.py" \
        --annotation-file "$DATA/$SPLIT.tsv" \
        --result-dir "$(dirname "$ANSWERS")" \
        --upload-dir "$(dirname "$UPLOAD")" \
        --experiment "$(basename "$RUN")"
    submit "$UPLOAD.xlsx" https://mmbench.opencompass.org.cn/mmbench-submission
fi
