#!/usr/bin/env bash
# Q-Bench in Chinese. Its organisers score the test split.
# shellcheck source=scripts/eval/driver.sh
source "$(dirname "$0")/driver.sh" qbench "zh_dev zh_test" "$@"

case $SPLIT in
    zh_dev) questions=$EVAL/质衡-问答-验证集.json ;;
    zh_test) questions=$EVAL/质衡-问答-测试集.json ;;
esac

infer llava.eval.model_vqa_qbench \
    --questions-file "$questions" \
    --image-folder "$DATA/images_llvisionqa" \
    --lang zh

if [[ $SPLIT == zh_dev ]]; then
    python -m llava.eval score qbench_zh \
        --annotation-file "$questions" \
        --result-file "$ANSWERS" \
        --output "$RESULT"
else
    submit "$ANSWERS" "the organisers, https://github.com/Q-Future/Q-Bench"
fi
