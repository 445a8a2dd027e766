# shellcheck shell=bash
# Sourced by the scripts beside it:
#
#     source driver.sh "SETS" [ARGUMENT...]
#
# SETS are the names of the script's task sets, the usual one first. The script defines choose, which is called with the
# set and fills MODEL (of llava.lmms), CKPT (unless the caller has named one), TASKS and DEFAULTS (model arguments, the
# pruner first), and calls run. Environment variables name places only: CKPT_DIR, CKPT, OUTPUT_DIR, and
# CUDA_VISIBLE_DEVICES, whose every device gets a process of its own.
set -euo pipefail

SETS=$1
shift
MODEL="" TASKS="" DEFAULTS=() ARGUMENTS=()

usage() {
    [[ -z ${1:-} ]] || echo "$1" >&2
    cat >&2 <<EOF
usage: bash scripts/lmms_eval/$(basename "$0") [SET] [ARGUMENT=VALUE...] [OPTION...]
  SET             which tasks, with which model and pruner; one of: $SETS
  ARGUMENT=VALUE  a model argument, e.g. pruner=cdpruner visual_token_num=64, or pruner=none
  OPTION          passed to lmms_eval, e.g. --tasks pope --batch_size 8 --limit 10
places, by environment: CKPT_DIR=${CKPT_DIR:-./checkpoints} CKPT=${CKPT:-} OUTPUT_DIR=${OUTPUT_DIR:-./results/lmms_eval}
EOF
    exit 2
}

# check_budget NAME VALUE: where a number of tokens or a share is none, say so.
check_budget() {
    local share='^(0*1?\.?0*|0*\.[0-9]+|[0-9.]+e-[0-9]+)$'
    case $1 in
        visual_token_num) [[ $2 =~ ^[0-9]+$ ]] || usage "$1=$2: TOKENS is a whole number" ;;
        keep_ratio) [[ $2 =~ $share && $2 =~ [1-9] ]] || usage "$1=$2: a share is a number above 0 and at most 1" ;;
        important_ratio) [[ $2 =~ $share && -n $2 ]] || usage "$1=$2: a share is a number from 0 to 1" ;;
    esac
}

# given NAME: whether the caller has a model argument of this name.
given() {
    [[ " ${ARGUMENTS[*]-}" == *" $1="* ]]
}

# usual ARGUMENT: whether this default holds. A budget of the caller's own, or no pruner, leaves no room for another; a
# pruner of the caller's own has its own options.
usual() {
    ! given "${1%%=*}" || return 1
    case ${1%%=*} in
        visual_token_num | keep_ratio)
            ! given visual_token_num && ! given keep_ratio && [[ " ${ARGUMENTS[*]-} " != *" pruner=none "* ]]
            ;;
        cues) ! given pruner ;;
    esac
}

# has_lmms_eval: whether the Python at hand has lmms-eval; where it has not, the one that make has set up may.
has_lmms_eval() {
    local look='import importlib.util, sys; sys.exit(importlib.util.find_spec("lmms_eval") is None)'
    python -c "$look" 2> /dev/null && return
    PATH=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.venv/bin:$PATH
    python -c "$look"
}

# run [SET] [ARGUMENT=VALUE...] [OPTION...]: evaluate.
run() {
    local set=${SETS%% *} model_args argument devices launcher=()
    if [[ ${1:-} =~ ^[a-z0-9_]+$ ]]; then
        [[ " $SETS " == *" $1 "* ]] || usage "unknown set $1; valid values: $SETS"
        set=$1
        shift
    fi
    choose "$set"
    while [[ ${1:-} =~ ^[a-z0-9_]+= ]]; do
        check_budget "${1%%=*}" "${1#*=}"
        ARGUMENTS+=("$1")
        shift
    done
    case ${1:-} in
        -h | --help) usage ;;
        -* | '') ;;
        *) usage "unexpected argument: $1" ;;
    esac
    has_lmms_eval || { echo "lmms-eval is not installed: pip install -e '.[lmms]', see docs/lmms_eval.md" >&2 && exit 1; }

    model_args=pretrained=${CKPT_DIR:-./checkpoints}/$CKPT
    for argument in "${DEFAULTS[@]}"; do
        ! usual "$argument" || model_args+=,$argument
    done
    for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do model_args+=,$argument; done
    IFS=', ' read -ra devices <<< "${CUDA_VISIBLE_DEVICES:-0}"
    ((${#devices[@]} == 1)) || launcher=(-m torch.distributed.run --standalone --nproc-per-node "${#devices[@]}")
    # Of an option that is given twice the last one counts: the caller's.
    python ${launcher[@]+"${launcher[@]}"} -m lmms_eval --model "$MODEL" --model_args "$model_args" \
        --tasks "$TASKS" --batch_size 1 --log_samples \
        --output_path "${OUTPUT_DIR:-./results/lmms_eval}/$(basename "$0" .sh)_$set" "$@"
}
