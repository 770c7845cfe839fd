#!/usr/bin/env bash
# Make a virtual environment with this checkout in it, ready to run and to test.
#
#   tools/make_venv.sh FOLDER TORCH [GROUP]
#
# TORCH is what pip is given for torch, e.g. "torch==2.13.0" or
# "torch --index-url https://download.pytorch.org/whl/cpu". It comes first, so that the choice of
# processor is made here and not by a dependency; PYTHON chooses the interpreter. GROUP is the
# dependency group of pyproject.toml that comes along: dev if not given.
set -euo pipefail

venv=$1
torch=$2
group=${3:-dev}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3 python}; do
        if "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python of 3.11 or newer was found. Install one, or name it: make PYTHON=..." >&2
    return 1
}
torch_version() { "$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))'; }
quietly() { "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --quiet "$@"; }

if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version)"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "Making it failed. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "Installing into $venv (several minutes the first time)"
quietly --upgrade pip
quietly $torch # unquoted: it may hold options
before=$(torch_version)
echo "torch==$before" >"$venv/torch.txt" # what comes along has to fit to it
quietly --constraint "$venv/torch.txt" --editable ".[all]" --group "$group"
after=$(torch_version)
if [ "$before" != "$after" ]; then
    echo "Installing the dependencies replaced torch $before by $after." >&2
    echo "Choose a version that fits: make TORCH='torch==...'" >&2
    exit 1
fi
