# shellcheck shell=bash
# Sourced by the scripts that name a run's answers: one name for one setting, however its options are written, and
# none for one that is none.

# plain VALUE: a number as it is usually written (0.5 for .5 and 0.50, 36 for 036, 0.001 for 1e-3), else VALUE.
plain() {
    local bare=${1//_/} # Python reads 1_000 as a number
    if [[ $1 == *[0-9]* && $bare =~ ^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$ ]]; then
        LC_ALL=C printf '%.15g' "$bare"
    else
        printf '%s' "$1"
    fi
}

# check_budget OPTION VALUE: where a number of tokens or a share is none, say so by the caller's usage.
check_budget() {
    local value
    value=$(plain "$2")
    case $1 in
        --visual_token_num)
            [[ $2 =~ ^\+?[0-9]+(_[0-9]+)*$ ]] || usage "$1 $2: TOKENS is a whole number"
            ;;
        --keep_ratio)
            [[ $value =~ ^(1|0\.[0-9]+|[0-9.]+e-[0-9]+)$ ]] || usage "$1 $2: a share is a number above 0 and at most 1"
            ;;
        --important_ratio)
            [[ $value =~ ^([01]|0\.[0-9]+|[0-9.]+e-[0-9]+)$ ]] || usage "$1 $2: a share is a number from 0 to 1"
            ;;
    esac
}

# remember OPTION LABEL: what the name says of an option; of one that is given twice the last counts, as in Python.
LABELS=()
remember() {
    local others=() each
    for each in ${LABELS[@]+"${LABELS[@]}"}; do
        [[ $each == "$1 "* ]] || others+=("$each")
    done
    LABELS=(${others[@]+"${others[@]}"} "$1 $2")
}

# suffix USUAL: the labels that are not among the words of USUAL, in the order of their options' names.
suffix() {
    local _ label
    while read -r _ label; do
        [[ -z $label || " $1 " == *" $label "* ]] || printf '_%s' "${label//\//-}"
    done < <(printf '%s\n' ${LABELS[@]+"${LABELS[@]}"} | LC_ALL=C sort)
}
