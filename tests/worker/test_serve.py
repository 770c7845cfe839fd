"""One job after the other; the process tidies up only when there is nothing to do."""

import pytest

from napari_unet.worker import __main__ as serving
from napari_unet.worker import channel, protocol


class Closed(Exception):
    """The window has gone."""


class Requests(channel.Inbox):
    """Requests that come at once, or when somebody has waited in vain."""

    def __init__(self, *requests):
        super().__init__(None)
        self._left = list(requests)

    def next(self, patience_s=None):
        if not self._left:
            raise Closed
        request = self._left.pop(0)
        assert request is not None or patience_s is not None, "nobody would ever come back"
        return request


class Jobs:
    """Notes what is done."""

    def __init__(self):
        self.done = []
        self.JOBS = {"count": self.count}

    def count(self, call, number):
        self.done.append(number)
        yield from ()
        return {}

    def tidy(self):
        self.done.append("tidy")


class Mute:
    """Hears the events."""

    def send(self, event):
        assert isinstance(event, protocol.Done)


def test_what_follows_at_once_does_not_wait_for_tidying_up(tmp_path):
    first, second, third = (
        protocol.Request(number, "count", str(tmp_path), {"number": number}) for number in (1, 2, 3)
    )
    jobs = Jobs()
    with pytest.raises(Closed):
        serving.serve(jobs, Requests(first, second, None, third, None), Mute())
    assert jobs.done == [1, 2, "tidy", 3, "tidy"]


def test_an_inbox_says_when_nothing_came_in_time():
    assert channel.Inbox(None).next(0.01) is None
