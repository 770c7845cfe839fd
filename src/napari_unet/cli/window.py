"""``open``: napari with the dock."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from napari_unet.cli.doctor import BINDINGS, has_screen, window_problem
from napari_unet.errors import UnetError

if TYPE_CHECKING:
    import argparse

    from napari_unet.cli.output import Console


def run_open(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Open napari and wait until it is closed."""
    require_window()
    from napari_unet.cli.files import find_images
    from napari_unet.widget import application

    images = find_images(options.images)
    application.open_viewer(images, options.model, options.sample)
    application.run()
    return {"images": images, "sample": options.sample}


def require_window() -> None:
    """Raise the sentence that fits where no window can open.

    Raises
    ------
    UnetError
        If there is no screen, or no Qt binding that reaches it.
    """
    if not has_screen():
        raise UnetError(
            "There is no screen here (DISPLAY is not set), so no window can open. "
            "Use a desktop session, or xvfb-run."
        )
    if not any(find_spec(name) for name in BINDINGS):
        raise UnetError(
            "Qt is not installed, so no window can open. "
            'Run: pip install "napari-unet-interactive[all]"'
        )
    problem = window_problem()
    if problem is not None:  # Qt itself would end this process without a word
        raise UnetError(f"No window can open: {problem.found}. To mend it: {problem.mend}")
