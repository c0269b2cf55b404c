"""The networks of MONAI (Cardoso et al. 2022, arXiv 2211.02701), two- and three-dimensional."""

import difflib
import importlib
import inspect
import re
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.errors import MissingExtra, RecipeError
from compress.networks.foreign.adapter import adapted
from compress.networks.foreign.checks import fault_of
from compress.networks.foreign.head import Head
from compress.networks.foreign.probe import reading_of
from export.errors import first_line

# How MONAI's networks call what every network has: most of them, and those that call it otherwise.
_NAMES = {
    "dims": ("spatial_dims", "dimensions"),
    "in_channels": ("in_channels", "in_chans"),
    "classes": ("out_channels", "num_classes", "n_classes"),
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Monai:
    """A network of `monai.networks.nets`, by the name of its class.

    Names in a checkpoint are MONAI's own.
    """

    arch: str
    """UNet, BasicUNet, BasicUNetPlusPlus, AttentionUnet, VNet, SegResNet, DynUNet, UNETR, SwinUNETR, ..."""
    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    dims: Literal[2, 3] = 2
    """2 for images, 3 for volumes; MONAI's `spatial_dims`."""
    options: dict[str, Any] = field(default_factory=dict)
    """What else the class takes: channels, strides, num_res_units, ..."""
    input: tuple[int, ...] | None = None
    """The size it takes, if it takes only one."""
    head: Head = Head()

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits = net(image), BKHW or BKDHW."""
        return adapted(self)

    def check(self) -> None:
        """Whether MONAI has it, and its options are right.

        Raises:
            MissingExtra: if a package is not installed that this one needs.
            RecipeError: naming what is wrong.
        """
        reading_of(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this size, and what would be right; None if nothing."""
        return fault_of(self, size)

    def unwrapped(self) -> nn.Module:
        """MONAI's own module."""
        kind = _kind(self.arch)
        takes = inspect.signature(kind).parameters
        given: dict[str, Any] = dict(self.options)
        for what, names in _NAMES.items():
            name = next((name for name in names if name in takes), None)
            if name is not None:
                given[name] = getattr(self, what)
            elif what == "dims" and self.dims != 3:
                raise RecipeError("dims", [f"monai's {self.arch} takes no spatial_dims: set dims: 3"])
            elif what != "dims":
                raise RecipeError("arch", [f"monai's {self.arch} takes no {names[0]}: it is no segmentation network"])
        unknown = [name for name in self.options if name not in takes]
        if unknown:
            near = difflib.get_close_matches(unknown[0], takes, n=1, cutoff=0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(takes)}"
            raise RecipeError("options", [f"monai's {self.arch} takes no '{unknown[0]}'; {hint}"])
        lacking = [name for name, one in takes.items() if name not in given and one.default is one.empty]
        if lacking:
            raise RecipeError("options", [f"monai's {self.arch} needs {', '.join(lacking)}; give them in options"])
        try:
            net: nn.Module = kind(**given)
        except ImportError as error:
            # MONAI's own kind of it, which names the package only in words.
            named = re.search(r"import (\w+)", str(error))
            raise MissingExtra(named[1] if named else first_line(error), "monai") from None
        except (ValueError, TypeError, RuntimeError, LookupError, AssertionError, AttributeError) as error:
            raise RecipeError(f"monai's {self.arch}", [first_line(error)]) from error
        return net


def _kind(arch: str) -> type[nn.Module]:
    nets = importlib.import_module("monai.networks.nets")
    known = {
        name: kind
        for name, kind in vars(nets).items()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and _segments(kind)
    }
    if arch not in known:
        near = difflib.get_close_matches(arch, known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(known))}"
        raise RecipeError("arch", [f"monai has no '{arch}'; {hint}"])
    return known[arch]


def _segments(kind: type[nn.Module]) -> bool:
    takes = inspect.signature(kind).parameters
    return all(any(name in takes for name in _NAMES[what]) for what in ("in_channels", "classes"))
