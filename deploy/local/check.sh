#!/usr/bin/env bash
# That up.sh does what it says: a new cluster makes keys, and after a restart it has them still.
set -euo pipefail
cd "$(dirname "$0")"
export ARCA_BIN_DIR=${ARCA_BIN_DIR:-../../target/release}

dir=$(mktemp -d)
export ARCA_PROFILE=$dir/cluster/profile.toml
trap 'rm -rf "$dir"' EXIT

# with_cluster COMMAND...: starts it, waits until it serves, runs the command, stops it.
with_cluster() {
    local line serves=
    exec {up}< <(exec ./up.sh "$dir/cluster" 2>&1)
    local pid=$!
    while read -r line <&"$up"; do
        echo "$line"
        [[ $line == "The cluster serves."* ]] && { serves=1; break; }
    done
    if [[ $serves ]]; then "$@" || serves=; fi
    kill -INT "$pid" 2> /dev/null || true
    cat <&"$up" > /dev/null
    exec {up}<&-
    [[ $serves ]]
}

with_cluster "$ARCA_BIN_DIR/arca" key create --name btc --scheme bip340 --threshold 2
with_cluster "$ARCA_BIN_DIR/arca" key show btc
echo "deploy/local/up.sh: made a key, restarted, still has it"
