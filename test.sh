#!/usr/bin/env bash
# Build the container, run it on test/input as the platform would, and check what comes out.
#
#   ./test.sh [--mode exec|invoke] [--no-build]
#
#   --mode       exec: one container a case (default); invoke: one container, asked over HTTP
#   --no-build   test the image that is there
#
# Each image of test/input is put where the platform puts it, under a name that tells nothing. The container has no
# network, no capability, a read-only root and another user's id than its own. Every output is imported by the
# platform's importer (panimg) and compared with test/expected_output. Exit code 0: all is as it should be.
# DOCKER_BUILD_OPTIONS and BASE_IMAGE are passed on to ./build.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source container/common.sh

mode=exec build=yes
while (($#)); do
  case $1 in
    --mode) mode=${2-}; shift 2 || fail "--mode needs a word, expected exec or invoke." ;;
    --no-build) build=no; shift ;;
    -h | --help) show_help "${BASH_SOURCE[0]##*/}"; exit ;;
    *) fail "found '$1', expected --mode, --no-build or --help." ;;
  esac
done
require_mode "$mode"
require_docker
tag=$(tag_of_mode "$mode")
if [[ $build == yes ]]; then ./build.sh --mode "$mode"; else require_image "$tag"; fi
read -ra more <<<"${DOCKER_BUILD_OPTIONS-}"
docker build "${more[@]}" --quiet --build-arg "IMAGE=$tag" --file container/check.Dockerfile --tag "$NAME:check" . >/dev/null

work=$(mktemp -d)
server=
clean_up() {
  [[ -z $server ]] || docker rm --force "$server" >/dev/null
  rm -rf "$work"
}
trap clean_up EXIT
chmod 755 "$work"

gpu=()
if docker info --format '{{json .Runtimes}}' | grep -q nvidia; then gpu=(--gpus all); fi
user=(--user 12345:12345) # nobody's: the image must not depend on who runs it

# Lay out one case as the platform does: stage CASE IMAGE
stage() {
  local id socket=organelles-transmitted-light-ome-tiff
  id=$(cat /proc/sys/kernel/random/uuid)
  mkdir -p "$work/$1/input/images/$socket"
  cp "$2" "$work/$1/input/images/$socket/$id.tiff"
  printf '[{"socket": {"slug": "%s", "relative_path": "images/%s"}, "image": {"pk": "%s", "name": "%s"}}]\n' \
    "$socket" "$socket" "$id" "${2##*/}" >"$work/$1/input/inputs.json"
  open_folder "$work/$1/output"
}

open_folder() { mkdir -p "$1" && chmod 777 "$1"; }

# Run one container for one case: run_exec CASE
run_exec() {
  open_folder "$work/tmp"
  docker run --rm "${RESTRICTIONS[@]}" "${user[@]}" "${gpu[@]}" \
    --volume "$work/$1/input:/input:ro" --volume "$work/$1/output:/output" --volume "$work/tmp:/tmp" "$tag"
}

# Ask the server inside its own, otherwise closed, network: ask METHOD PATH prints status and body
ask() {
  docker exec "$server" python3 -c '
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 4743, timeout=600)
connection.request(*sys.argv[1:])
answer = connection.getresponse()
print(answer.status, answer.read().decode().strip())' "$1" "$2"
}

start_server() {
  open_folder "$work/tmp"
  open_folder "$work/now/output"
  mkdir -p "$work/now/input"
  server=$(docker run --detach "${RESTRICTIONS[@]}" "${user[@]}" "${gpu[@]}" \
    --volume "$work/now/input:/input:ro" --volume "$work/now/output:/output" --volume "$work/tmp:/tmp" "$tag")
  local second
  for ((second = 0; second < 300; second++)); do
    [[ $(ask GET /health 2>/dev/null) != "200 ready" ]] || return 0
    sleep 1
  done
  docker logs "$server" >&2
  fail "the server was not ready after 300 s."
}

# Ask the running container for one case: run_invoke CASE
run_invoke() {
  cp -r "$work/$1/input/." "$work/now/input"
  local answer
  answer=$(ask POST /invoke)
  say "$answer"
  rm -rf "$work/now/input/"*
  cp -r "$work/now/output/." "$work/$1/output"
  docker exec "$server" sh -c 'rm -rf /output/*'
  [[ $answer == "201 "* ]]
}

[[ $mode == exec ]] || start_server
cases=()
while IFS= read -r image; do
  case=${image#test/input/}
  case=${case%.ome.tiff}
  cases+=("$case")
  stage "$case" "$image"
  say "== $case"
  code=0
  "run_$mode" "$case" || code=$?
  ((code == 0)) || fail "$case: the container failed with code $code."
done < <(find test/input -regex '.*_\(BF\|PC\|DIC\)_z[0-9]+\.ome\.tiff' | sort)
((${#cases[@]})) || fail "test/input holds no image, expected some of BF, PC and DIC."

if [[ $mode == invoke ]]; then
  say "== an empty image"
  mkdir -p "$work/now/input/images/organelles-transmitted-light-ome-tiff"
  : >"$work/now/input/images/organelles-transmitted-light-ome-tiff/empty.tiff"
  answer=$(ask POST /invoke)
  say "$answer"
  [[ $answer == "500 "*"empty.tiff"* ]] || fail "an empty image was answered by '$answer', expected 500 and its name."
  [[ $(ask GET /health) == "200 ready" ]] || fail "the server did not survive an empty image."
fi
left=$(find "$work/tmp" -mindepth 1 | head -3)
[[ -z $left ]] || fail "the container left files in /tmp: $left"

docker run --rm --network none --volume "$work:/cases:ro" --volume "$PWD/test/expected_output:/expected:ro" \
  "$NAME:check" --cases /cases --expected /expected
say "$mode: all as it should be."
