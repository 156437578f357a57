#!/usr/bin/env bash
# Build the container image.
#
#   ./build.sh [--mode exec|invoke]
#
#   --mode exec     in-silico-labelling:latest, started once for each case (default)
#   --mode invoke   in-silico-labelling:invoke, stays up and is asked over HTTP
#
# Environment:
#   BASE_IMAGE            another base with Python 3.11 or newer and torch 2.13.0 (default: see Dockerfile)
#   DOCKER_BUILD_OPTIONS  further options of "docker build", separated by blanks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source container/common.sh

mode=exec
while (($#)); do
  case $1 in
    --mode) mode=${2-}; shift 2 || fail "--mode needs a word, expected exec or invoke." ;;
    -h | --help) show_help "${BASH_SOURCE[0]##*/}"; exit ;;
    *) fail "found '$1', expected --mode or --help." ;;
  esac
done
require_mode "$mode"
require_docker

tag=$(tag_of_mode "$mode")
options=(--platform=linux/amd64 --build-arg "API_METHOD=$mode")
[[ -z ${BASE_IMAGE-} ]] || options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
options+=(--build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' model/__init__.py)")
options+=(--build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || say unknown)")
read -ra more <<<"${DOCKER_BUILD_OPTIONS-}"
docker build "${options[@]}" "${more[@]}" --tag "$tag" .
say "Built $tag, $(docker image inspect --format '{{.Size}}' "$tag" | awk '{printf "%.0f MB", $1 / 1e6}') with its base."
