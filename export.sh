#!/usr/bin/env bash
# Write what is uploaded to Grand Challenge: the image, and the weights as a tarball of their own.
#
#   ./export.sh [--mode exec|invoke] [--output DIR] [--model DIR]
#
#   --mode      which image (default: exec); it must have passed ./test.sh and be of the commit that is checked out
#   --output    folder for in-silico-labelling_<mode>_<time>.tar.gz and model.tar.gz (default: dist)
#   --model     folder with routing.json and its checkpoints, for model.tar.gz (default: resources)
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
source container/common.sh

mode='exec' output=dist model=resources
while (($#)); do
  case $1 in
    --mode) mode=${2-}; shift 2 || fail "--mode needs a word, expected exec or invoke." ;;
    --output) output=$(folder_option "$1" "$here" "${2-}"); shift 2 ;;
    --model) model=$(folder_option "$1" "$here" "${2-}"); shift 2 ;;
    -h | --help) show_help "${BASH_SOURCE[0]##*/}"; exit ;;
    *) fail "found '$1', expected --mode, --output, --model or --help." ;;
  esac
done
require_mode "$mode"
[[ -f $model/routing.json ]] || fail "--model: $model has no routing.json, expected it beside its checkpoints."
require_docker
tag=$(tag_of_mode "$mode")
require_image "$tag"

again="run ./build.sh --mode $mode and ./test.sh --mode $mode"
built_from=$(inspect_image "$tag" '{{index .Config.Labels "org.opencontainers.image.revision"}}')
[[ $built_from != *-dirty ]] ||
  fail "the image $tag was built from files that are in no commit ($built_from), expected a commit: commit them and $again."
[[ $built_from == "$(revision)" ]] ||
  fail "the image $tag is of revision ${built_from:-unknown}, expected $(revision), which is here: $again."
id=$(inspect_image "$tag" '{{.Id}}')
[[ $id == "$(cat "$(tested_file "$mode")" 2>/dev/null)" ]] ||
  fail "the image $tag is not one that passed the test, expected ./test.sh --no-build --mode $mode to end well."

# Written beside its place, then renamed: an archive is whole or absent.
mkdir -p "$output" || fail "the folder $output cannot be made."
unfinished=$(mktemp -d "$output/.unfinished.XXXXXX") || fail "nothing can be written to $output."
trap 'end_jobs; wait; rm -rf "$unfinished"' EXIT

# write FILE FUNCTION
write() {
  run "$2" >"$unfinished/file" || fail "$1 could not be written; the lines above say why."
  chmod 644 "$unfinished/file"
  mv "$unfinished/file" "$1"
  printf '%s  %s bytes  sha256 %s\n' "$1" "$(stat -c %s "$1")" "$(sha256sum <"$1" | cut -d' ' -f1)"
}

save_image() { docker save "$tag" | gzip -n; }

# The same bytes from every clone: names in order, and nothing of the files' owner, permissions and times.
pack_model() {
  cd "$model"
  shopt -s nullglob
  LC_ALL=C
  tar -c --format=ustar --sort=name --mtime=@0 --owner=root:0 --group=root:0 --mode=u=rw,go=r -- \
    *.md *.safetensors routing.json | gzip -n
}

write "$output/${NAME}_${mode}_$(date -u +%Y%m%dT%H%M%SZ).tar.gz" save_image
write "$output/model.tar.gz" pack_model
