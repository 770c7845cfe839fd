"""What the tensors of a U-Net leave open.

A question is asked only of networks for which the answer makes a difference that the tensors do
not show. The family answers some, the rest is answered by a default that stands in the card, or
by a person.
"""

from __future__ import annotations

from napari_unet.models.recognise.questions_layers import OF_LAYERS
from napari_unet.models.recognise.questions_sizes import OF_SIZES
from napari_unet.models.recognise.questions_up import OF_THE_WAY_UP

QUESTIONS = (*OF_THE_WAY_UP, *OF_LAYERS, *OF_SIZES)
"""In the order in which they matter: a later one may depend on earlier answers."""
