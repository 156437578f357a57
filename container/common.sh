# What build.sh, test.sh and export.sh share; sourced by them, in the project's folder.

NAME=in-silico-labelling

# As the platform and its local test scripts run a container, and harder: nothing but /output and /tmp can be written.
RESTRICTIONS=(
  --platform=linux/amd64 --network none --read-only --cap-drop ALL --security-opt no-new-privileges
  --pids-limit 256 --shm-size 128m --memory 15g --memory-swap 15g
)

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# The comment at the top of the script is its help.
show_help() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
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

require_image() {
  docker image inspect "$1" >/dev/null 2>&1 || fail "the image $1 is not there, expected ./build.sh to have made it."
}
