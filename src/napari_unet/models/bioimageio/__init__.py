"""Packages of bioimage.io: read, fetched and written."""

from napari_unet.models.bioimageio.download import fetch
from napari_unet.models.bioimageio.reader import read_bioimageio

__all__ = ["fetch", "read_bioimageio"]
