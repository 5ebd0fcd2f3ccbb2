--- What the shells are given: each asks the program that is being typed, so that nothing of it can be out of date.
-- A line of the answer is a word, a tab and what it means; the line `:files` stands for names of files.
-- @module lunashard.cli.completion.shells
-- @local

local shells = {}

--- For bash, where it is sourced. It cuts words at `=`, and takes the quotes of a word as its own.
shells.bash = [==[
# bash completion of lunashard
_lunashard() {
    local line text is_file='' program=${COMP_WORDS[0]/#\~/$HOME}
    type -P "$program" >/dev/null || program=lunashard
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            is_file=1
        else
            printf -v text %q "${line%%$'\t'*}"
            COMPREPLY+=("$text")
        fi
    done < <("$program" completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ $is_file ]]; then
        compopt -o default 2>/dev/null
    fi
    return 0
}
complete -F _lunashard lunashard
]==]

--- For zsh, as a file `_lunashard` in fpath, or where it is sourced.
shells.zsh = [==[
#compdef lunashard
_lunashard() {
    local line is_file program=${~words[1]}
    local -a found
    (( $+commands[$program] )) || [[ -x $program ]] || program=lunashard
    for line in "${(@f)$("$program" completion words "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            is_file=1
        elif [[ -n $line ]]; then
            found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        fi
    done
    if [[ -n $is_file ]]; then
        compset -P '--*='
        _files
    elif (( $#found )); then
        _describe lunashard found
    fi
}
if [[ $funcstack[1] == _lunashard ]]; then
    _lunashard "$@"
elif (( $+functions[compdef] )); then
    compdef _lunashard lunashard
fi
]==]

--- For fish.
shells.fish = [==[
# fish completion of lunashard
function __lunashard_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    type -q $program; or set program lunashard
    for line in ($program completion words $words[2..-1] $current 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (string replace -r '^--[^=]*=' '' -- $current)
        else
            echo $line
        end
    end
end
complete -c lunashard -f -a '(__lunashard_complete)'
]==]

return shells
