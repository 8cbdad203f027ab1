# Completion of ghostunnel's command lines in bash. Read it at the shell's start, or put it into
# /usr/share/bash-completion/completions/ghostunnel.
_ghostunnel() {
    local current="${COMP_WORDS[COMP_CWORD]}" candidates
    candidates=$("${COMP_WORDS[0]}" --completion-bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [ "$current" = "=" ]; then current=""; fi
    COMPREPLY=()
    local IFS=$'\n'
    COMPREPLY=($(compgen -W "$candidates" -- "$current"))
}
complete -o default -F _ghostunnel ghostunnel
