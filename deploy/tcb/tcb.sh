#!/usr/bin/env bash
# The crates that an enclave binary is made of.
#
#   deploy/tcb/tcb.sh update    writes deploy/tcb/BINARY.txt (make tcb)
#   deploy/tcb/tcb.sh check     fails when a list or the README is out of date (make check)
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

binaries=(arca-enclave-hsm arca-enclave-nitro arca-enclave-simulated)
target=x86_64-unknown-linux-gnu

# tree BINARY EDGES [OPTION...]: "name version" of every crate, as built for that binary alone.
tree() {
    local binary=$1 edges=$2
    shift 2
    cargo tree --quiet --locked --package "$binary" --edges "$edges" --target "$target" --prefix none \
        --format '{p}' "$@" | awk 'NF { sub(/^v/, "", $2); print $1, $2 }' | sort -u
}

# What is linked, as "name version"; what only runs while it is built (macros, build scripts) is marked "build".
list() {
    local linked
    linked=$(tree "$1" normal,no-proc-macro)
    { echo "$linked"; tree "$1" normal,build | comm -13 <(echo "$linked") - | sed 's/$/ build/'; } | sort
}

# External crates that one of ours names itself, and so answers for.
direct() {
    local ours
    for ours in $(tree "$1" normal | awk '$1 ~ /^arca-/ { print $1 }'); do
        tree "$ours" normal --depth 1
    done | awk '$1 !~ /^arca-/ { print $1 }' | sort -u
}

# Crates that the README's table gives a reason for.
explained() {
    sed -n 's/^| \(`[^|]*`\) |.*/\1/p' deploy/tcb/README.md | tr -d '`,' | tr ' ' '\n' | sort -u
}

check() {
    local file=deploy/tcb/$1.txt failed=0
    if ! diff -u --label "$file" --label "what is built" "$file" <(list "$1"); then
        echo "The crates of $1 changed. If that is wanted, record it: make tcb" >&2
        failed=1
    fi
    return $failed
}

# Of all binaries together.
check_reasons() {
    local named
    named=$(for binary in "${binaries[@]}"; do direct "$binary"; done | sort -u)
    diff -u --label deploy/tcb/README.md --label "what our crates name" <(explained) <(echo "$named") && return
    echo "deploy/tcb/README.md must give a reason for these crates (+), or no longer (-)." >&2
    return 1
}

case ${1:-} in
    update)
        for binary in "${binaries[@]}"; do
            list "$binary" > "deploy/tcb/$binary.txt"
            echo "deploy/tcb/$binary.txt: $(grep -vc ' build$' "deploy/tcb/$binary.txt") crates linked"
        done
        ;;
    check)
        for binary in "${binaries[@]}"; do check "$binary"; done
        check_reasons
        ;;
    *)
        echo "usage: $0 update|check" >&2
        exit 2
        ;;
esac
