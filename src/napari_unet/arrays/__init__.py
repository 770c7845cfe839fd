"""Numpy, scipy and scikit-image only: axes, tiles, objects, targets, scores."""
