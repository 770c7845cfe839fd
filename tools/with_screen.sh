#!/usr/bin/env bash
# Run a command with a screen: the one there is, or a virtual one (Xvfb).
set -eu
if [ "$(uname -s)" != Linux ] || [ -n "${DISPLAY:-}" ] || [ -n "${WAYLAND_DISPLAY:-}" ]; then
    exec "$@"
fi
if ! command -v xvfb-run >/dev/null || ! command -v xauth >/dev/null; then
    echo "There is no screen here and no Xvfb. Please run: sudo apt-get install xvfb xauth" >&2
    exit 1
fi
exec xvfb-run -a -s "-screen 0 1600x1000x24" "$@"
