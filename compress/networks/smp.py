"""The networks of segmentation_models.pytorch (Iakubovskii 2019): any of its decoders over any of its encoders."""

import difflib
import importlib
from dataclasses import field
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.errors import MissingExtra, RecipeError
from compress.networks.foreign.adapter import adapted
from compress.networks.foreign.checks import fault_of
from compress.networks.foreign.head import Head
from compress.networks.foreign.probe import reading_of
from compress.networks.foreign.torchvision_import import torchvision
from export.errors import first_line


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Smp:
    """A decoder and an encoder, as `smp.create_model` names them; nothing is downloaded.

    Names in a checkpoint are smp's own: `encoder.conv1.weight`, `segmentation_head.0.weight`.
    """

    arch: str
    """Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, PAN, UPerNet, Segformer, DPT."""
    encoder: str = "resnet34"
    """One of smp's encoders, or `tu-` and the name of one of timm's."""
    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    dims: ClassVar[int] = 2
    options: dict[str, Any] = field(default_factory=dict)
    """What else the architecture takes: decoder_channels, encoder_depth, decoder_attention_type, ..."""
    input: tuple[int, int] | None = None
    """Height and width, for an encoder that takes only one size."""
    head: Head = Head()

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BKHW = net(image_BCHW)."""
        return adapted(self)

    def check(self) -> None:
        """Whether smp knows all that is asked for.

        Raises:
            MissingExtra: if it is not installed.
            RecipeError: naming what it does not know, and the nearest that it does.
        """
        reading_of(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return fault_of(self, size)

    def unwrapped(self) -> nn.Module:
        """The module that smp builds."""
        smp = _smp()
        archs = {kind.__name__.lower(): kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()}
        if self.arch.lower() not in archs:
            raise _unknown("arch", self.arch, list(archs.values()))
        if not self.encoder.startswith("tu-") and self.encoder not in smp.encoders.get_encoder_names():
            raise _unknown("encoder", self.encoder, smp.encoders.get_encoder_names())
        if set(self.options) & {"encoder_name", "encoder_weights", "in_channels", "classes"}:
            raise RecipeError(
                "options", ["encoder, in_channels and classes stand beside options, and weights come last"]
            )
        try:
            return smp.create_model(
                self.arch,
                encoder_name=self.encoder,
                encoder_weights=None,
                in_channels=self.in_channels,
                classes=self.classes,
                **self.options,
            )
        except (ValueError, TypeError, RuntimeError, LookupError) as error:
            raise RecipeError(f"{self.arch} over {self.encoder}", [first_line(error)]) from error


def architectures() -> list[str]:
    """The decoders that smp has.

    Raises:
        MissingExtra: if it is not installed.
    """
    return [kind.__name__ for kind in _smp().MODEL_ARCHITECTURES_MAPPING.values()]


def encoder_families() -> dict[str, list[str]]:
    """The names of smp's encoders, by the class that builds them.

    Raises:
        MissingExtra: if it is not installed.
    """
    families: dict[str, list[str]] = {}
    for name, told in _smp().encoders.encoders.items():
        families.setdefault(told["encoder"].__name__, []).append(name)
    return families


def _smp() -> ModuleType:
    torchvision()
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except ModuleNotFoundError as error:
        if error.name != "segmentation_models_pytorch":
            raise
        raise MissingExtra("segmentation-models-pytorch", "smp") from None


def _unknown(what: str, word: str, known: list[str]) -> RecipeError:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known[:12])}"
    return RecipeError(what, [f"smp has no '{word}'; {hint}"])
