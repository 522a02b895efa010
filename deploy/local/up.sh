#!/usr/bin/env bash
# A cluster of three simulated parties on this machine, set up step by step as operators of real ones would.
#
#   deploy/local/up.sh DIR     makes DIR with everything in it, and serves until it is interrupted
#   deploy/local/up.sh DIR     with an existing DIR: starts it again
#
# ARCA_BIN_DIR names the folder of the programs (default: target/release).
set -euo pipefail

dir=${1:?usage: $0 DIR}
bin=$(realpath "${ARCA_BIN_DIR:-$(dirname "$0")/../../target/release}")
parties=(ceo cto cloud)
declare -A port=([ceo]=7101 [cto]=7102 [cloud]=7103)

new=1
[[ -d $dir ]] && new=
(umask 077 && mkdir -p "$dir")
cd "$dir"

all_parties() { for party in "${parties[@]}"; do printf -- '--party %s=127.0.0.1:%s ' "$party" "${port[$party]}"; done; }
key_of() { "$bin/arca" party enroll "$1" "$2" --output json | sed -n 's/.*"public_key": *"\([0-9a-f]*\)".*/\1/p'; }

# Again until it succeeds, for half a minute: the programs are just starting.
patiently() {
    for _ in {1..150}; do
        if "$@" > attempt.log 2>&1; then return; fi
        sleep 0.2
    done
    cat attempt.log >&2
    return 1
}

# Each party's operator: configuration of the host and of the enclave. The root stands for the hardware's maker.
configure() {
    "$bin/arca-enclave-simulated" make-root root
    for party in "${parties[@]}"; do
        peers=()
        for peer in "${parties[@]}"; do
            [[ $peer == "$party" ]] || peers+=(--peer "$peer=127.0.0.1:${port[$peer]}")
        done
        "$bin/arca" party init "$party" --dir "$party" --listen "127.0.0.1:${port[$party]}" --simulated-root root \
            "${peers[@]}"
    done
}

start() {
    for party in "${parties[@]}"; do
        "$bin/arca-host" --config "$party/host.toml" 2>> "$party/host.log" &
        "$bin/arca-enclave-simulated" --config "$party/enclave.toml" 2>> "$party/enclave.log" &
    done
}

# The administrators: what the enclaves prove is written into a manifest, two of three sign it.
enroll() {
    local administrators=() name
    for name in alice bob carol; do
        administrators+=(--administrator "$name=$(key_of administrator-key "$name.pem")")
    done
    local treasury
    treasury=$(key_of principal-key treasury.pem)
    "$bin/arca-enclave-simulated" measurements > measurements.json
    # shellcheck disable=SC2046
    patiently "$bin/arca" party enroll draft manifest.json --cluster sim-local --simulated-root root/root.der \
        --measurements measurements.json $(all_parties) "${administrators[@]}" --quorum 2 \
        --principal "treasury=$treasury:operator,initiator,auditor"
    "$bin/arca" party enroll sign manifest.json --key alice.pem alice.signature.json
    "$bin/arca" party enroll sign manifest.json --key bob.pem bob.signature.json
    "$bin/arca" party enroll assemble manifest.json manifest.signed.json alice.signature.json bob.signature.json
    # shellcheck disable=SC2046
    "$bin/arca" party enroll apply manifest.signed.json --simulated-root root/root.der $(all_parties) \
        --write-profile profile.toml --principal-key treasury.pem
}

trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
trap 'exit 130' INT TERM
if [[ $new ]]; then configure; fi
start
if [[ $new ]]; then enroll; fi
patiently "$bin/arca" --profile profile.toml status

echo "The cluster serves. In another terminal:"
echo "  export ARCA_PROFILE=$PWD/profile.toml"
echo "  arca status"
echo "  arca key create --name btc --scheme bip340 --threshold 2"
echo "  arca key create --name eth --scheme ecdsa-secp256k1 --threshold 2"
echo "Ctrl-C stops it; $0 $PWD starts it again, with the same keys."
wait -n || true
echo "A program has ended, so all are stopped. See $PWD/*/*.log" >&2
exit 1
