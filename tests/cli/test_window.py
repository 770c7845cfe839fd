"""``open`` says why no window can open, before Qt ends the process without a word."""

from __future__ import annotations

import sys

import pytest

from napari_unet.cli import doctor, window

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere there is always a screen"
)


def test_open_without_a_screen_says_so(run, monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = run("open")
    assert done.status == 1
    assert "no screen" in done.err


def test_open_names_the_library_that_is_missing(run, monkeypatch) -> None:
    monkeypatch.setenv("DISPLAY", ":99")
    problem = doctor.Check("window", "broken", "libxcb-cursor.so.0 is missing", "install it")
    monkeypatch.setattr(window, "window_problem", lambda: problem)
    done = run("open")
    assert done.status == 1
    assert "libxcb-cursor.so.0 is missing. To mend it: install it" in done.err
