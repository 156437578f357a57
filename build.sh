#!/usr/bin/env bash
# Build the container image.
#
#   ./build.sh [--mode exec|invoke]
#
#   --mode exec     in-silico-labelling:latest, started once for each case (default)
#   --mode invoke   in-silico-labelling:invoke, stays up and is asked over HTTP
#
# Environment:
#   BASE_IMAGE            another base with Python 3.11 or newer and torch 2.13.0 (default: see Dockerfile),
#                         for where Docker Hub cannot be reached
#   DOCKER_BUILD_OPTIONS  further options of "docker build", separated by blanks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source container/common.sh

mode='exec'
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
base=${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)}
inspect_image "$base" '{{.Id}}' >/dev/null || run docker pull --platform=linux/amd64 "$base" ||
  fail "the base image $base can be neither found nor pulled, expected Docker Hub to be reachable, or BASE_IMAGE to name a local image with Python 3.11 or newer and torch 2.13.0."

options=(--platform=linux/amd64 --force-rm --build-arg "API_METHOD=$mode" --build-arg "BASE_IMAGE=$base")
options+=(--build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' model/__init__.py)")
options+=(--build-arg "REVISION=$(revision)")
read -ra more <<<"${DOCKER_BUILD_OPTIONS-}"
run docker build "${options[@]}" "${more[@]}" --tag "$tag" .
say "Built $tag, $(inspect_image "$tag" '{{.Size}}' | awk '{printf "%.0f MB", $1 / 1e6}') with its base."
