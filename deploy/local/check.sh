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
    kill -TERM "$pid" 2> /dev/null || true
    cat <&"$up" > /dev/null
    exec {up}<&-
    [[ $serves ]]
}

address() { "$ARCA_BIN_DIR/arca" key address eth --path m/44/60/0/0/7; }

make_keys() {
    "$ARCA_BIN_DIR/arca" key create --name btc --scheme bip340 --threshold 2 &&
        "$ARCA_BIN_DIR/arca" key create --name eth --scheme ecdsa-secp256k1 --threshold 2 &&
        address > "$dir/address"
}

# The restarted parties still sign for the address of before.
use_keys() {
    "$ARCA_BIN_DIR/arca" key show btc && [[ $(address) == "$(< "$dir/address")" ]] &&
        "$ARCA_BIN_DIR/arca" sign eth - --key eth --path m/44/60/0/0/7 --wait --certificate "$dir/eth.cert.json" << 'EOF' && audit
{"chainId": 31337, "nonce": 0, "to": "0x3535353535353535353535353535353535353535", "value": "1500000000000000000",
 "gas": 21000, "maxFeePerGas": "3000000000", "maxPriorityFeePerGas": "1000000000"}
EOF
}

# What the logs and a certificate prove, and that a changed byte of one does not pass.
audit() {
    "$ARCA_BIN_DIR/arca" audit export "$dir/logs" &&
        "$ARCA_BIN_DIR/arca" audit verify "$dir/logs" --html "$dir/report.html" && [[ -s $dir/report.html ]] &&
        "$ARCA_BIN_DIR/arca" audit verify "$dir/eth.cert.json" || return 1
    sed 's/"initiator":"t/"initiator":"T/' "$dir/eth.cert.json" > "$dir/changed.cert.json"
    ! "$ARCA_BIN_DIR/arca" audit verify "$dir/changed.cert.json"
}

with_cluster make_keys
with_cluster use_keys
echo "deploy/local/up.sh: made keys, restarted, still has them and signs with them; its logs verify offline"
