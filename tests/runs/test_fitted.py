"""What fitted into memory is remembered, but not for ever, and never from a damaged file."""

from __future__ import annotations

import json

import pytest
import torch

from napari_unet.errors import FileError
from napari_unet.network.unet import UNet
from napari_unet.runs import fitted
from napari_unet.runs.fitted import forget, recall, remember

CPU, FLOAT = torch.device("cpu"), torch.float32


@pytest.fixture
def computer(monkeypatch):
    """Return the time and the free memory of this computer, to be changed."""
    state = {"now": 1e9, "free": 8_000_000_000}
    monkeypatch.setattr(fitted.time, "time", lambda: state["now"])
    monkeypatch.setattr(fitted, "free_bytes", lambda _: state["free"])
    return state


def start_anew():
    """Forget what this process knows, as another one would."""
    fitted._of_this_process.clear()


def test_another_process_remembers_the_network_the_device_and_its_numbers(
    tiny_unet, computer, monkeypatch
):
    remember(tiny_unet, CPU, FLOAT, 128, 4)
    start_anew()
    noted = recall(tiny_unet, CPU, FLOAT)
    assert (noted.tile_px, noted.at_once) == (128, 4)
    assert recall(tiny_unet, CPU, torch.float16) is None
    other = UNet(tiny_unet.architecture.replace(widths=(4, 6)))
    assert recall(other, CPU, FLOAT) is None
    monkeypatch.setattr(fitted, "device_name", lambda _: "another card")
    assert recall(tiny_unet, CPU, FLOAT) is None


def test_after_a_week_or_with_more_memory_larger_tiles_are_tried_again(tiny_unet, computer):
    remember(tiny_unet, CPU, FLOAT, 128, 1)
    computer["free"] = 9_900_000_000
    assert recall(tiny_unet, CPU, FLOAT) is not None
    computer["free"] = 10_100_000_000
    assert recall(tiny_unet, CPU, FLOAT) is None
    computer["free"] = 1_000_000_000
    assert recall(tiny_unet, CPU, FLOAT) is not None
    computer["now"] += 7 * 24 * 3600 - 10
    assert recall(tiny_unet, CPU, FLOAT) is not None
    computer["now"] += 20
    assert recall(tiny_unet, CPU, FLOAT) is None
    computer["now"] = 1e9 - 100  # the clock was set back
    assert recall(tiny_unet, CPU, FLOAT) is None


def test_where_nobody_can_tell_the_free_memory_only_time_counts(tiny_unet, computer):
    computer["free"] = None
    remember(tiny_unet, CPU, FLOAT, 128, 1)
    computer["free"] = 10**12
    start_anew()
    assert recall(tiny_unet, CPU, FLOAT) is not None


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[1, 2]",
        "null",
        "\x00\xff",
        '{"KEY": 5}',
        '{"KEY": {"tile_px": "128", "at_once": 1, "free": 1, "when": 1e9}}',
        '{"KEY": {"tile_px": -1, "at_once": 1, "free": 1, "when": 1e9}}',
        '{"KEY": {"tile_px": 128, "at_once": 0, "free": 1, "when": 1e9}}',
        '{"KEY": {"tile_px": 128, "at_once": 1, "free": 1, "when": NaN}}',
        '{"KEY": {"tile_px": 128, "at_once": 1, "free": 1, "when": null}}',
        '{"KEY": {"tile_px": 128, "at_once": 1, "free": 1, "when": 1e9, "more": 1}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_notes_nothing_and_is_written_anew(tiny_unet, computer, damage):
    remember(tiny_unet, CPU, FLOAT, 128, 1)
    (key,) = json.loads(fitted._file().read_text())
    fitted._file().write_text(damage.replace("KEY", key), encoding="latin-1")
    start_anew()
    assert recall(tiny_unet, CPU, FLOAT) is None
    remember(tiny_unet, CPU, FLOAT, 96, 2)
    start_anew()
    assert recall(tiny_unet, CPU, FLOAT).tile_px == 96


def test_where_nothing_can_be_written_this_process_remembers(tiny_unet, computer, tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    remember(tiny_unet, CPU, FLOAT, 128, 1)
    assert recall(tiny_unet, CPU, FLOAT).tile_px == 128
    start_anew()
    assert recall(tiny_unet, CPU, FLOAT) is None


def test_the_oldest_notes_are_dropped(tiny_unet, computer, monkeypatch):
    monkeypatch.setattr(fitted, "MOST_NOTES", 3)
    names = iter("abcde")
    monkeypatch.setattr(fitted, "device_name", lambda _: next(names))
    for _ in range(5):
        remember(tiny_unet, CPU, FLOAT, 128, 1)
        computer["now"] += 1
    assert [key[-1] for key in json.loads(fitted._file().read_text())] == ["c", "d", "e"]


def test_what_is_forgotten_is_not_known_to_another_process_either(tiny_unet, computer):
    remember(tiny_unet, CPU, FLOAT, 128, 1)
    forget()
    assert recall(tiny_unet, CPU, FLOAT) is None
    remember(tiny_unet, CPU, FLOAT, 128, 1)
    assert recall(tiny_unet, CPU, FLOAT) is not None
    start_anew()
    forget()
    assert recall(tiny_unet, CPU, FLOAT) is None
    forget()  # nothing is no error


def test_notes_that_cannot_be_removed_are_told_in_a_sentence(tiny_unet, computer):
    fitted._file().mkdir(parents=True)
    with pytest.raises(FileError, match=r"fitted-tiles.json cannot be removed: .+ by hand"):
        forget()
