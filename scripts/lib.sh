# What the scripts share. Sourced, never run.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root: directly, or by sudo where there is one.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "this needs root: $* (become root, or install sudo)"; fi
}

# Installs the Debian packages that provide the missing ones of "command:package" pairs.
need() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "missing and no apt-get to install it with: ${missing[*]}"
  say "installing ${missing[*]}"
  as_root apt-get -q update >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# rustup's own place, for shells that have not read it yet.
PATH="$PATH:$HOME/.cargo/bin"
need_rust() {
  command -v cargo >/dev/null || die "Rust is missing: install it from https://rustup.rs and run this again"
  # Rust links with the system's C compiler.
  need cc:build-essential
}
