# shellcheck shell=bash
# What the scripts share. Sourced, not run.

PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
export PATH

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo: $*"
    fi
}

# packages NAME...: installs those Debian or Ubuntu packages that are missing.
packages() {
    local name missing=()
    for name in "$@"; do
        dpkg-query -Wf '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    has apt-get || fail "please install: ${missing[*]}"
    say "installing ${missing[*]}"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# with_engine COMMAND...: runs it so that it reaches the engine. A user with sudo who is not in
# the group docker borrows that group for this one command; nobody's membership is changed.
with_engine() {
    if docker version >/dev/null 2>&1 || [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -u "$(id -un)" -g docker --preserve-env env "PATH=$PATH" "HOME=$HOME" "$@"
    fi
}

# reaches USER FILE: whether that user gets there.
reaches() { as_root setpriv --reuid "$1" --regid "$1" --clear-groups test -x "$2"; }

# engine_paths NAME: where an engine that scripts/engine-up starts has its things.
# shellcheck disable=SC2034 # for who sources this
engine_paths() {
    case $1 in
    docker-userns | docker-tls | docker-rootless | docker-26 | docker-apart) ;;
    podman | podman-rootless | podman-5 | podman-5-rootless | podman-apart) ;;
    *) fail "there is no engine $1; scripts/engine-up lists them" ;;
    esac
    run=/run/sandbox-mcp-engines/$1       # sockets, state, pid and log
    data=/var/lib/sandbox-mcp-engines/$1  # images and containers
    host=unix://$run/engine.sock
    tls=() # variables for its clients
    if [ "$1" = docker-tls ]; then
        host=tcp://127.0.0.1:22376
        tls=(DOCKER_TLS_VERIFY=1 "DOCKER_CERT_PATH=$run")
    fi
    # Whose engine a rootless one is.
    user=${SANDBOX_MCP_ENGINE_USER:-$(id -u)}
    [ "$user" -ne 0 ] || user=${SUDO_UID:-1000}
}
