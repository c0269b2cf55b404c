"""A network that nnU-Net v2 planned and trained, from its results folder (Isensee et al. 2021, Nature Methods 18)."""

import importlib
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.contracts import multiples
from compress.data.planned.architecture import LAYERS
from compress.data.planned.plan import plan_of
from compress.data.planned.results import Fold, results_in
from compress.errors import MissingExtra, RecipeError
from compress.networks.foreign.left_out import leave_out
from export.errors import first_line

BESIDE = ("conv", "dropout", "norm", "nonlin")
"""Second names of layers that a block's `all_modules` has in the order in which it calls them."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Nnunet:
    """The network of one fold: what plans.json describes, built by nnU-Net's own dynamic_network_architectures.

    A description holds what the plans say of it, so that what is saved is loaded without the folder. Names in a
    checkpoint are nnU-Net's; its deep supervision is of training, and is left out.
    """

    results: str
    """The results folder, relative to the recipe, such as .../nnUNetTrainer__nnUNetPlans__3d_fullres. Stored as its
    name alone."""
    fold: Fold = 0
    """Which of its folds: a number, or all."""
    checkpoint: str = "checkpoint_final.pth"
    """The file in the fold's folder that has the weights."""
    classes: Annotated[int, Field(ge=2, le=255)] = None  # type: ignore[assignment]
    """Output channels, background included; read from dataset.json."""
    in_channels: Annotated[int, Field(ge=1)] = None  # type: ignore[assignment]
    """Channels of the input; read from dataset.json."""
    dims: Literal[2, 3] = None  # type: ignore[assignment]
    """2 for slices, 3 for volumes; read from plans.json."""
    arch: dict[str, Any] = field(default_factory=dict)
    """The network's class and what it is built with; read from plans.json."""

    def __post_init__(self) -> None:
        """The folder is read once, here."""
        if self.arch:
            return
        plan = plan_of(results_in(Path(self.results)))
        found = {"results": plan.name, "classes": len(plan.classes), "in_channels": plan.channels, "dims": plan.dims}
        for key, value in {**found, "arch": dict(plan.arch)}.items():
            # Frozen for others: what the folder tells is told once.
            object.__setattr__(self, key, value)

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), of volumes BKDHW."""
        net = self.unwrapped()
        before = set(net.state_dict())
        for module in list(net.modules()):
            if isinstance(getattr(module, "all_modules", None), nn.Sequential):
                for name in BESIDE:
                    vars(module)["_modules"].pop(name, None)
        decoder: Any = net.get_submodule("decoder")
        del decoder.encoder
        for stage in range(len(decoder.seg_layers) - 1):
            decoder.seg_layers[stage] = nn.Identity()
        leave_out(net, before - set(net.state_dict()))
        return net

    def check(self) -> None:
        """Whether the package that builds it is there, and builds it.

        Raises:
            MissingExtra: if it is not installed.
            RecipeError: if it does not take what the plans say.
        """
        import torch

        with torch.device("meta"):
            self.unwrapped()

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this size, and what would be right; None if nothing."""
        steps = [1] * self.dims
        for stride in self.arch["strides"]:
            sides = [stride] * self.dims if isinstance(stride, int) else stride
            steps = [step * side for step, side in zip(steps, sides, strict=True)]
        return multiples(size, steps)

    def unwrapped(self) -> nn.Module:
        """nnU-Net's own module, in which layers have second names, and every stage of the decoder a head."""
        given = {key: value for key, value in self.arch.items() if key != "class"}
        try:
            kinds = importlib.import_module("dynamic_network_architectures.architectures.unet")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "dynamic_network_architectures":
                raise
            raise MissingExtra("dynamic-network-architectures", "nnunet") from None
        for key in LAYERS:
            if given.get(key) is not None:
                given[key] = _layer(str(given[key]), key)
        kind: Any = getattr(kinds, self.arch["class"])
        try:
            net: nn.Module = kind(
                input_channels=self.in_channels, num_classes=self.classes, deep_supervision=False, **given
            )
        except (ValueError, TypeError, RuntimeError, LookupError, AssertionError, AttributeError) as error:
            raise RecipeError(f"nnU-Net's {self.arch['class']}", [first_line(error)]) from error
        return net


def _layer(name: str, key: str) -> type[nn.Module]:
    """A class of torch.nn; nothing else that plans name is looked up."""
    kind = getattr(nn, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise RecipeError(key, [f"the plans have '{name}', which is no layer of torch.nn"])
    return kind
