#!/usr/bin/env bash
# Sets everything up on a fresh machine and serves a model: the bundled demo unless --model or
# --config names another. Arguments go to pbserve, which runs in the caller's folder: relative
# paths are the caller's. It is built with CUDA where nvcc is found, in PATH or in CUDA_HOME.
# usage: server/run.sh [pbserve's flags]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

"${root}/docker/install-deps.sh" build

build=${root}/build/release
nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2> /dev/null || true)
backend=${nvcc:-CPU}
# Configured again when nvcc has come or gone since; objects that do not differ are kept.
if [ ! -f "${build}/build.ninja" ] || [ "$(cat "${build}/backend" 2> /dev/null)" != "${backend}" ]
then
  options=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DPBSERVE_TESTS=OFF)
  if command -v ccache > /dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  if [ -n "${nvcc}" ]; then options+=(-DWITH_CUDA=ON "-DCMAKE_CUDA_COMPILER=${nvcc}"); fi
  cmake --fresh -S "${root}" -B "${build}" "${options[@]}"
  echo "${backend}" > "${build}/backend"
fi
cmake --build "${build}" --target pbserve

# A flag beats the file: the demo must not take the place of the model that --config names.
model=(--model "${root}/models/demo")
for argument in "$@"; do
  case "${argument}" in
    --model | --model=* | --config | --config=*) model=() ;;
  esac
done
exec "${build}/server/pbserve" "${model[@]}" "$@"
