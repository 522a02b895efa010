#!/usr/bin/env bash
# What the demo and the tests run on and cargo does not bring. Installs or builds what is missing, once.
#
#   modules.sh openssl TOOLS     the openssl command, from the distribution
#   modules.sh softhsm TOOLS     SoftHSM2, from the distribution
#   modules.sh kryoptic TOOLS    Kryoptic, built into TOOLS/kryoptic (two minutes)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=${1:?softhsm, kryoptic or openssl} tools=${2:?folder for tools}

# In CI a test that is left out is a test that failed: ARCA_NEED_MODULES=1.
left_out() {
    echo "make $what: $1: what needs $what is left out"
    [[ ${ARCA_NEED_MODULES:-} != 1 ]]
    exit
}

# apt PACKAGE...: only where that is possible without asking anybody.
apt() {
    [[ $(id -u) = 0 ]] && command -v apt-get > /dev/null || return 1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" > /dev/null 2>&1 && return
    DEBIAN_FRONTEND=noninteractive apt-get update -q > /dev/null 2>&1 || return 1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" > /dev/null
}

case $what in
    openssl)
        command -v openssl > /dev/null || apt openssl || {
            echo "missing openssl: apt-get install openssl" >&2
            exit 1
        }
        ;;
    softhsm)
        for module in "${ARCA_SOFTHSM:-}" {/usr/lib,/usr/lib64,/usr/local/lib}/softhsm/libsofthsm2.so; do
            [[ -n $module && -e $module ]] && exit 0
        done
        apt softhsm2 || left_out "SoftHSM2 is not installed (apt-get install softhsm2)"
        ;;
    kryoptic)
        module=$tools/kryoptic/libkryoptic_pkcs11.so
        cmp -s "$here/Cargo.lock" "$tools/kryoptic/built.lock" && [[ -e $module ]] && exit 0
        built_with() { pkg-config --exists libcrypto sqlite3 && ls /usr/lib/llvm-*/lib/libclang*.so* > /dev/null 2>&1; }
        built_with 2> /dev/null || apt pkg-config libssl-dev libsqlite3-dev libclang-dev ||
            left_out "it needs pkg-config, OpenSSL, SQLite and libclang (apt-get install pkg-config libssl-dev \
libsqlite3-dev libclang-dev)"
        cargo fetch --quiet --locked --manifest-path "$here/Cargo.toml" ||
            left_out "the registry cannot be reached"
        source=$(cargo metadata --locked --offline --format-version 1 --manifest-path "$here/Cargo.toml" |
            grep -o '"manifest_path":"[^"]*/kryoptic-[0-9][^"]*/Cargo.toml"' | head -1 | cut -d'"' -f4)
        echo "building Kryoptic, once (two minutes)"
        # OpenSSL 3.0 has all that these features need; EdDSA would need 3.2.
        CARGO_TARGET_DIR=$tools/kryoptic/build cargo build --quiet --locked --release --manifest-path "$source" \
            --no-default-features \
            --features kryoptic-lib/sqlitedb,kryoptic-lib/ecc_min,kryoptic-lib/hash_all,kryoptic-lib/dynamic
        cp "$tools/kryoptic/build/release/libkryoptic_pkcs11.so" "$module"
        cp "$here/Cargo.lock" "$tools/kryoptic/built.lock"
        rm -rf "$tools/kryoptic/build"
        ;;
    *)
        echo "usage: $0 softhsm|kryoptic|openssl TOOLS" >&2
        exit 2
        ;;
esac
