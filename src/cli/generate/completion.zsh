#compdef ghostunnel
# Completion of ghostunnel's command lines in zsh. Read it after compinit, or put it as
# _ghostunnel into a directory of $fpath.
_ghostunnel() {
    local -a candidates
    candidates=(${(f)"$("${(Q)words[1]}" --completion-bash "${(@Q)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#candidates )); then
        compadd -- $candidates
    else
        _files
    fi
}
if [ "$funcstack[1]" = "_ghostunnel" ]; then
    _ghostunnel "$@"
else
    compdef _ghostunnel ghostunnel
fi
