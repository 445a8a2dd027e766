#!/usr/bin/env bash
# Qwen2.5-VL in lmms-eval: MFPruner's benchmarks with 22.2 % of the visual tokens, CDPruner's with 256 of 1296.
# shellcheck source=scripts/lmms_eval/driver.sh
source "$(dirname "$0")/driver.sh" "mfpruner cdpruner"

choose() {
    MODEL=vlm_pruned CKPT=${CKPT:-Qwen2.5-VL-7B-Instruct}
    if [[ $1 == mfpruner ]]; then
        DEFAULTS=(pruner=mfpruner cues=qwen_release keep_ratio=0.222)
        TASKS=mmbench_en_dev,mmbench_cn_dev,chartqa,textvqa_val,ai2d,ocrbench,mmstar,mmerealworld,realworldqa
    else
        DEFAULTS=(pruner=cdpruner visual_token_num=256 min_pixels=1016064 max_pixels=1016064) # 36 x 36 tokens of 28 x 28
        TASKS=textvqa_val,chartqa,ai2d,ocrbench,hallusion_bench_image,mme,mmbench_en_dev,mmbench_cn_dev
    fi
}

run "$@"
