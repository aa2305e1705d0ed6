#!/usr/bin/env bash
# The one list of system packages, for Debian 12 and Ubuntu 24.04.
# usage: install-deps.sh build             what building and starting the server needs
#        install-deps.sh test              that, and what the tests need
#        install-deps.sh runtime FILE...   prints the packages whose libraries the programs and
#                                          modules load, for an image that builds nothing
set -euo pipefail

role=${1:-build}
. /etc/os-release
case "${ID}-${VERSION_ID}" in
  debian-12)    boost=libboost1.81-dev ;;
  ubuntu-24.04) boost=libboost1.83-dev ;;
  *) echo "install-deps.sh: needs Debian 12 or Ubuntu 24.04, found ${ID} ${VERSION_ID}" >&2
     exit 1 ;;
esac

packages=(g++ cmake ninja-build pkg-config ca-certificates curl
          libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libabsl-dev
          "${boost}" libssl-dev libcurl4-openssl-dev nlohmann-json3-dev libspdlog-dev libcli11-dev
          prometheus-cpp-dev libsentencepiece-dev libpcre2-dev libutf8proc-dev
          libzmq3-dev cppzmq-dev)

case "${role}" in
  build) ;;
  test) packages+=(libgtest-dev libgmock-dev libbenchmark-dev ccache
                   openssl clang-14 libclang-rt-14-dev clang-format-14 g++-aarch64-linux-gnu
                   groff-base python3-venv) ;;
  runtime)
    # /lib is a link to /usr/lib, and packages name either one. An image that lacks a library would
    # not start: one that no package has, or that is not found, ends this.
    shift
    libraries=$(ldd "$@" | awk '$2 == "=>" {print $3}' | xargs readlink -f)
    for library in ${libraries}; do
      dpkg-query --search "${library}" 2> /dev/null || dpkg-query --search "${library#/usr}" \
        || exit 1
    done | cut -d: -f1 | sort -u
    exit 0 ;;
  *) echo "install-deps.sh: unknown role '${role}': expected build, test or runtime" >&2
     exit 1 ;;
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
