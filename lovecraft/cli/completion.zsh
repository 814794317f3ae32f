_lc() {
    local -a found open
    found=("${(@f)$(@CANDIDATES@ zsh "${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" 2>/dev/null)}")
    open=(${(M)found:#*[/=]:*})
    found=(${found:#(|*[/=]:*)})
    _describe -V lc found -- open -S ''
    (( $#found + $#open )) || [[ $PREFIX != */* ]] || _files
}
compdef _lc lc
