# Completion of ghostunnel's command lines in fish. Put it as ghostunnel.fish into
# ~/.config/fish/completions.
function __ghostunnel_candidates
    set -l words (commandline -opc) (commandline -ct)
    $words[1] --completion-bash $words[2..-1] 2>/dev/null
end
complete -c ghostunnel -a '(__ghostunnel_candidates)'
