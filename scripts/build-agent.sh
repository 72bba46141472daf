#!/bin/sh
# Builds the guest agent and the host helper when their sources are newer than
# the binaries. Silent when there is nothing to do. Concurrent callers wait.
set -eu

cd "$(dirname "$0")/../agent"
out=target/release

is_current() {
  for bin in faas-agent faas-hostkit; do
    [ -x "$out/$bin" ] || return 1
    [ -z "$(find src .cargo Cargo.toml Cargo.lock -newer "$out/$bin" -print | head -n 1)" ] || return 1
  done
}

is_current && exit 0

if ! command -v cargo >/dev/null 2>&1; then
  echo "build-agent: cargo was not found; install Rust 1.89 or newer (no crates are needed)" >&2
  exit 1
fi

mkdir -p target
exec 9>target/.build-lock
flock 9
is_current && exit 0

echo "building the guest agent (about 20 s the first time)" >&2
cargo build --release --offline --locked --quiet >&2
# cargo leaves a binary alone when its code did not change; the comparison above goes by time.
touch "$out/faas-agent" "$out/faas-hostkit"
