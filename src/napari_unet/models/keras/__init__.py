"""The network in a file of Keras, read without TensorFlow."""

from napari_unet.models.keras.reader import read_keras

__all__ = ["read_keras"]
