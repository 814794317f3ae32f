_lc() {
    local word
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(@CANDIDATES@ bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 0 && $2 == */* ]]; then
        compopt -o default 2>/dev/null
    fi
}
complete -o nospace -F _lc lc
