"""The one place where timm is imported: any of its encoders, giving features at several strides."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from compress.errors import MissingExtra, SegpressError
from compress.networks.foreign.torchvision_import import torchvision


class TimmEncoder(nn.Module):
    """An encoder of timm: features = net(image_BCHW), a list of BCHW tensors, the finest first."""

    channels: tuple[int, ...]
    """Of each feature."""
    strides: tuple[int, ...]
    """Pixels of the image to one of the feature, for each feature."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.channels, self.strides = tuple(body.feature_info.channels()), tuple(body.feature_info.reduction())
        # Some transformers keep their channels last.
        self._channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        features = self.body(x_BCHW)
        return [feature.permute(0, 3, 1, 2) for feature in features] if self._channels_last else list(features)


def timm_encoder(name: str, in_channels: int = 3, strides: Sequence[int] | None = None, **options: Any) -> TimmEncoder:
    """An encoder of timm with random weights; what only its other features need is not built.

    Args:
        name: as `timm.list_models()` gives it.
        strides: of the features to give, ascending; None gives all that it has.
        options: what timm's own constructor of this encoder takes (drop_path_rate, output_stride, img_size, ...).

    Raises:
        MissingExtra: if timm or torchvision is not installed.
        SegpressError: if timm has no such encoder, or it has no features at these strides.
    """
    timm = _timm()
    _check_name(timm, name)
    encoder = TimmEncoder(_built(timm, name, in_chans=in_channels, **options))
    if strides is None or tuple(strides) == encoder.strides:
        return encoder
    if not set(strides) <= set(encoder.strides) or len(set(encoder.strides)) < len(encoder.strides):
        raise SegpressError(
            f"timm's '{name}' has features at strides {_listed(encoder.strides)}, and {_listed(strides)} are needed; "
            "choose another encoder"
        )
    places = tuple(encoder.strides.index(stride) for stride in strides)
    return TimmEncoder(_built(timm, name, in_chans=in_channels, out_indices=places, **options))


def _timm() -> ModuleType:
    torchvision()
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingExtra("timm", "timm") from None


def _check_name(timm: ModuleType, name: str) -> None:
    if timm.is_model(name):
        return
    close = difflib.get_close_matches(name.split(".", maxsplit=1)[0], timm.list_models(), n=1)
    better = f"did you mean '{close[0]}'?" if close else "timm.list_models() gives their names"
    raise SegpressError(f"timm has no encoder '{name}'; {better}")


def _built(timm: ModuleType, name: str, **options: Any) -> Any:
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, TypeError) as error:
        raise SegpressError(f"timm's '{name}' gives no features with these options: {error}") from None


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
