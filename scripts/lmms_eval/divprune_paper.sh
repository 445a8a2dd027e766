#!/usr/bin/env bash
# DivPrune's benchmarks in lmms-eval: LLaVA-1.5 on images, LLaVA-NeXT-Video on videos, 9.8 % of the visual tokens kept.
# shellcheck source=scripts/lmms_eval/driver.sh
source "$(dirname "$0")/driver.sh" "images videos"

choose() {
    DEFAULTS=(pruner=divprune keep_ratio=0.098)
    if [[ $1 == images ]]; then
        MODEL=llava_pruned CKPT=${CKPT:-llava-v1.5-7b}
        DEFAULTS+=(conv_template=vicuna_v1 attn_implementation=sdpa)
        TASKS=coco2017_cap_val,flickr30k_test,gqa,mmbench_en_dev,mme,mmmu_val,nocaps_val,ok_vqa_val2014,pope
        TASKS+=,scienceqa_img,seedbench
    else
        MODEL=vlm_pruned CKPT=${CKPT:-LLaVA-NeXT-Video-7B-hf}
        DEFAULTS+=(max_frames_num=8)
        TASKS=activitynetqa,egoschema_subset,nextqa,seedbench,videochatgpt_temporal
    fi
}

run "$@"
