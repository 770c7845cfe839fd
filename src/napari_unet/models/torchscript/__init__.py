"""The network in a TorchScript file, read without letting torch open it."""

from napari_unet.models.torchscript.reader import read_torchscript

__all__ = ["read_torchscript"]
