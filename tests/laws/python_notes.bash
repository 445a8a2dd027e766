# Sourced before a script is run dry: `python` only notes how it is called, and no process is started for it.
#
# Notes go to $NOTES, a word a line: `#` and the devices that are visible before every call.
python() {
    local i
    [[ $1 != -c ]] || return 0
    printf '%s\n' "# ${CUDA_VISIBLE_DEVICES-}" "$@" >> "$NOTES"
    for ((i = 1; i < $#; i++)); do
        if [[ ${!i} == --answers-file ]]; then
            i=$((i + 1))
            [[ ! -d ${!i%/*} ]] || : > "${!i}.run" > "${!i}"
        fi
    done
}
export -f python
