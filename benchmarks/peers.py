"""The other ways to run a network over a large image, each as its own users would call it.

Every way takes an image as a tensor of shape (1, channels, Y, X) in main memory and returns
probabilities there, as an array of shape (classes, Y, X); where the network is on a GPU, both
transfers are part of it. The peers blend logits, so the sigmoid comes at the end.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_unet import Model

# What is imported of each package.
PEERS = {"monai": "monai.inferers", "nnunetv2": "nnunetv2.inference.predict_from_raw_data"}


def import_peers() -> None:
    """Import those that are installed, so that no measurement pays for it."""
    with contextlib.redirect_stdout(io.StringIO()):  # one talks about environment variables
        for module in PEERS.values():
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(module)


class Peers:
    """A model, ready to be run in each way.

    Parameters
    ----------
    model : Model
        Its network stays as it is.
    device : torch.device
        Where the network runs.
    autocast : bool
        Let MONAI and the whole-image forwards run in half precision; nnU-Net always does on CUDA.
    """

    def __init__(self, model: Model, device: torch.device, autocast: bool = False) -> None:
        self._model, self._device, self._autocast = model, device, autocast
        self._net = copy.deepcopy(model.net).to(device).eval()

    def whole(self, image: torch.Tensor) -> NDArray[np.float32]:
        """Give the whole image to the network at once, as it is."""
        return self._run(self._net, image)

    def whole_with_levers(self, image: torch.Tensor) -> NDArray[np.float32]:
        """Give the whole image to a copy with batch norm folded and channels last."""
        return self._run(self._folded, image.contiguous(memory_format=torch.channels_last))

    def monai(
        self, image: torch.Tensor, roi: int, batch: int, **options: Any
    ) -> NDArray[np.float32]:
        """Run MONAI's sliding_window_inference; without options as it is by default."""
        from monai.inferers import sliding_window_inference

        def slide(seen: torch.Tensor) -> torch.Tensor:
            return sliding_window_inference(seen, (roi, roi), batch, self._net, **options)

        return self._run(slide, image)

    def nnunet(self, image: torch.Tensor, patch: int) -> NDArray[np.float32]:
        """Run nnU-Net's own predictor, without mirroring; only its plans are stand-ins."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        with contextlib.redirect_stdout(io.StringIO()):  # it says that a CPU is not a GPU
            predictor = nnUNetPredictor(use_mirroring=False, device=self._device, allow_tqdm=False)
        classes = self._model.card.architecture.classes
        labels = SimpleNamespace(num_segmentation_heads=classes)
        predictor.manual_initialization(
            self._net,
            plans_manager=SimpleNamespace(get_label_manager=lambda _: labels),
            configuration_manager=SimpleNamespace(patch_size=(patch, patch)),
            parameters=None,
            dataset_json={},
            trainer_name="",
            inference_allowed_mirroring_axes=None,
        )
        logits = predictor.predict_sliding_window_return_logits(image[0][:, None])
        return self._finish(logits[:, 0][None])

    @cached_property
    def _folded(self) -> nn.Module:
        """The network with the same levers as the engine's."""
        folded = fold(copy.deepcopy(self._net))
        return folded.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def _run(self, function: Any, image: torch.Tensor) -> NDArray[np.float32]:
        """Move the image to the device, run, and bring the probabilities back."""
        with torch.autocast(self._device.type, enabled=self._autocast):
            logits = function(image.to(self._device))
        return self._finish(logits)

    @torch.inference_mode()
    def _finish(self, logits: torch.Tensor) -> NDArray[np.float32]:
        """Turn logits (1, classes, Y, X) into probabilities in main memory."""
        return self._model.activate(logits.float())[0].cpu().numpy()


def fold(net: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it, in place."""
    for part in net.modules():
        if hasattr(part, "norm") and isinstance(part.norm, nn.BatchNorm2d):
            transposed = isinstance(part.convolution, nn.ConvTranspose2d)
            part.convolution = fuse_conv_bn_eval(part.convolution, part.norm, transposed)
            part.norm = nn.Identity()
    return net
