#!/usr/bin/env bash
# An S3 server that is not ours, for the tests of the audit log's archive: s3s-fs, built into TOOLS/s3, once.
#
#   server.sh TOOLS
set -euo pipefail
tools=${1:?folder for tools}
version=0.14.1

"$tools/s3/bin/s3s-fs" --version 2> /dev/null | grep -qF "$version" && exit 0
echo "building s3s-fs, once (two minutes)"
# Its lock file comes with it. It is not optimised: it has little to do.
cargo install --quiet --locked --debug s3s-fs --version "$version" --features binary --root "$tools/s3" && exit 0
# In CI a test that is left out is a test that failed: ARCA_NEED_MODULES=1.
echo "make s3: the registry cannot be reached: what needs an S3 server is left out"
[[ ${ARCA_NEED_MODULES:-} != 1 ]]
