"""What the dock remembers between sessions, kept by napari beside its own settings.

The fields and their defaults stand in the manifest (``configurations``), so the person can also
see and change them in napari's Preferences. napari before 0.9 keeps no plugin settings; there
the values last as long as the session.
"""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-unet-interactive"


class Preferences:
    """Remembered values by their name in the manifest, e.g. ``"retrain.seconds"``."""

    def __init__(self) -> None:
        self._fallback: dict[str, Any] = {}
        try:
            from napari.settings import get_plugin_settings

            self._settings: Any = get_plugin_settings(PLUGIN)
        except (ImportError, KeyError):  # napari before 0.9, or the manifest is not installed
            self._settings = None

    def get(self, name: str, default: Any) -> Any:
        """Return a remembered value, or the default if nothing is kept under that name."""
        group, field = name.split(".")
        section = getattr(self._settings, group, None)
        return self._fallback.get(name, getattr(section, field, default))

    def set(self, name: str, value: Any) -> None:
        """Remember a value."""
        group, field = name.split(".")
        section = getattr(self._settings, group, None)
        if section is None or not hasattr(section, field):
            self._fallback[name] = value
        elif getattr(section, field) != value:
            setattr(section, field, value)
