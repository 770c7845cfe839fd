"""Hostile files are opened by a process that watches itself: memory, files, calls."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.models.hostile_files import HOSTILE, MARK

MOST_BYTES = 10**9
MOST_SECONDS = 20  # half of that on a computer that does nothing else

CHILD = """
import json, resource, sys
import napari_unet.models.opening as opening
from napari_unet.errors import ModelError
for reader in ("pytorch", "torchscript", "onnx", "keras", "bioimageio"):
    __import__(f"napari_unet.models.{reader}")

seen = []
own = ("pickle.find_class", "os.system", "os.exec", "os.spawn", "socket.connect", "os.rename",
       "webbrowser.open", "marshal.loads", "exec", "ctypes.dlopen")

def watch(event, arguments):
    if event in own and not (event in ("exec", "marshal.loads") and importing()):
        seen.append(f"{event} {arguments!r:.100}")
    if event == "subprocess.Popen" and arguments[0] != sys.executable:
        seen.append(f"{event} {arguments!r:.100}")
    if event == "open" and isinstance(arguments[0], str):
        path, mode = arguments[0], arguments[1] or "r"
        if "passwd" in path or (any(c in mode for c in "wax+") and not path.startswith("/tmp/")):
            seen.append(f"open {path} {mode}")

def importing():
    frame = sys._getframe(2)
    while frame is not None:
        if "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False

sys.addaudithook(watch)
for line in sys.stdin:
    path, seen[:] = line.strip(), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    try:
        opening.open_weights(path)
        said = None
    except ModelError as error:
        said = str(error)
    except BaseException as error:
        said = f"CRASH {type(error).__name__}: {error}"
    after = max(resource.getrusage(who).ru_maxrss * 1024
                for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps([said, after - before, seen]), flush=True)
"""


class Watched:
    """A process that opens files and tells what came of it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def open(self, path: Path) -> tuple[str | None, int, list[str]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that opened it has died"
        said, more, seen = json.loads(answer)
        return said, more, seen


@pytest.fixture(scope="module")
def watched():
    watched = Watched()
    yield watched
    assert watched.process.stdin is not None
    watched.process.stdin.close()
    watched.process.stdout.close()
    watched.process.wait(10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="pipes and links in place of files")
@pytest.mark.timeout(30)  # what hangs fails; alone, each takes less than a second
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_without_harm(name, watched, tmp_path):
    path = HOSTILE[name](tmp_path)
    before = {p: p.stat(follow_symlinks=False).st_size for p in tmp_path.rglob("*")}
    began = time.monotonic()
    said, more, seen = watched.open(path)
    assert time.monotonic() - began < MOST_SECONDS
    assert said, "it was opened"
    assert not said.startswith("CRASH"), said
    assert said.endswith((".", "?", ")")), said
    assert not seen, seen
    assert more < MOST_BYTES
    assert not (tmp_path / MARK).exists()
    assert not Path("/tmp/napari_unet_FIRED").exists()
    assert {p: p.stat(follow_symlinks=False).st_size for p in tmp_path.rglob("*")} == before
