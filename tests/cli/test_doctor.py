"""The doctor finds what is broken and names the line that mends it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from napari_unet.cli import doctor
from napari_unet.errors import ModelError
from napari_unet.models import library

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what depends on this machine: the window, and the bundled model's file."""
    monkeypatch.setattr(doctor, "LOOKS", (doctor.check_python, doctor.check_napari))


def only(look) -> doctor.Check:
    (check,) = list(look())
    return check


def test_a_healthy_installation_ends_with_0(run, healthy) -> None:
    done = run("doctor")
    assert done.status == 0
    assert "Everything that is needed is there" in done.out
    assert run("doctor", "--json").json["ok"] is True


def test_one_broken_thing_makes_the_status_1(run, monkeypatch) -> None:
    broken = doctor.Check("spoon", "broken", "bent", "straighten --it")
    monkeypatch.setattr(doctor, "LOOKS", (doctor.check_python, lambda: iter([broken])))
    done = run("doctor")
    assert done.status == 1
    assert "BROKEN  spoon: bent" in done.out
    assert "-> straighten --it" in done.out
    assert done.err == "napari-unet: Not in order: spoon.\n"
    found = run("doctor", "--json")
    assert found.json["ok"] is False
    assert found.json["checks"][-1]["mend"] == "straighten --it"


def test_the_package_that_shares_our_folder_is_found(monkeypatch) -> None:
    assert list(doctor.check_clash()) == []
    real = doctor.metadata.version
    versions = {doctor.CLASHING: "0.3.1"}
    monkeypatch.setattr(doctor.metadata, "version", lambda name: versions.get(name) or real(name))
    check = only(doctor.check_clash)
    assert check.state == "broken"
    assert check.mend is not None
    assert "pip uninstall --yes napari-unet &&" in check.mend
    assert check.mend.endswith("--no-deps napari-unet-interactive")


@pytest.mark.parametrize(
    ("version", "state"),
    [("0.6.6", "broken"), ("0.7.0", "ok"), ("0.10.1", "ok"), ("1.0.0rc1", "ok")],
)
def test_an_old_napari_is_told(monkeypatch, version: str, state: str) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda _: version)
    assert only(doctor.check_napari).state == state


def test_a_torch_that_cannot_be_imported_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    check = only(doctor.check_torch)
    assert (check.name, check.state) == ("torch", "broken")
    assert check.mend is not None
    assert check.mend.endswith("install --force-reinstall torch")


def test_without_a_gpu_the_reason_is_a_note(monkeypatch) -> None:
    reason = "the build for CPUs is installed. Mend it by: pip install torch --index-url X"
    monkeypatch.setattr("napari_unet.network.devices.device_problem", lambda: reason)
    checks = {check.name: check for check in doctor.check_torch()}
    assert checks["torch"].state == "ok"
    assert checks["GPU"].state == "note"
    assert checks["GPU"].mend == "pip install torch --index-url X"


def test_without_a_qt_binding_the_install_line_is_named(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "BINDINGS", ("NoSuchBinding",))
    check = only(doctor.check_qt)
    assert check.state == "broken"
    assert '"napari[all]"' in (check.mend or "")


def test_two_qt_bindings_are_noted(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "BINDINGS", ("json", "csv"))
    monkeypatch.setattr(doctor, "_try", lambda *_, **__: doctor._Tried(True, "Qt 6"))
    note, qt, *_ = doctor.check_qt()
    assert (note.state, qt.state) == ("note", "ok")
    assert "json and csv" in note.found


def test_a_qt_that_crashes_does_not_take_the_doctor_along(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "BINDINGS", ("json",))
    monkeypatch.setattr(doctor, "_TRY_QT", "import os, signal; os.kill(os.getpid(), 9)")
    assert only(doctor.check_qt).state == "broken"
    message = "ImportError: libEGL.so.1: cannot open shared object file"
    monkeypatch.setattr(doctor, "_TRY_QT", f"raise SystemExit({message!r})")
    check = only(doctor.check_qt)
    if sys.platform == "linux":
        assert "libEGL.so.1" in check.found
        assert "libegl" in (check.mend or "").lower()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch):
    """Return what stands for a screen on which Qt ends with these errors; offscreen it works."""

    def stand_in(errors: str = "", opengl: str = "") -> None:
        def answer(code: str, *_: str, **environment: str) -> doctor._Tried:
            if code == doctor._TRY_LIBRARIES:
                return doctor._Tried(True, "", "libxcb-icccm.so.4: cannot open shared object file")
            said = opengl if code == doctor._TRY_OPENGL else errors
            is_well = not said or "QT_QPA_PLATFORM" in environment
            return doctor._Tried(is_well, said.splitlines()[-1] if said else "works", said)

        monkeypatch.setattr(doctor, "_try", answer)
        monkeypatch.setattr(doctor, "BINDINGS", ("json",))
        monkeypatch.setattr(doctor, "has_screen", lambda: True)
        monkeypatch.setattr(doctor.sys, "platform", "linux")
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
            monkeypatch.delenv(name, raising=False)

    return stand_in


NO_XCB = """
qt.core.library: libqxcb.so: libxcb-cursor.so.0: cannot open shared object file: No such file
qt.qpa.plugin: Could not load the Qt platform plugin "xcb" in "" even though it was found.
Available platform plugins are: offscreen, xcb, wayland."""


def test_missing_libraries_of_the_screen_are_named_and_the_driver_is_not_blamed(
    screen, monkeypatch
) -> None:
    screen(NO_XCB)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/apt-get")
    qt, window = doctor.check_qt()
    assert (qt.name, qt.state) == ("Qt", "ok")
    assert (window.name, window.state) == ("window", "broken")
    assert window.found == "libxcb-cursor.so.0, libxcb-icccm.so.4 are missing"
    assert window.mend == (
        "sudo apt-get install --yes --no-install-recommends libxcb-cursor0 libxcb-icccm4"
    )
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    _, window = doctor.check_qt()
    assert window.mend is not None
    assert "packages that hold libxcb-cursor.so.0, libxcb-icccm.so.4" in window.mend


def test_a_screen_that_does_not_answer_is_told_with_its_name(screen, monkeypatch) -> None:
    screen('Could not load the Qt platform plugin "xcb" in ""')
    monkeypatch.setattr(doctor, "_missing_libraries", lambda _: [])
    monkeypatch.setenv("DISPLAY", ":77")
    _, window = doctor.check_qt()
    assert window.found == "no screen answers at DISPLAY=:77 (tried: xcb)"
    monkeypatch.setenv("QT_QPA_PLATFORM", "vga")
    _, window = doctor.check_qt()
    assert (window.found, window.mend) == (
        "Qt cannot use the platform 'vga'",
        "unset QT_QPA_PLATFORM",
    )


def test_the_driver_is_blamed_only_where_the_window_works(screen) -> None:
    screen(opengl="no OpenGL context could be made")
    qt, window, opengl = doctor.check_qt()
    assert (qt.state, window.state, opengl.state) == ("ok", "ok", "broken")
    assert "driver" in (opengl.mend or "")
    screen(opengl="ModuleNotFoundError: No module named 'OpenGL'")
    *_, opengl = doctor.check_qt()
    assert "pip install" in (opengl.mend or "")


def test_the_libraries_are_those_that_the_script_installs() -> None:
    script = (ROOT / "tools" / "system_packages.sh").read_text(encoding="utf-8")
    needed = re.findall(r"^need_library (\S+) (\S+)", script, re.MULTILINE)
    assert dict(needed) == doctor.LIBRARIES


def test_a_process_that_hangs_is_ended(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.3)
    tried = doctor._try("import time; time.sleep(60)")
    assert (tried.is_well, tried.said) == (False, "no answer within 0.3 s")


def test_damaged_models_are_noted_and_a_missing_bundle_is_broken(monkeypatch, tmp_path) -> None:
    def none(_: str) -> None:
        raise ModelError("There is no model 'nuclei'.")

    monkeypatch.setattr(library, "find_model", none)
    monkeypatch.setattr(library, "list_damaged", lambda: [(tmp_path / "x", "x is damaged")])
    bundled, damaged = doctor.check_models()
    assert (bundled.state, damaged.state) == ("broken", "note")
    assert str(tmp_path / "x") in (damaged.mend or "")


@pytest.mark.slow
def test_the_whole_doctor_answers_here(run) -> None:
    found = run("doctor", "--json").json
    names = {check["name"] for check in found["checks"]}
    assert {"Python", "torch", "napari", "Qt", "bundled model"} <= names
