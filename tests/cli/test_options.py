"""Options come from the fields of the settings, and say their range."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from napari_unet.cli.arguments import build_parser
from napari_unet.cli.options import add_fields, finetune_settings, segment_settings
from napari_unet.errors import FileError
from napari_unet.models.card import Card
from napari_unet.settings import Architecture, InstanceSettings, SegmentSettings

CARD = Card(name="x", architecture=Architecture(), instances=InstanceSettings(threshold=0.3))
FINETUNE = ("finetune", "--images", "a", "--labels", "b", "--out", "c")


def parsed(*arguments: object) -> argparse.Namespace:
    return build_parser().parse_args([str(argument) for argument in arguments])


def test_the_text_and_the_range_of_a_field_are_the_help_of_its_option() -> None:
    parser = argparse.ArgumentParser()
    add_fields(parser, SegmentSettings, "tile_px", "channels", "invert", "device")
    shown = " ".join(parser.format_help().split())
    assert SegmentSettings.model_fields["tile_px"].description in shown
    assert "Range: from 16, up to 8192. Default: none." in shown
    options = parser.parse_args(["--tile-px", "64", "--channels", "2,0", "--no-invert"])
    assert (options.tile_px, options.channels, options.invert) == (64, (2, 0), False)


def test_what_is_not_given_is_the_models() -> None:
    settings = segment_settings(parsed("segment", "a", "--out", "b", "--min-size", "7"), CARD)
    assert (settings.instances.threshold, settings.instances.min_size) == (0.3, 7)


def test_steps_and_seconds_replace_each_other() -> None:
    by_steps = finetune_settings(parsed(*FINETUNE, "--steps", "5"))
    assert (by_steps.steps, by_steps.seconds) == (5, None)
    by_time = finetune_settings(parsed(*FINETUNE, "--seconds", "5"))
    assert (by_time.steps, by_time.seconds) == (None, 5)


def test_a_report_is_replayed_and_the_command_line_comes_first(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    finetune = {"steps": 50, "seconds": None, "learning_rate": 0.01, "zoom": 1.5}
    segment = {"invert": True, "instances": {"threshold": 0.8}}
    report.write_text(json.dumps({"settings": finetune, "segment": segment, "outcome": "better"}))
    options = parsed(*FINETUNE, "--settings", report, "--seconds", "9", "--zoom", "2")
    settings = finetune_settings(options)
    assert (settings.steps, settings.seconds) == (None, 9)
    assert (settings.learning_rate, settings.zoom) == (0.01, 2)
    settings = segment_settings(options, CARD)
    assert (settings.invert, settings.instances.threshold) == (True, 0.8)
    options = parsed(*FINETUNE, "--settings", tmp_path / "none.json")
    with pytest.raises(FileError, match=r"none\.json cannot be read"):
        finetune_settings(options)
