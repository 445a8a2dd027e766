#!/usr/bin/env bash
# MMBench in Chinese. Its server scores the test split.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" mmbench_cn "mmbench_dev_cn_20231003 mmbench_test_cn_20231003" "$@"

infer llava.eval.model_vqa_mmbench \
    --question-file "$DATA/$SPLIT.tsv" \
    --single-pred-prompt \
    --lang cn

if [[ $SPLIT == *_dev_* ]]; then
    python -m llava.eval score mmbench_cn \
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
