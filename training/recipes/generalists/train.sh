#!/usr/bin/env bash
# A pix2pix for each modality and the unified UNet++, at the paper's width, for any culture from 10x to 100x: simulated
# specimens, four trainings at once on one GPU, the foreground branch, and the folder of checkpoints.
#
#   training/recipes/generalists/train.sh OUTPUT [MINUTES [FIELDS [options of train.py …]]]
#
# MINUTES (20) are those of the trainings; the rest takes about half as many again. The same command goes on where it
# was stopped. OUTPUT/resources is for `inference.py --resources`; logs and unfinished parts lie beside it.
set -euo pipefail
output=$(realpath -m "${1:?expected OUTPUT [MINUTES [FIELDS [options of train.py …]]]}")
minutes=${2:-20} fields=${3:-600}
shift $(($# < 3 ? $# : 3))
cd "$(dirname "$0")/../../.."
python=${PYTHON:-.venv/bin/python}
recipes=training/recipes
networks=(pix2pix_bf pix2pix_pc pix2pix_dic unetplusplus)
mkdir -p "$output"

whole() { # NAME COMMAND…: a folder that is there is whole
  [ -e "$output/$1" ] && return
  rm -rf "$output/$1.part"
  "${@:2}" --output "$output/$1.part"
  mv "$output/$1.part" "$output/$1"
}

whole cells "$python" simulate.py --specimens --setting mixed --fields "$fields" --seed 60001
whole empty "$python" simulate.py --specimens --setting empty --fields $(((fields + 3) / 4)) --seed 60002
whole held_out "$python" simulate.py --setting mixed --fields $((fields < 16 ? fields : 16)) --seed 60003 --planes 1

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
declare -A running
for network in "${networks[@]}"; do
  case $network in
    unetplusplus) given=(--modality all) ;;
    *) given=(--modality "$(tr a-z A-Z <<<"${network#pix2pix_}")" --upsampling resize) ;;
  esac
  configs=("$recipes/${network%%_*}.toml" "$recipes/generalists/any_culture.toml" "$recipes/appearance.toml")
  "$python" train.py --config "${configs[@]}" "${given[@]}" --specimens "$output/cells" --data "$output/held_out" --max-minutes "$minutes" \
    --output "$output/$network" --resume "$@" >>"$output/$network.log" 2>&1 &
  running[$network]=$!
done
for network in "${networks[@]}"; do
  wait "${running[$network]}" || { echo "$output/$network.log: $(tail -n 1 "$output/$network.log")" >&2; exit 1; }
done

mkdir -p "$output/dishes" "$output/checkpoints"
for kind in cells empty; do
  for specimen in "$output/$kind"/specimen_*; do
    ln -f "$specimen" "$output/dishes/specimen_${kind}_${specimen##*specimen_}"
  done
done
for network in "${networks[@]}"; do
  cp "$output/$network/last.safetensors" "$output/checkpoints/$network.safetensors"
done
whole faded "$python" -m training.foreground --checkpoint "$output"/checkpoints/*.safetensors \
  --specimens "$output/dishes" --minutes "$(awk "BEGIN {print $minutes / 4}")" --kept-from 0.05
averages=()
for modality in BF PC DIC; do
  averages+=(--average "$modality" "pix2pix-${modality,,}" unetplusplus)
done
"$python" -m training.release --output "$output/resources" "${averages[@]}" \
  --bf "$output/faded/pix2pix_bf.safetensors" --pc "$output/faded/pix2pix_pc.safetensors" \
  --dic "$output/faded/pix2pix_dic.safetensors" --unified "$output/faded/unetplusplus.safetensors"
