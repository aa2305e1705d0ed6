#!/usr/bin/env bash
# Sets everything up on a fresh machine, builds and passes every test.
# usage: tests/run.sh [--long]    --long: sanitizers, a minute of fuzzing per parser, ten times the
#                                 made-up HTTP requests, and chaos (an hour, and ten minutes under
#                                 each sanitizer) besides
set -euo pipefail
cd "$(dirname "$0")/.."

long=
case "${1:-}" in
  "") ;;
  --long) long=yes ;;
  *) echo "tests/run.sh: unknown option '$1': expected --long or nothing" >&2; exit 2 ;;
esac

step() { printf '\n== %s\n' "$*"; }

step "packages"
docker/install-deps.sh test

step "python environment"
venv=build/venv
if ! cmp -s tests/requirements.txt "${venv}/installed"; then
  rm -rf "${venv}"
  python3 -m venv "${venv}"
  "${venv}/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
  cp tests/requirements.txt "${venv}/installed"
fi

step "format"
find kernels models engine server tests \
  \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
  xargs -0 clang-format-14 --dry-run -Werror

options=(-G Ninja "-DPBSERVE_PYTHON=${PWD}/${venv}/bin/python")
if command -v ccache > /dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null || true)
cuda=()
if [ -n "${nvcc}" ]; then cuda=(-DWITH_CUDA=ON "-DCMAKE_CUDA_COMPILER=${nvcc}"); fi

step "build${nvcc:+ (with every .cu file, for ${nvcc})}"
cmake -S . -B build/test "${options[@]}" -DCMAKE_BUILD_TYPE=Release "${cuda[@]}"
cmake --build build/test

step "tests"
ctest --test-dir build/test --output-on-failure

# chaos BUILD [option...]: badly behaved clients against the server of a build
chaos() {
  TSAN_OPTIONS="suppressions=${PWD}/tests/tsan.supp" \
    PBSERVE_BINARY="${PWD}/build/$1/server/pbserve" "${venv}/bin/python" -B \
    tests/server/chaos/chaos.py "${@:2}"
}

if [ -n "${long}" ]; then
  for sanitizer in asan tsan; do
    step "tests with ${sanitizer}"
    tests/run_sanitized.sh "${sanitizer}"
    step "chaos with ${sanitizer}"
    chaos "${sanitizer}" --minutes 10 --clients 3 --ignore-memory
  done
  step "the description of the HTTP API"
  PBSERVE_BINARY="${PWD}/build/test/server/pbserve" PBSERVE_OPENAPI_EXAMPLES=100 \
    "${venv}/bin/python" -B -m pytest -q -p no:cacheprovider tests/server/e2e/test_openapi.py
  step "fuzzing"
  cmake --preset fuzz "${options[@]}"
  cmake --build build/fuzz --target fuzzers
  for seeds in tests/fuzz/seeds/*/; do
    target=$(basename "${seeds}")
    corpus=build/fuzz/corpus/${target}
    mkdir -p "${corpus}"
    "build/fuzz/tests/fuzz/${target}" -max_total_time=60 -timeout=20 -rss_limit_mb=4096 \
      -print_final_stats=1 "${corpus}" "${seeds}"
  done
  step "chaos"
  chaos test --minutes 60
fi
