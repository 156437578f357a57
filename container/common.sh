# What build.sh, test.sh and export.sh share; sourced by them, in the project's folder.
# shellcheck shell=bash

NAME=in-silico-labelling

# As the platform and its local test scripts run a container, and harder: nothing but /output and /tmp can be written.
# shellcheck disable=SC2034  # test.sh uses them
RESTRICTIONS=(
  --platform=linux/amd64 --network none --read-only --cap-drop ALL --security-opt no-new-privileges
  --pids-limit 256 --shm-size 128m --memory 15g --memory-swap 15g
)

say() { printf '%s\n' "$*"; }

complain() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
  complain "$*"
  exit 1
}

# bash obeys a signal only after the command in the foreground, which may be minutes later. So what takes long is a job
# in the background, with a process group of its own, and ends with the script: run COMMAND
run() {
  set -m
  "$@" &
  set +m
  wait $!
}

end_jobs() {
  local job
  for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done
}

interrupted() {
  trap '' HUP INT TERM # once is enough
  complain "interrupted."
  exit "$1"
}
trap 'interrupted 129' HUP
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'end_jobs; wait' EXIT

# The comment at the top of the script is its help.
show_help() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

# A folder as an option names it, from where the script was called: folder_option OPTION CALLED_FROM DIR
folder_option() {
  [[ -n $3 ]] || fail "$1 needs a folder."
  cd "$2" && realpath -m -- "$3"
}

require_docker() {
  command -v docker >/dev/null ||
    fail "Docker is not installed, expected the docker command; see https://docs.docker.com/engine/install."
  docker info >/dev/null 2>&1 ||
    fail "Docker is installed but does not answer, expected a running engine that this user may use; 'docker info' says why."
}

require_mode() {
  [[ $1 == exec || $1 == invoke ]] || fail "--mode is '$1', expected exec or invoke."
}

# exec is what the platform expects without further words, so it has the plain name.
tag_of_mode() {
  if [[ $1 == exec ]]; then say "$NAME:latest"; else say "$NAME:$1"; fi
}

# Where test.sh notes the id of the image that passed, for export.sh.
tested_file() { say "dist/tested_$1"; }

inspect_image() { docker image inspect --format "$2" "$1" 2>/dev/null; }

require_image() {
  local platform
  platform=$(inspect_image "$1" '{{.Os}}/{{.Architecture}}') ||
    fail "the image $1 is not there, expected ./build.sh to have made it."
  [[ $platform == linux/amd64 ]] ||
    fail "the image $1 is for $platform, expected linux/amd64, which ./build.sh makes from a base for linux/amd64."
}

# The commit that is built, and whether a file that goes into the image differs from it.
revision() {
  local head inputs
  head=$(git rev-parse HEAD 2>/dev/null) || head=unknown
  mapfile -t inputs < <(sed -n 's/^!//p' .dockerignore)
  [[ -z $(git status --porcelain -- Dockerfile "${inputs[@]}" 2>/dev/null) ]] || head+=-dirty
  say "$head"
}
