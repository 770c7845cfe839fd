"""The doctor finds what is broken and names the line that mends it."""

from __future__ import annotations

import sys

import pytest

from napari_unet.cli import doctor
from napari_unet.errors import ModelError
from napari_unet.models import library


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
    monkeypatch.setattr(doctor, "_try", lambda *_, **__: (True, "Qt 6"))
    note, qt = doctor.check_qt()
    assert (note.state, qt.state) == ("note", "ok")
    assert "json and csv" in note.found


def test_a_qt_that_crashes_does_not_take_the_doctor_along(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "BINDINGS", ("json",))
    monkeypatch.setattr(doctor, "_TRY_QT", "import os, signal; os.kill(os.getpid(), 9)")
    assert only(doctor.check_qt).state == "broken"
    message = "ImportError: libEGL.so.1: cannot open shared object file"
    monkeypatch.setattr(doctor, "_TRY_QT", f"raise SystemExit({message!r})")
    check = only(doctor.check_qt)
    assert check.found == message
    if sys.platform == "linux":
        assert "libegl" in (check.mend or "").lower()


def test_a_process_that_hangs_is_ended(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.3)
    assert doctor._try("import time; time.sleep(60)") == (False, "no answer within 0.3 s")


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
