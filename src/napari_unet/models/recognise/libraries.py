"""The networks of widely used libraries, told by the names they give their layers."""

from __future__ import annotations

from napari_unet.models.recognise.monai_attention_unet import recognise_attention_unet
from napari_unet.models.recognise.monai_basic_unet import recognise_basic_unet
from napari_unet.models.recognise.monai_dynunet import recognise_dynunet
from napari_unet.models.recognise.monai_unet import recognise_monai_unet
from napari_unet.models.recognise.nnunet_residual import recognise_nnunet_residual
from napari_unet.models.recognise.pytorch_3dunet import recognise_pytorch_3dunet
from napari_unet.models.recognise.smp_unet import recognise_smp_unet
from napari_unet.models.recognise.torch_em import recognise_torch_em

LIBRARIES = (
    recognise_basic_unet,
    recognise_attention_unet,
    recognise_monai_unet,
    recognise_dynunet,
    recognise_nnunet_residual,
    recognise_smp_unet,
    recognise_pytorch_3dunet,
    recognise_torch_em,
)
"""Recognisers; no two of them take the same names."""
