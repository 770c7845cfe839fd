"""What the tests of the network share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Generator[None]:
    """Compute on one core: with networks this small, more of them only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
