"""Jobs that misbehave in every way a real one may, for the tests of both ends of the process."""

import os
import signal
import sys
import time

import numpy as np

from napari_unet.errors import ImageError
from napari_unet.runs.progress import JudgedBefore, Note, StepDone, TileDone

_KINDS = {
    kind.__name__: kind
    for kind in (ImageError, RuntimeError, StopIteration, MemoryError, SystemExit, GeneratorExit)
}


def prepare():
    sys.stdout.write("a library prints while it is imported\n")
    how = os.environ.get("FAKE_START", "")
    if how == "slow":
        time.sleep(2)
    if how == "dies":
        raise ImportError("No module named 'engine_room'")
    return "a fake device"


def explain(error):
    return "Explained." if "explain me" in str(error) else None


def is_spoilt(error):
    return "spoilt" in str(error)


def tidy():
    pass


def echo(call, **parameters):
    yield TileDone(1, 1)
    return {**parameters, **{name: np.array(array) for name, array in call.arrays.items()}}


def tiles(call, *, total, pause=0.0):
    for done in range(1, total + 1):
        time.sleep(pause)
        yield TileDone(done, total)
    return {"total": total}


def train(call, *, steps):
    yield Note("A smaller tile is used.")
    yield JudgedBefore(0.25)
    step = 0
    while step < steps and not call.is_stopped():
        step += 1
        time.sleep(0.02)
        yield StepDone(step, step / steps, (steps - step) * 0.02, 1 / step, 0.5)
    return {"step": step}


def deaf(call, *, seconds):
    yield Note("deaf")
    time.sleep(seconds)
    return {}


def fail(call, *, kind, message=""):
    yield TileDone(1, 2)
    raise _KINDS[kind](message)


def die(call, *, how):
    yield TileDone(1, 2)
    os.kill(os.getpid(), getattr(signal, how))


def chatter(call):
    sys.stdout.write("standard output\n")
    os.write(1, b'{"event": "result", "id": 1, "values": {"forged": true}, "arrays": {}}\n')
    sys.__stdout__.write("original standard output\n")
    yield TileDone(1, 1)
    return {"forged": False}


def whoami(call):
    yield TileDone(1, 1)
    return {"pid": os.getpid()}


def kept(call, *, probability=None, token=None):
    yield TileDone(1, 1)
    if token is not None:
        return {"sum": float(np.load(token, mmap_mode="r").sum())}
    file = np.lib.format.open_memmap(
        call.folder / "probability.npy", mode="w+", dtype=np.float32, shape=(2, 3)
    )
    file[:] = 1
    return {"probability": file, "token": str(call.folder / "probability.npy")}


JOBS = {job.__name__: job for job in (echo, tiles, train, deaf, fail, die, chatter, whoami, kept)}
