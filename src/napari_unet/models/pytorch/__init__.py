"""Weights that PyTorch saved, read as data."""

from napari_unet.models.pytorch.reader import read_state_dict, read_tensors

__all__ = ["read_state_dict", "read_tensors"]
