function __lc_candidates
    set -l found (@CANDIDATES@ fish (commandline -cp) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else if string match -q '*/*' -- (commandline -ct)
        __fish_complete_path (commandline -ct)
    end
end
complete -c lc -f -k -a '(__lc_candidates)'
