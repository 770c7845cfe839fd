"""``doctor``: is everything there that is needed, and which line mends what is not.

What could crash (Qt without its libraries, OpenGL without a driver) is tried in a process of
its own.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from napari_unet.errors import ModelError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from napari_unet.cli.output import Console

DISTRIBUTION = "napari-unet-interactive"
CLASHING = "napari-unet"
BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
OLDEST_PYTHON = (3, 11)
OLDEST_NAPARI = (0, 7)
OLDEST_TORCH = (2, 4)
PATIENCE_S = 90
LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-shape.so.0": "libxcb-shape0",
}
"""What Qt needs of a Linux that may not have it, and the package of Debian and Ubuntu it is in."""

_MISSING = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
_NO_PLUGIN = re.compile(r'Could not (?:load|find) the Qt platform plugin "([^"]*)"')

_TRY_LIBRARIES = """
import ctypes, sys
for name in sys.argv[1:]:
    try:
        ctypes.CDLL(name)
    except OSError as error:
        print(error, file=sys.stderr)
"""
_TRY_QT = """
from qtpy import API_NAME, QT_VERSION
from qtpy.QtWidgets import QApplication
application = QApplication([])
print(API_NAME, QT_VERSION, "on", application.platformName())
"""
_TRY_OPENGL = """
from qtpy.QtGui import QOffscreenSurface, QOpenGLContext
from qtpy.QtWidgets import QApplication
application = QApplication([])
context, surface = QOpenGLContext(), QOffscreenSurface()
surface.create()
if not context.create() or not context.makeCurrent(surface):
    raise SystemExit("no OpenGL context could be made")
from OpenGL import GL
print(GL.glGetString(GL.GL_VERSION).decode(), "on", GL.glGetString(GL.GL_RENDERER).decode())
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    ``state`` is "ok", "note" (works, but worth knowing) or "broken"; ``mend`` is the line or
    the step that mends it.
    """

    name: str
    state: Literal["ok", "note", "broken"]
    found: str
    mend: str | None = None


def run_doctor(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Look at everything; what is broken makes the exit status 1."""
    checks = []
    for look in LOOKS:
        for check in look():
            checks.append(check)
            _show(check, console)
    broken = [check.name for check in checks if check.state == "broken"]
    if broken:
        console.problem(f"Not in order: {', '.join(broken)}.")
    else:
        console.say("\nEverything that is needed is there.")
    return {"ok": not broken, "checks": [vars(check) for check in checks]}


def check_python() -> Iterator[Check]:
    """Look at Python and at our own package."""
    version = platform.python_version()
    is_new = sys.version_info[:2] >= OLDEST_PYTHON
    yield Check(
        "Python",
        "ok" if is_new else "broken",
        f"{version}, {sys.executable}",
        None if is_new else f"Install Python {_dotted(OLDEST_PYTHON)} or newer.",
    )
    own = _version(DISTRIBUTION)
    if own is None:
        yield Check("plugin", "broken", "not installed", _pip(f'install "{DISTRIBUTION}[all]"'))
    else:
        yield Check("plugin", "ok", f"{DISTRIBUTION} {own}, {platform.platform()}")


def check_clash() -> Iterator[Check]:
    """Look for the other package that writes into the same folder."""
    other = _version(CLASHING)
    if other is not None:
        again = _pip(f"install --force-reinstall --no-deps {DISTRIBUTION}")
        yield Check(
            "clash",
            "broken",
            f"{CLASHING} {other} is another group's package; it has the same folder, napari_unet",
            f"{_pip(f'uninstall --yes {CLASHING}')} && {again}",
        )


def check_torch() -> Iterator[Check]:
    """Look at torch and at the processor it computes on."""
    try:
        import torch

        from napari_unet.network.devices import choose_device, describe_device, device_problem
    except (ImportError, OSError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Check("torch", "broken", first_line, _pip("install --force-reinstall torch"))
        return
    version = str(torch.__version__)
    yield _not_older("torch", version, OLDEST_TORCH, _pip("install --upgrade torch"))
    yield Check("computes on", "ok", describe_device(choose_device("auto")))
    problem = device_problem()
    if problem is not None:
        what, _, mend = problem.partition(" Mend it by: ")
        yield Check("GPU", "note", what, mend or None)


def check_napari() -> Iterator[Check]:
    """Look at napari."""
    version = _version("napari")
    if version is None:
        yield Check("napari", "broken", "not installed", _pip('install "napari[all]"'))
    else:
        yield _not_older("napari", version, OLDEST_NAPARI, _pip("install --upgrade napari"))


def check_qt() -> Iterator[Check]:
    """Look at the Qt binding: is there one, is it one, does it start, does it reach the screen."""
    bindings = _bindings()
    if not bindings:
        yield Check("Qt", "broken", "no Qt binding", _pip('install "napari[all]"'))
        return
    if len(bindings) > 1:
        found = f"{' and '.join(bindings)} are both installed; they can get in each other's way"
        yield Check("Qt bindings", "note", found, _pip(f"uninstall {bindings[-1]}"))
    tried = _try(_TRY_QT, QT_QPA_PLATFORM="offscreen")
    if not tried.is_well:
        yield _broken_qt("Qt", tried, bindings[0])
        return
    yield Check("Qt", "ok", tried.said)
    if has_screen():
        yield from _check_window(bindings[0])
    else:
        mend = "Use a desktop session, or: xvfb-run napari-unet open"
        yield Check("screen", "note", "none here: windows cannot open, commands work", mend)


def _check_window(binding: str) -> Iterator[Check]:
    """Try to reach the screen the way a window would, and OpenGL on it."""
    # Without a platform of its own choice Qt takes what a window would: xcb, wayland ...
    tried = _try(_TRY_QT)
    if not tried.is_well:
        yield _broken_qt("window", tried, binding)
        return
    yield Check("window", "ok", tried.said)
    tried = _try(_TRY_OPENGL)
    if tried.is_well:
        yield Check("OpenGL", "ok", tried.said)
    elif "ModuleNotFoundError" in tried.said:
        yield Check("OpenGL", "broken", tried.said, _pip('install "napari[all]"'))
    else:
        mend = "Install the newest driver of the graphics card."
        yield Check("OpenGL", "broken", tried.said, mend)


def check_models() -> Iterator[Check]:
    """Look at the models: the bundled one, and damaged files."""
    from napari_unet.models import library, own_file

    try:
        path = library.find_model("nuclei")
        own_file.read_card(path)
        yield Check("bundled model", "ok", str(path))
    except ModelError as error:
        mend = _pip(f"install --force-reinstall --no-deps {DISTRIBUTION}")
        yield Check("bundled model", "broken", str(error), mend)
    for path, reason in library.list_damaged():
        yield Check("model file", "note", reason, f"Delete or replace {path}")


LOOKS: tuple[Callable[[], Iterator[Check]], ...] = (
    check_python,
    check_clash,
    check_torch,
    check_napari,
    check_qt,
    check_models,
)


def window_problem() -> Check | None:
    """Say why no window can open on this Linux; elsewhere Qt brings all it needs."""
    if sys.platform != "linux":
        return None
    tried = _try(_TRY_QT)
    return None if tried.is_well else _broken_qt("window", tried, _bindings()[0])


def has_screen() -> bool:
    """Say if a window could open; only Linux tells."""
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _show(check: Check, console: Console) -> None:
    """Write one check."""
    mark = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}[check.state]
    console.say(f"{mark}  {check.name}: {check.found}")
    if check.mend is not None:
        console.say(f"        -> {check.mend}")


def _not_older(name: str, version: str, oldest: tuple[int, int], mend: str) -> Check:
    """Compare a version with the oldest that works."""
    numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])
    if numbers >= oldest:
        return Check(name, "ok", version)
    return Check(name, "broken", f"{version}; {_dotted(oldest)} or newer is needed", mend)


def _version(distribution: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _bindings() -> list[str]:
    """Name the Qt bindings that are installed."""
    return [name for name in BINDINGS if find_spec(name) is not None]


@dataclass(frozen=True)
class _Tried:
    """How code in a process of its own ended: its last line, and all it wrote as errors."""

    is_well: bool
    said: str
    errors: str = ""


def _try(code: str, *arguments: str, **environment: str) -> _Tried:
    """Run code in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Tried(False, f"no answer within {PATIENCE_S} s")
    is_well = done.returncode == 0
    lines = [line.strip() for line in (done.stdout if is_well else done.stderr).splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return _Tried(is_well, last or f"ended with status {done.returncode}", done.stderr)


def _broken_qt(name: str, tried: _Tried, binding: str) -> Check:
    """Say why Qt does not start, and what mends it."""
    missing = _missing_libraries(tried) if sys.platform == "linux" else []
    if missing:
        be = "are" if len(missing) > 1 else "is"
        return Check(name, "broken", f"{', '.join(missing)} {be} missing", _install(missing))
    if name == "window" and "platform plugin" in tried.errors:
        return Check(name, "broken", *_unreachable_screen(tried))
    return Check(name, "broken", tried.said, _pip(f"install --force-reinstall {binding}"))


def _unreachable_screen(tried: _Tried) -> tuple[str, str]:
    """Say why a Qt that is whole does not reach the screen, and what mends it."""
    chosen = os.environ.get("QT_QPA_PLATFORM")
    if chosen:
        return f"Qt cannot use the platform {chosen!r}", "unset QT_QPA_PLATFORM"
    names = ("DISPLAY", "WAYLAND_DISPLAY")
    where = " and ".join(f"{name}={os.environ[name]}" for name in names if os.environ.get(name))
    plugins = ", ".join(dict.fromkeys(_NO_PLUGIN.findall(tried.errors)))
    found = f"no screen answers at {where or 'this desktop'} (tried: {plugins or 'all'})"
    return found, "Use a desktop session, or: xvfb-run napari-unet open"


def _missing_libraries(tried: _Tried) -> list[str]:
    """Name the libraries that Qt did not find; the system's loader stops at the first."""
    said = f"{tried.errors}\n{tried.said}"
    if ".so" not in said and "plugin" not in said:
        return []
    others = _try(_TRY_LIBRARIES, *LIBRARIES)
    return sorted({*_MISSING.findall(said), *_MISSING.findall(others.errors)})


def _install(libraries: list[str]) -> str:
    """Return the line that installs libraries of the system."""
    packages = [LIBRARIES.get(name) for name in libraries]
    known = [package for package in packages if package is not None]
    if shutil.which("apt-get") and len(known) == len(libraries):
        return f"sudo apt-get install --yes --no-install-recommends {' '.join(known)}"
    return f"Install the system's packages that hold {', '.join(libraries)}."


def _pip(arguments: str) -> str:
    """Return the line that calls this Python's pip."""
    return f"{sys.executable} -m pip {arguments}"


def _dotted(version: tuple[int, int]) -> str:
    """Write a version."""
    return ".".join(map(str, version))
