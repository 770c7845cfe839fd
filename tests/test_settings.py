"""What is wrong with settings is told in a sentence that names the field."""

from __future__ import annotations

import pytest

from napari_unet.errors import SettingError
from napari_unet.settings import (
    FinetuneSettings,
    InstanceSettings,
    SegmentSettings,
    checked,
    given_or_default,
)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SegmentSettings(tile_px=8), "Setting tile_px = 8: .*16"),
        (lambda: SegmentSettings(threshold=0.4), "There is no setting threshold in SegmentSett"),
        (lambda: SegmentSettings(instances={"threshold": 7}), "Setting threshold = 7: .*0.99"),
        (lambda: SegmentSettings(instances={"limit": 7}), "no setting limit in InstanceSettings"),
        (lambda: SegmentSettings(channels=(-1,)), r"channels = \(-1,\): channels are counted fr"),
        (lambda: FinetuneSettings(seconds=None), "^FinetuneSettings: give a budget in seconds"),
        (lambda: FinetuneSettings(seed=2**80), "seed = .*4294967295"),
        (lambda: SegmentSettings().replace(tile=3), "There are: channels, invert"),
        (lambda: checked(SegmentSettings, {"device": "tpu"}), "device = 'tpu': .*'cpu'"),
    ],
)
def test_the_sentence_names_the_field_and_what_it_may_hold(make, sentence) -> None:
    with pytest.raises(SettingError, match=sentence):
        make()


def test_only_settings_of_the_right_kind_are_taken_for_settings() -> None:
    default, given = SegmentSettings(), SegmentSettings(invert=True)
    assert given_or_default(None, default) is default
    assert given_or_default(given, default) is given
    with pytest.raises(SettingError, match=r"a dict was given. Give SegmentSettings\(\*\*values\)"):
        given_or_default({"invert": True}, default)
    with pytest.raises(SettingError, match="SegmentSettings was expected, an InstanceSettings"):
        given_or_default(InstanceSettings(), default)
