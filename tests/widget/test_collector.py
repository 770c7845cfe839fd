"""The garbage collector leaves the window alone while a job runs."""

import gc

from napari_unet.widget.collector import QuietCollector


def test_the_collector_is_held_during_a_job_and_let_go_afterwards(qtbot) -> None:
    collector = QuietCollector()
    collector._settle.setInterval(20)
    collector.follow(True)
    assert gc.get_freeze_count() > 1000
    collector.follow(False)
    qtbot.waitUntil(lambda: gc.get_freeze_count() < 1000)


def test_the_next_job_goes_on_holding(qtbot) -> None:
    collector = QuietCollector()
    collector._settle.setInterval(50)
    collector.follow(True)
    collector.follow(False)
    collector.follow(True)
    qtbot.wait(120)
    assert gc.get_freeze_count() > 1000
    collector.close()
    assert gc.get_freeze_count() < 1000
