# shellcheck shell=bash disable=SC2034  # the benchmark scripts read what is set here
# Sourced by the benchmark scripts beside it:
#
#     source driver.sh BENCHMARK SPLIT VERSION [TOKENS [IMPORTANT_RATIO]] [OPTION...]
#
# Sets EVAL (the benchmark's question files and answers), DATA (its images and annotations), SPLIT, ANSWERS and RESULT
# (where a scorer writes), and defines infer, which asks every question. Environment variables name places only:
# CKPT_DIR, CKPT, DATA_DIR, and CUDA_VISIBLE_DEVICES, whose every device gets a process of its own.
set -euo pipefail

BENCHMARK=$1 SPLIT=$2 VERSION=$3
shift 3

case $VERSION in
    v1_5) CKPT=${CKPT:-llava-v1.5-7b} ANYRES=native ;;
    v1_6) CKPT=${CKPT:-llava-v1.6-vicuna-7b} ANYRES=fixed ;;
    *) echo "unknown version $VERSION; valid values: v1_5 v1_6" >&2 && exit 2 ;;
esac
case $CKPT in
    *mistral*) CONVERSATION=mistral_instruct ;;
    *34b*) CONVERSATION=chatml_direct ;;
    *) CONVERSATION=vicuna_v1 ;;
esac

usage() {
    [[ -z ${1:-} ]] || echo "$1" >&2
    cat >&2 <<EOF
usage: bash scripts/$VERSION/eval/$(basename "$0") TOKENS [IMPORTANT_RATIO] [OPTION...]
  TOKENS           visual tokens kept per tile; leave it out with --keep_ratio R or --pruner none
  IMPORTANT_RATIO  share of the tokens that VisPruner picks by attention; implies --pruner vispruner
  OPTION           passed to Python, e.g. --pruner divprune (default cdpruner), --batch_size 8, --anyres native
places, by environment: CKPT_DIR=${CKPT_DIR:-./checkpoints} CKPT=$CKPT DATA_DIR=${DATA_DIR:-./playground/data/eval}
EOF
    exit 2
}

# What every run of a checkpoint has unless told otherwise; the path of the answers names only what differs.
USUAL=" r0.5 seed0 temperature0 $CONVERSATION "
case $CKPT in *v1.6*) USUAL+="fixed " ;; *) USUAL+="native " ;; esac
PRUNER="" SETTING="" SUFFIX="" OPTIONS=()

# note OPTION [VALUE]: let the path of the answers tell this choice from others that may give other answers.
note() {
    local label
    case $1 in
        --pruner) PRUNER=$2 && return ;;
        --visual_token_num) SETTING=vtn_$2 && return ;;
        --keep_ratio) SETTING=${SETTING:+${SETTING}_}ratio_$2 && return ;;
        --batch_size | --num_workers | --device | --on-error) return ;;
        --important_ratio) label=r$2 ;;
        --anyres | --conv-mode) label=$2 ;;
        *) label=${1#--}${2:-} ;;
    esac
    [[ $USUAL == *" $label "* ]] || SUFFIX+=_${label//\//-}
}

# default OPTION VALUE: pass this option to Python unless the caller has given it.
default() {
    [[ " ${OPTIONS[*]-}" != *" $1"[\ =]* ]] || return 0
    note "$1" "$2"
    OPTIONS+=("$1" "$2")
}

if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    set -- --visual_token_num "$@"
    [[ ! ${3:-} =~ ^[0-9]*\.?[0-9]+$ ]] || set -- "$1" "$2" --important_ratio "${@:3}"
    [[ ${3:-} != --important_ratio || " $*" == *" --pruner"[\ =]* ]] || set -- --pruner vispruner "$@"
fi
while (($#)); do
    case $1 in
        -h | --help) usage ;;
        --*=*) note "${1%%=*}" "${1#*=}" && OPTIONS+=("$1") ;;
        --*)
            if [[ $# -gt 1 && $2 != --* ]]; then
                note "$1" "$2" && OPTIONS+=("$1" "$2") && shift
            else
                note "$1" "" && OPTIONS+=("$1")
            fi
            ;;
        *) usage "unexpected argument: $1" ;;
    esac
    shift
done
default --pruner cdpruner
default --anyres "$ANYRES"
default --conv-mode "$CONVERSATION"
default --temperature 0
case $PRUNER in
    none) [[ -z $SETTING ]] || usage "--pruner none keeps every token: leave TOKENS out" ;;
    *) [[ -n $SETTING ]] || usage "TOKENS is missing" ;;
esac

EVAL=./playground/data/eval/$BENCHMARK
DATA=${DATA_DIR:-./playground/data/eval}/$BENCHMARK
RUN=$EVAL/answers/$SPLIT/$CKPT/$PRUNER/${SETTING:-full}$SUFFIX
ANSWERS=$RUN.jsonl
RESULT=$RUN.json

# Where the caller has no Python with Transformers active, the one that make has set up serves.
python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("transformers") is None)' 2> /dev/null ||
    PATH=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.venv/bin:$PATH

# infer MODULE [ARG...]: answer the questions into ANSWERS, one process per device, each with its chunk of them.
infer() {
    local devices command
    IFS=', ' read -ra devices <<< "${CUDA_VISIBLE_DEVICES:-}"
    command=(python -m "$1" --model-path "${CKPT_DIR:-./checkpoints}/$CKPT" "${@:2}" "${OPTIONS[@]}")
    mkdir -p "$(dirname "$RUN")"
    if ((${#devices[@]} > 1)); then
        in_parallel "${command[@]}"
    else
        "${command[@]}" --answers-file "$ANSWERS" --num-chunks 1 --chunk-idx 0
    fi
    echo "answers: $ANSWERS"
}

# Rank 0 shows its progress and every rank keeps a log; where one fails, the script ends once all have ended.
in_parallel() {
    local i log chunk pids=() failed=()
    mkdir -p "$RUN"
    trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT
    for i in "${!devices[@]}"; do
        log=$RUN/$i.log
        chunk=(--answers-file "$RUN/$i.jsonl" --num-chunks "${#devices[@]}" --chunk-idx "$i")
        if ((i == 0)); then
            CUDA_VISIBLE_DEVICES=${devices[i]} "$@" "${chunk[@]}" > >(tee "$log") 2>&1 &
        else
            CUDA_VISIBLE_DEVICES=${devices[i]} "$@" "${chunk[@]}" > "$log" 2>&1 &
        fi
        pids+=($!)
    done
    for i in "${!pids[@]}"; do wait "${pids[i]}" || failed+=("$RUN/$i.log"); done
    if ((${#failed[@]})); then
        printf 'a process failed, its log: %s\n' "${failed[@]}" >&2
        exit 1
    fi
    for i in "${!pids[@]}"; do cat "$RUN/$i.jsonl"; done > "$RUN.part"
    mv "$RUN.part" "$ANSWERS"
}
