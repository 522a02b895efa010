#!/usr/bin/env bash
# Gets ready what reads our audit log from outside, once; prints the command that runs it.
#
#   tools.sh python TOOLS    aics-tlog from PyPI, in a venv in TOOLS; needs Python 3.12
#   tools.sh go TOOLS        Go's own packages, compiled into TOOLS; needs Debian's golang-go and golang-golang-x-mod-dev
#
# Where that cannot be had it says so on standard error and prints nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=${1:?python or go} tools=${2:?folder for tools}

left_out() {
    echo "audit_interop: $what is left out: $1" >&2
    exit 0
}

case $what in
    python)
        venv=$tools/tlog-python
        if ! cmp -s "$here/python/requirements.txt" "$venv/installed.txt"; then
            for python in "${ARCA_PYTHON:-python3}" python3.14 python3.13 python3.12 none; do
                "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 12))' > /dev/null 2>&1 && break
            done
            [[ $python != none ]] || left_out "there is no Python 3.12 or later with venv (ARCA_PYTHON names one)"
            rm -rf "$venv" && mkdir -p "$tools"
            "$python" -m venv "$venv" > /dev/null 2>&1 || left_out "$python makes no venv (apt-get install python3-venv)"
            "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 15 \
                --requirement "$here/python/requirements.txt" > /dev/null 2>&1 || left_out "pip cannot install aics-tlog"
            cp "$here/python/requirements.txt" "$venv/installed.txt"
        fi
        printf '%s\n%s\n' "$venv/bin/python" "$here/python/audit.py"
        ;;
    go)
        command -v go > /dev/null || left_out "there is no Go (apt-get install golang-go golang-golang-x-mod-dev)"
        sources=/usr/share/gocode
        [[ -d $sources/src/golang.org/x/mod/sumdb/tlog ]] ||
            left_out "there is no golang.org/x/mod (apt-get install golang-golang-x-mod-dev)"
        mkdir -p "$tools/tlog-go"
        GOPATH=$sources GO111MODULE=off GOFLAGS= GOCACHE=$tools/tlog-go/cache \
            go build -o "$tools/tlog-go/audit" "$here/go/main.go" >&2 || exit 1
        printf '%s\n' "$tools/tlog-go/audit"
        ;;
    *)
        echo "usage: $0 python|go TOOLS" >&2
        exit 2
        ;;
esac
