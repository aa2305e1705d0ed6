#!/usr/bin/env bash
# Sets everything up on a fresh machine and serves the demo model; arguments go to pbserve.
# usage: server/run.sh [pbserve's flags]
set -euo pipefail
cd "$(dirname "$0")/.."

docker/install-deps.sh build

build=build/release
if [ ! -f "${build}/build.ninja" ]; then
  options=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DPBSERVE_TESTS=OFF)
  if command -v ccache > /dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null || true)
  if [ -n "${nvcc}" ]; then options+=(-DWITH_CUDA=ON "-DCMAKE_CUDA_COMPILER=${nvcc}"); fi
  cmake -S . -B "${build}" "${options[@]}"
fi
cmake --build "${build}" --target pbserve
exec "${build}/server/pbserve" --model models/demo "$@"
