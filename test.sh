#!/usr/bin/env bash
# Build the container, run it on test/input as the platform would, and check what comes out.
#
#   ./test.sh [--mode exec|invoke] [--no-build] [--model DIR] [-- OPTION...]
#
#   --mode        exec: one container a case (default); invoke: one container, asked over HTTP
#   --no-build    test the image that is there
#   --model DIR   with these weights at /opt/ml/model, where the platform unpacks model.tar.gz
#   -- OPTION...  with these options of inference.py, such as -- --preset fast
#
# Each image of test/input is put where the platform puts it, under a name that tells nothing. The container has no
# network, no capability, a read-only root and another user's id than its own. Every output is imported by the
# platform's importer (panimg); shape, type and provenance are checked, and the pixels compared with
# test/expected_output, but for --model and options, which make other pixels. Exit code 0: all is as it should be.
# DOCKER_BUILD_OPTIONS and BASE_IMAGE are passed on to ./build.sh.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
source container/common.sh
umask 022 # the container's user must be able to read what is prepared here

mode='exec' build=yes model='' options=()
while (($#)); do
  case $1 in
    --mode) mode=${2-}; shift 2 || fail "--mode needs a word, expected exec or invoke." ;;
    --no-build) build=no; shift ;;
    --model) model=$(folder_option "$1" "$here" "${2-}"); shift 2 ;;
    --) shift; options=("$@"); break ;;
    -h | --help) show_help "${BASH_SOURCE[0]##*/}"; exit ;;
    *) fail "found '$1', expected --mode, --no-build, --model, --help, or options of inference.py after --." ;;
  esac
done
require_mode "$mode"
[[ -z $model || -d $model ]] || fail "--model: $model is not there, expected a folder with routing.json and its checkpoints."
require_docker
tag=$(tag_of_mode "$mode")
[[ $build == no ]] || run ./build.sh --mode "$mode"
require_image "$tag"
read -ra more <<<"${DOCKER_BUILD_OPTIONS-}"
run docker build "${more[@]}" --quiet --force-rm --build-arg "IMAGE=$tag" --file container/check.Dockerfile --tag "$NAME:check" . >/dev/null

work=$(mktemp -d)
label=$NAME.test=$$ # of every container that is started here
remove_containers() { # some may go by themselves meanwhile
  docker ps --all --quiet --filter "label=$label" | xargs -r docker rm --force >/dev/null 2>&1 || true
}
clean_up() {
  end_jobs
  remove_containers
  wait
  remove_containers # one that was just being started
  rm -rf "$work"
}
trap clean_up EXIT
chmod 755 "$work"

gpu=()
if docker info --format '{{json .Runtimes}}' | grep -q nvidia; then gpu=(--gpus all); fi
# Nobody's user id: the image must not depend on who runs it.
container=("${RESTRICTIONS[@]}" --label "$label" --user 12345:12345 "${gpu[@]}")

# What passes is noted for export.sh if it ran as the platform runs it: without options but those in the ENTRYPOINT.
compare=yes note=yes routing=/opt/app/resources/routing.json
if [[ -n $model ]]; then
  compare=no note=no routing=/cases/model/routing.json
  cp -rL "$model" "$work/model" || fail "--model: $model cannot be read."
  chmod -R a+rX "$work/model"
  container+=(--volume "$work/model:/opt/ml/model:ro")
fi
if ((${#options[@]})); then
  compare=no
  if [[ $(inspect_image "$tag" '{{join .Config.Entrypoint " "}}') == *" ${options[*]}" ]]; then
    options=()
  else
    note=no
  fi
fi

# Lay out one case as the platform does: stage CASE IMAGE
stage() {
  local id socket=organelles-transmitted-light-ome-tiff
  id=$(cat /proc/sys/kernel/random/uuid)
  mkdir -p "$work/$1/input/images/$socket"
  install -m 644 "$2" "$work/$1/input/images/$socket/$id.tiff"
  printf '[{"socket": {"slug": "%s", "relative_path": "images/%s"}, "image": {"pk": "%s", "name": "%s"}}]\n' \
    "$socket" "$socket" "$id" "${2##*/}" >"$work/$1/input/inputs.json"
  open_folder "$work/$1/output"
}

open_folder() { mkdir -p "$1" && chmod 777 "$1"; }

# Run one container for one case: run_exec CASE
run_exec() {
  open_folder "$work/tmp"
  run docker run --rm "${container[@]}" \
    --volume "$work/$1/input:/input:ro" --volume "$work/$1/output:/output" --volume "$work/tmp:/tmp" \
    "$tag" "${options[@]}"
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
  server=$(docker run --detach "${container[@]}" \
    --volume "$work/now/input:/input:ro" --volume "$work/now/output:/output" --volume "$work/tmp:/tmp" \
    "$tag" "${options[@]}")
  local second
  for ((second = 0; second < 300; second++)); do
    [[ $(ask GET /health 2>/dev/null) != "200 ready" ]] || return 0
    [[ $(docker ps --quiet --no-trunc --filter "label=$label") == "$server" ]] || break
    sleep 1
  done
  docker logs "$server" >&2
  fail "the server was not ready after $second s."
}

# Ask the running container for one case: run_invoke CASE
run_invoke() {
  cp -r "$work/$1/input/." "$work/now/input"
  local answer
  run ask POST /invoke >"$work/answer"
  answer=$(<"$work/answer")
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

cp -r test/expected_output "$work/expected"
chmod -R a+rX "$work/expected"
check=(--cases /cases --expected /cases/expected --routing "$routing")
[[ $compare == yes ]] || check+=(--no-pixels)
run docker run --rm --network none --label "$label" --volume "$work:/cases:ro" "$NAME:check" "${check[@]}"

if [[ $note == yes ]]; then
  mkdir -p dist
  inspect_image "$tag" '{{.Id}}' >"$(tested_file "$mode")"
fi
what="all as it should be"
[[ $compare == yes ]] || what+=", pixels not compared"
[[ $note == yes ]] || what+="; not noted for ./export.sh, which asks for the image as the platform starts it"
say "$mode: $what."
