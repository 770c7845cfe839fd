"""Put the plugin manifest into the package.

``napari.yaml`` stands at the root, the only copy in git; npe2 looks for it inside the installed
package. A wheel gets the file itself. An editable install gets a link beside the modules, so
that an edit of the root file counts at once.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MANIFEST = "napari.yaml"
PACKAGE = "napari_unet"


class ManifestHook(BuildHookInterface):  # type: ignore[misc]
    """Ship the root manifest as ``napari_unet/napari.yaml``."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the manifest to the wheel, or link it for an editable install.

        Parameters
        ----------
        version : str
            What hatchling builds: ``"standard"`` or ``"editable"``.
        build_data : dict
            Where a hook tells hatchling what to add.
        """
        root_file = Path(self.root, MANIFEST)
        if version == "editable":
            # Not through force_include: its files land beside a .pth, outside our package.
            link_or_copy(root_file, Path(self.root, "src", PACKAGE, MANIFEST))
        else:
            build_data["force_include"][str(root_file)] = f"{PACKAGE}/{MANIFEST}"


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a relative link to ``source``, or its copy where links are refused.

    Parameters
    ----------
    source : pathlib.Path
        The file that stays.
    target : pathlib.Path
        Replaced if it exists.
    """
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(os.path.relpath(source, target.parent))
    except OSError:  # Windows without the right to make links
        shutil.copyfile(source, target)
