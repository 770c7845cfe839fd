#!/usr/bin/env bash
# Install the system libraries that Qt and a screenless window need (Debian, Ubuntu), or say
# which line installs them. Never fails: a machine without a screen still runs the demo.
set -u

[ "$(uname -s)" = Linux ] || exit 0

libraries=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null)
missing=()

need_library() { # soname package [newer name of the package]
    grep -qF "$1" <<<"$libraries" && return
    local package=$2
    if [ -n "${3:-}" ] && apt-cache show "$3" >/dev/null 2>&1; then package=$3; fi
    missing+=("$package")
}
need_command() { # command package
    command -v "$1" >/dev/null || missing+=("$2")
}

need_command Xvfb xvfb
need_command xauth xauth
need_library libGL.so.1 libgl1
need_library libEGL.so.1 libegl1
need_library libfontconfig.so.1 libfontconfig1
need_library libglib-2.0.so.0 libglib2.0-0 libglib2.0-0t64
need_library libdbus-1.so.3 libdbus-1-3
need_library libxkbcommon-x11.so.0 libxkbcommon-x11-0
need_library libxcb-cursor.so.0 libxcb-cursor0
need_library libxcb-icccm.so.4 libxcb-icccm4
need_library libxcb-keysyms.so.1 libxcb-keysyms1
need_library libxcb-shape.so.0 libxcb-shape0
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

[ ${#missing[@]} -eq 0 ] && exit 0

line="apt-get install --yes --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
    echo "Missing system packages (Debian's names; install what they are called here): ${missing[*]}" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    echo "Missing system packages. Please run: sudo $line" >&2
    exit 0
fi
echo "Installing system packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" $line -qq; } >/dev/null; then
    echo "That did not work. Please run: sudo $line" >&2
fi
exit 0
