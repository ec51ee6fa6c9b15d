#!/bin/sh
# Makes `cargo xtask` runnable on a machine that has only rustup: a linker and the toolchain of rust-toolchain.toml.
# Everything else is done by `cargo xtask setup`. Safe to repeat; does nothing, quickly, when all is there.
set -eu
cd "$(dirname "$0")/.."

value() { sed -n "s/^$1 *= *//p" rust-toolchain.toml | tr -d '"[],'; }
toolchain=$(value channel)
components=$(value components)
targets=$(value targets)

if ! command -v rustup >/dev/null; then
    echo "missing: rustup (install it, then run this again)" >&2
    exit 1
fi

if ! command -v cc >/dev/null || ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then
    echo "install a C compiler for linking: gcc libc6-dev ..."
    if [ "$(id -u)" != 0 ]; then
        echo "missing: a C compiler, and installing gcc needs root" >&2
        exit 1
    fi
    if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
        gcc libc6-dev; } >/dev/null; then
        echo "missing: a C compiler, and the Debian package gcc could not be installed" >&2
        exit 1
    fi
fi

complete() {
    rustup toolchain list | grep -q "^$toolchain-" || return 1
    there=$(rustup component list --installed --toolchain "$toolchain" 2>/dev/null) || return 1
    for part in $components; do
        echo "$there" | grep -q "^$part" || return 1
    done
    for target in $targets; do
        echo "$there" | grep -q "^rust-std-$target$" || return 1
    done
}

if ! complete; then
    echo "install Rust $toolchain ..."
    started=$(date +%s)
    set -- toolchain install "$toolchain" --profile minimal --no-self-update
    for part in $components; do set -- "$@" --component "$part"; done
    for target in $targets; do set -- "$@" --target "$target"; done
    if ! log=$(rustup "$@" 2>&1); then
        echo "$log" | tail -n 30 >&2
        echo "missing: Rust $toolchain with $components and $targets, and rustup could not install it" >&2
        exit 1
    fi
    echo "install Rust $toolchain: done after $(($(date +%s) - started)) s"
fi
