#!/bin/bash
# What the official entry point does. Its server is built with protected mode off.
set -e
if [ "$1" = valkey-server ]; then
    set -- "$@" --protected-mode no
    if [ "$(id -u)" = 0 ]; then
        exec gosu valkey "$@"
    fi
fi
exec "$@"
