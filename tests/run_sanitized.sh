#!/usr/bin/env bash
# Builds and runs the unit tests of host code under a sanitizer; the end-to-end tests, in Python,
# are left out. usage: tests/run_sanitized.sh asan|tsan [ctest options]
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer=$1
shift

options=()
if command -v ccache > /dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
cmake --preset "cpu-${sanitizer}" "${options[@]}"
cmake --build "build/${sanitizer}"
export TSAN_OPTIONS="suppressions=${PWD}/tests/tsan.supp"
ctest --test-dir "build/${sanitizer}" --output-on-failure --label-exclude python "$@"
