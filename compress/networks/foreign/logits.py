"""Which tensors of an answer can be the logits: by their number of axes, of classes, and by their proportions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from compress.networks.foreign.answers import listing, proportional, times, without_channels
from compress.networks.foreign.head import ForeignNetwork, Layout

# The usual names of the final logits in an answer that is a dictionary: torchvision's, Hugging Face's, others'.
_FINAL = ("out", "logits", "pred", "preds", "prediction", "output", "seg", "mask", "masks", "main")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpectedLogits:
    """What the logits of a network look like, for an image of this size."""

    network: ForeignNetwork
    size: tuple[int, ...]

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor of the answer to one image can be the logits."""
        network = self.network
        if not tensor.is_floating_point() or tensor.shape[:1] != (1,):
            return False
        if tensor.dim() == network.dims + 1:
            return network.classes == 1 and proportional(tuple(tensor.shape[1:]), self.size)
        return tensor.dim() == network.dims + 2 and bool(self.layouts(tensor))

    def layouts(self, tensor: Tensor) -> list[Layout]:
        """In which layouts the tensor has as many classes as are told; those of the input's proportions first."""
        both: tuple[Layout, ...] = ("channels_first", "channels_last")
        told = self.network.head.layout
        layouts = [told] if told else list(both)
        fitting = [
            each for each in layouts if tensor.shape[1 if each == "channels_first" else -1] == self.network.classes
        ]
        return sorted(fitting, key=lambda each: not proportional(without_channels(tensor, each), self.size))

    def layout(self, tensor: Tensor) -> Layout:
        """Where the classes of a tensor that fits are."""
        return self.layouts(tensor)[0] if tensor.dim() == self.network.dims + 2 else "channels_first"

    def why_none(self, found: Mapping[str, Tensor]) -> str:
        """Why none of these tensors can be the logits, and what to correct."""
        network = self.network
        if not found:
            return "the network answers with no tensor"
        if all(not tensor.is_floating_point() for tensor in found.values()):
            return "the network answers with whole numbers, not logits: leave its argmax out"
        maps = [tensor for tensor in found.values() if tensor.dim() == network.dims + 2]
        if maps:
            return (
                f"classes is {network.classes}, but the network answers with {listing(found)} to an input of "
                f"{times(self.size)}: correct classes, which is {maps[0].shape[1]} there if the second axis has them"
            )
        return (
            f"the network answers with {listing(found)}: logits have {network.dims + 2} axes, the batch, the "
            "classes and those of the image"
        )


def usualness(key: str) -> int | None:
    """How usual a key is for final logits, 0 the most; None if it is not."""
    name = key.rpartition(".")[2]
    return _FINAL.index(name) if name in _FINAL else None
