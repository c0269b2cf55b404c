"""The segmentation networks of torchvision (FCN, DeepLabV3, LR-ASPP), and Mask R-CNN to count.

Long et al. 2015 (arXiv 1411.4038), Chen et al. 2017 (arXiv 1706.05587), Howard et al. 2019 (arXiv 1905.02244), He et
al. 2017 (arXiv 1703.06870).
"""

from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.errors import RecipeError
from compress.networks.foreign.adapter import adapted
from compress.networks.foreign.checks import fault_of
from compress.networks.foreign.head import Head
from compress.networks.foreign.probe import reading_of
from compress.networks.foreign.torchvision_import import torchvision
from export.errors import first_line

_INSTANCES = ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TorchVision:
    """One of torchvision's networks, built by its own function; nothing is downloaded.

    Names in a checkpoint are torchvision's own: `backbone.conv1.weight`, `classifier.4.weight`.

    Mask R-CNN can be built, loaded and counted, and is refused in a recipe: it answers with a list of
    instances whose length depends on the image, where everything here scores, compares and compresses logits
    of every pixel.
    """

    arch: Literal[
        "fcn_resnet50",
        "fcn_resnet101",
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "deeplabv3_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large",
        "maskrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn_v2",
    ]
    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    """With other than 3 the first convolution is replaced by one that takes so many."""
    dims: ClassVar[int] = 2
    aux: bool = False
    """The auxiliary head, which only training asks; torchvision's own published weights have one."""
    options: dict[str, Any] = field(default_factory=dict)
    """What else the function takes."""
    input: tuple[int, int] | None = None
    head: Head = Head()

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW), in training (logits, auxiliary logits)."""
        return self.unwrapped() if self.arch in _INSTANCES else adapted(self)

    def check(self) -> None:
        """Whether torchvision can build it, and a recipe can do something with it.

        Raises:
            MissingExtra: if torchvision is not installed.
            RecipeError: if it is Mask R-CNN, or an option is wrong.
        """
        if self.arch in _INSTANCES:
            raise RecipeError(
                "arch",
                [
                    f"{self.arch} answers with a list of instances, as long as it finds some, and a recipe needs "
                    "logits of every pixel: export it with torch.onnx.export itself, or give a semantic network"
                ],
            )
        reading_of(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        # Mask R-CNN resizes every image itself.
        return None if self.arch in _INSTANCES else fault_of(self, size)

    def unwrapped(self) -> nn.Module:
        """The module that torchvision builds."""
        models = torchvision().models
        given = {"weights": None, "weights_backbone": None, "num_classes": self.classes, **self.options}
        if self.arch in _INSTANCES:
            kind = getattr(models.detection, self.arch)
        else:
            kind = getattr(models.segmentation, self.arch)
            given |= {} if self.arch.startswith("lraspp") else {"aux_loss": self.aux}
        if self.aux and "aux_loss" not in given:
            raise RecipeError("aux", [f"{self.arch} has no auxiliary head; leave aux out"])
        try:
            net: nn.Module = kind(**given)
        except (ValueError, TypeError) as error:
            raise RecipeError(self.arch, [first_line(error)]) from error
        if self.in_channels != 3:
            _replace_first(net, self.in_channels)
        return net


def _replace_first(net: nn.Module, in_channels: int) -> None:
    name, first = next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    net.set_submodule(
        name,
        nn.Conv2d(
            in_channels,
            first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        ),
    )
