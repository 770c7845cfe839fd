"""The network in an ONNX file, and a network written as one."""

from napari_unet.models.onnx.reader import read_onnx

__all__ = ["read_onnx"]
