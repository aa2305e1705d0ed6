#!/usr/bin/env bash
# Installs the system packages pbserve needs: the one list, for Debian 12 and Ubuntu 24.04.
# usage: install-deps.sh build|runtime|test     (test = build + what the tests use)
set -euo pipefail

role=${1:-build}
. /etc/os-release
case "${ID}-${VERSION_ID}" in
  debian-12)    boost=1.81 grpc_runtime=libgrpc++1.51 utf8proc=libutf8proc2 ;;
  ubuntu-24.04) boost=1.83 grpc_runtime=libgrpc++1.51t64 utf8proc=libutf8proc3 ;;
  *) echo "install-deps.sh: needs Debian 12 or Ubuntu 24.04, found ${ID} ${VERSION_ID}" >&2
     exit 1 ;;
esac

# The compiled program's shared libraries.
runtime=("${grpc_runtime}" "${utf8proc}" libsentencepiece0 libpcre2-8-0 prometheus-cpp-runtime
         ca-certificates curl)
[ "${ID}" = debian ] && runtime=("${runtime[@]/prometheus-cpp-runtime/libprometheus-cpp-core1.0}")

build=(g++ cmake ninja-build pkg-config
       libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev
       "libboost${boost}-dev" libssl-dev nlohmann-json3-dev libspdlog-dev libcli11-dev
       prometheus-cpp-dev libsentencepiece-dev libpcre2-dev libutf8proc-dev curl ca-certificates)

case "${role}" in
  runtime) packages=("${runtime[@]}") ;;
  build)   packages=("${build[@]}") ;;
  test)    packages=("${build[@]}" libgtest-dev libgmock-dev libbenchmark-dev clang-14 clang-format
                     libclang-rt-14-dev python3-venv xz-utils) ;;
  *) echo "install-deps.sh: unknown role '${role}': expected build, runtime or test" >&2; exit 1 ;;
esac

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "${package}" 2>/dev/null | grep -q 'install ok installed' \
    || missing+=("${package}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
