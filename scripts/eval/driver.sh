# shellcheck shell=bash disable=SC2034  # the benchmark scripts read what is set here
# Sourced by the benchmark scripts beside it:
#
#     source driver.sh FOLDER SPLITS VERSION [TOKENS [IMPORTANT_RATIO]] [OPTION...]
#
# FOLDER is the benchmark's below the data, SPLITS the splits it has, the usual one first. Sets EVAL (the benchmark's
# question files and answers), DATA (its images and annotations), SPLIT, WHICH (split, checkpoint, pruner and setting),
# ANSWERS, RESULT (where a scorer writes), UPLOAD (what a server takes, without its extension) and CONVERTERS, checks
# the data, and defines infer, which asks every question, and submit. Environment variables name places only: CKPT_DIR,
# CKPT, DATA_DIR, and CUDA_VISIBLE_DEVICES, whose every device gets a process of its own.
set -euo pipefail

# shellcheck source=scripts/eval/names.bash
source "$(dirname "${BASH_SOURCE[0]}")/names.bash"

FOLDER=$1 SPLITS=$2 VERSION=$3
SPLIT=${SPLITS%% *}
shift 3

case $VERSION in
    v1_5) CKPT=${CKPT:-llava-v1.5-7b} ANYRES=native ;;
    v1_6) CKPT=${CKPT:-llava-v1.6-vicuna-7b} ANYRES=fixed ;;
    *) echo "unknown version $VERSION; valid values: v1_5 v1_6" >&2 && exit 2 ;;
esac
case $CKPT/$FOLDER in
    *mistral*/*) CONVERSATION=mistral_instruct ;;
    *34b*/*) CONVERSATION=chatml_direct ;;
    */qbench) CONVERSATION=llava_v1 ;; # as LLaVA's published numbers
    *) CONVERSATION=vicuna_v1 ;;
esac

usage() {
    [[ -z ${1:-} ]] || echo "$1" >&2
    cat >&2 <<EOF
usage: bash scripts/$VERSION/eval/$(basename "$0") TOKENS [IMPORTANT_RATIO] [OPTION...]
  TOKENS           visual tokens kept per tile; leave it out with --keep_ratio R or --pruner none
  IMPORTANT_RATIO  share of the tokens that VisPruner picks by attention; implies --pruner vispruner
  OPTION           passed to Python, e.g. --pruner divprune (default cdpruner), --batch_size 8, --anyres native
  --split SPLIT    one of: $SPLITS
  --launcher X     torchrun or accelerate start the processes, in quotes with options of their own, e.g. --nnodes 2
places, by environment: CKPT_DIR=${CKPT_DIR:-./checkpoints} CKPT=$CKPT DATA_DIR=${DATA_DIR:-./playground/data/eval}
EOF
    exit 2
}

# What every run of a checkpoint has unless told otherwise; the path of the answers names only what differs.
USUAL="r0.5 seed0 cuespaper contextual_ratio0.15625 temperature0 num_beams1 positionscompact prune_layer0"
USUAL+=" text_chunkingrelease $CONVERSATION"
case $CKPT in *v1.6*) USUAL+=" fixed" ;; *) USUAL+=" native" ;; esac
PRUNER="" TOKENS="" RATIO="" LAUNCHER="" OPTIONS=()

# take OPTION [VALUE]: pass it to Python, and let the path of the answers tell it from choices with other answers.
take() {
    case $1 in
        --split)
            [[ " $SPLITS " == *" ${2:-} "* ]] || usage "unknown split ${2:-}; valid values: $SPLITS"
            SPLIT=$2
            ;;
        --launcher)
            LAUNCHER=${2:-}
            [[ $LAUNCHER =~ ^(torchrun|accelerate)( |$) ]] ||
                usage "unknown launcher $LAUNCHER; valid values: torchrun accelerate"
            ;;
        *)
            OPTIONS+=("$@")
            note "$1" "${2:-}"
            ;;
    esac
}

note() {
    local value
    check_budget "$1" "$2"
    value=$(plain "$2")
    case $1 in
        --pruner) PRUNER=$2 ;;
        --visual_token_num) TOKENS=vtn_$value ;;
        --keep_ratio) RATIO=ratio_$value ;;
        --batch_size | --num_workers | --device | --on-error | --overwrite | --save-latency) ;;
        --profile | --static-cache) ;;
        --important_ratio) remember "$1" "r$value" ;;
        --anyres | --conv-mode) remember "$1" "$value" ;;
        *) remember "$1" "${1#--}$value" ;;
    esac
}

# default OPTION VALUE: pass this option to Python unless the caller has given it.
default() {
    [[ " ${OPTIONS[*]-}" == *" $1 "* ]] || take "$1" "$2"
}

if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    set -- --visual_token_num "$@"
    [[ ! ${3:-} =~ ^[0-9]*\.?[0-9]+$ ]] || set -- "$1" "$2" --important_ratio "${@:3}"
    [[ ! ${3:-} =~ ^--important_ratio(=|$) || " $*" == *" --pruner"[\ =]* ]] || set -- --pruner vispruner "$@"
fi
while (($#)); do
    case $1 in
        -h | --help) usage ;;
        --*=*) take "${1%%=*}" "${1#*=}" ;;
        --*)
            if [[ $# -gt 1 && $2 != --* ]]; then
                take "$1" "$2" && shift
            else
                take "$1"
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
SETTING=$TOKENS${TOKENS:+${RATIO:+_}}$RATIO
case $PRUNER in
    none) [[ -z $SETTING ]] || usage "--pruner none keeps every token: leave TOKENS out" ;;
    *) [[ -n $SETTING ]] || usage "TOKENS is missing" ;;
esac

EVAL=./playground/data/eval/$FOLDER
DATA=${DATA_DIR:-./playground/data/eval}/$FOLDER
WHICH=$SPLIT/$CKPT/$PRUNER/${SETTING:-full}$(suffix "$USUAL")
RUN=$EVAL/answers/$WHICH
ANSWERS=$RUN.jsonl
RESULT=$RUN.json
UPLOAD=$EVAL/answers_upload/$WHICH
CONVERTERS=$(dirname "${BASH_SOURCE[0]}")/..

# Where the caller has no Python with Transformers active, the one that make has set up serves.
python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("transformers") is None)' 2> /dev/null ||
    PATH=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.venv/bin:$PATH

# Where data is missing or wrong, this says so, and where to get it, before any model loads.
python -m llava.eval doctor "$(basename "$0" .sh)" \
    --split "$SPLIT" --eval-dir "$(dirname "$EVAL")" --data-dir "$(dirname "$DATA")" --any-size --quiet

# infer MODULE [ARG...]: answer the questions into ANSWERS, one process per device, each with its share of them.
infer() {
    local devices words launcher=() command
    IFS=', ' read -ra devices <<< "${CUDA_VISIBLE_DEVICES:-0}"
    read -ra words <<< "$LAUNCHER"
    case ${words[0]:-} in
        torchrun) launcher=(-m torch.distributed.run --nproc-per-node "${#devices[@]}" "${words[@]:1}") ;;
        accelerate) launcher=(-m accelerate.commands.launch --num_processes "${#devices[@]}" "${words[@]:1}") ;;
    esac
    [[ $LAUNCHER != torchrun ]] || launcher+=(--standalone)
    command=(python "${launcher[@]}" -m "$1" --model-path "${CKPT_DIR:-./checkpoints}/$CKPT" "${@:2}" "${OPTIONS[@]}")
    if ((${#devices[@]} > 1)) && [[ -z $LAUNCHER ]]; then
        in_parallel "${command[@]}"
    else
        "${command[@]}" --answers-file "$ANSWERS" --num-chunks 1 --chunk-idx 0
    fi
    echo "answers: $ANSWERS"
}

# Rank 0 shows its progress and every rank keeps a log; where one fails, the script ends once all have ended.
in_parallel() {
    local i log chunk cores pids=() failed=()
    mkdir -p "$RUN"
    # Each process takes its share of the cores; together they would otherwise start a thread per core each.
    cores=$(($(getconf _NPROCESSORS_ONLN) / ${#devices[@]}))
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > 1 ? cores : 1))}
    trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT
    for i in "${!devices[@]}"; do
        log=$RUN/${#devices[@]}_$i.log
        chunk=(--answers-file "$RUN/${#devices[@]}_$i.jsonl" --num-chunks "${#devices[@]}" --chunk-idx "$i")
        if ((i == 0)); then
            CUDA_VISIBLE_DEVICES=${devices[i]} "$@" "${chunk[@]}" > >(tee "$log") 2>&1 &
        else
            CUDA_VISIBLE_DEVICES=${devices[i]} "$@" "${chunk[@]}" > "$log" 2>&1 &
        fi
        pids+=($!)
    done
    for i in "${!pids[@]}"; do wait "${pids[i]}" || failed+=("$RUN/${#pids[@]}_$i.log"); done
    if ((${#failed[@]})); then
        printf 'a process failed, its log: %s\n' "${failed[@]}" >&2
        exit 1
    fi
    for i in "${!pids[@]}"; do cat "$RUN/${#pids[@]}_$i.jsonl"; done > "$RUN.part"
    mv "$RUN.part" "$ANSWERS"
    # Whole, these are the answers of a single chunk: a rerun on one device, after GPT-4 has graded say, finds them all.
    sed 's/"num_chunks": [0-9]*/"num_chunks": 1/' "$RUN/${#pids[@]}_0.jsonl.run" > "$ANSWERS.run"
}

# submit FILE WHERE: say what is left to do where a server or a judge does the scoring.
submit() {
    echo "not scored here: submit $1 to $2"
}
