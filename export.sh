#!/usr/bin/env bash
# Write what is uploaded to Grand Challenge: the image, and the weights as a tarball of their own.
#
#   ./export.sh [--mode exec|invoke] [--output DIR]
#
#   --mode      which image (default: exec); ./build.sh must have made it
#   --output    folder for in-silico-labelling_<mode>_<time>.tar.gz and model.tar.gz (default: dist)
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
source container/common.sh

mode=exec output=dist
while (($#)); do
  case $1 in
    --mode) mode=${2-}; shift 2 || fail "--mode needs a word, expected exec or invoke." ;;
    --output) output=$(cd "$here" && realpath -m -- "${2-}") && shift 2 || fail "--output needs a folder." ;;
    -h | --help) show_help "${BASH_SOURCE[0]##*/}"; exit ;;
    *) fail "found '$1', expected --mode, --output or --help." ;;
  esac
done
require_mode "$mode"
require_docker
tag=$(tag_of_mode "$mode")
require_image "$tag"
mkdir -p "$output" || fail "the folder $output cannot be made."

# Written beside its place, then renamed: an archive is whole or absent.
unfinished=$(mktemp "$output/.unfinished.XXXXXX") || fail "nothing can be written to $output."
trap 'rm -f "$unfinished"' EXIT

image="$output/${NAME}_${mode}_$(date -u +%Y%m%dT%H%M%SZ).tar.gz"
docker save "$tag" | gzip -c >"$unfinished" || fail "$image could not be written; is the disk full?"
mv "$unfinished" "$image"
tar -czf "$unfinished" -C resources . || fail "$output/model.tar.gz could not be written; is the disk full?"
mv "$unfinished" "$output/model.tar.gz"
chmod 644 "$image" "$output/model.tar.gz"

for file in "$image" "$output/model.tar.gz"; do
  printf '%s  %s bytes  sha256 %s\n' "$file" "$(stat -c %s "$file")" "$(sha256sum <"$file" | cut -d' ' -f1)"
done
