#!/usr/bin/env bash
# Questions about videos to one of Transformers' own models, LLaVA-NeXT-Video-7B unless CKPT names another.
# Environment variables name places only: CKPT_DIR, CKPT, OUTPUT_DIR, and CUDA_VISIBLE_DEVICES, whose every device gets a
# process of its own.
set -euo pipefail

# shellcheck source=scripts/eval/names.bash
source "$(dirname "${BASH_SOURCE[0]}")/../eval/names.bash"

CKPT=${CKPT:-LLaVA-NeXT-Video-7B-hf}

usage() {
    [[ -z ${1:-} ]] || echo "$1" >&2
    cat >&2 <<EOF
usage: bash scripts/video/$(basename "$0") QUESTIONS VIDEOS [TOKENS] [OPTION...]
  QUESTIONS  a file of lines with question_id, video and text
  VIDEOS     the folder that the videos are relative to
  TOKENS     visual tokens kept per frame; leave it out with --keep_ratio R or --pruner none
  OPTION     passed to Python, e.g. --for_get_frames_num 8, --budget_scope image, --pruner divprune (default cdpruner)
places, by environment: CKPT_DIR=${CKPT_DIR:-./checkpoints} CKPT=$CKPT OUTPUT_DIR=${OUTPUT_DIR:-./results/video}
EOF
    exit 2
}

case ${1:-} in -h | --help) usage ;; esac
(($# >= 2)) || usage "QUESTIONS or VIDEOS is missing"
QUESTIONS=$1 VIDEOS=$2
shift 2
[[ ! ${1:-} =~ ^[0-9]+$ ]] || set -- --visual_token_num "$@"

# The path of the answers tells choices with other answers apart.
PRUNER=cdpruner SETTING="" OPTIONS=()
USUAL="important_ratio0.5 seed0 cuespaper contextual_ratio0.15625 temperature0 num_beams1 prune_layer0"
USUAL+=" text_chunkingrelease for_get_frames_num32 max_new_tokens128"
note() {
    local value
    check_budget "$1" "$2"
    value=$(plain "$2")
    case $1 in
        --pruner) PRUNER=$2 ;;
        --visual_token_num) SETTING=vtn_$value ;;
        --keep_ratio) SETTING=ratio_$value ;;
        --batch_size | --num_workers | --device | --on-error | --overwrite | --save-latency | --static-cache) ;;
        *) remember "$1" "${1#--}$value" ;;
    esac
}
while (($#)); do
    case $1 in
        --*=*)
            OPTIONS+=("$1")
            note "${1%%=*}" "${1#*=}"
            ;;
        --*)
            OPTIONS+=("$1")
            if [[ $# -gt 1 && $2 != --* ]]; then
                OPTIONS+=("$2")
                note "$1" "$2" && shift
            else
                note "$1" ""
            fi
            ;;
        *) usage "unexpected argument: $1" ;;
    esac
    shift
done
case $PRUNER in
    none) [[ -z $SETTING ]] || usage "--pruner none keeps every token: leave TOKENS out" ;;
    *) [[ -n $SETTING ]] || usage "TOKENS is missing" ;;
esac
[[ " ${OPTIONS[*]-}" == *" --pruner"[\ =]* ]] || OPTIONS+=(--pruner "$PRUNER")

# Where the caller has no Python with Transformers active, the one that make has set up serves.
python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("transformers") is None)' 2> /dev/null ||
    PATH=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.venv/bin:$PATH

name=$(basename "$QUESTIONS")
ANSWERS=${OUTPUT_DIR:-./results/video}/${name%.*}/$CKPT/$PRUNER/${SETTING:-full}$(suffix "$USUAL").jsonl
IFS=', ' read -ra devices <<< "${CUDA_VISIBLE_DEVICES:-0}"
((${#devices[@]} == 1)) || launcher=(-m torch.distributed.run --standalone --nproc-per-node "${#devices[@]}")
python ${launcher[@]+"${launcher[@]}"} -m llava.eval video \
    --model-path "${CKPT_DIR:-./checkpoints}/$CKPT" \
    --question-file "$QUESTIONS" \
    --video-folder "$VIDEOS" \
    --answers-file "$ANSWERS" \
    "${OPTIONS[@]}"
echo "answers: $ANSWERS"
