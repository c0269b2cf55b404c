"""A network asked once, without weights that mean anything: what it answers with, and how its logits are read.

Legend: B batch, C channels, K classes, H height, W width; volumes have a depth before the height.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from compress.errors import RecipeError
from compress.networks.foreign.answers import (
    listing,
    proportional,
    tensors_in,
    times,
    title,
    unstacked,
    without_channels,
)
from compress.networks.foreign.asking import answer_of, built_on, built_on_meta, image_of, reason
from compress.networks.foreign.head import Activation, ForeignNetwork, Layout, Reading, SeveralOutputs
from compress.networks.foreign.logits import ExpectedLogits, usualness

# Not square, so that height and width are told apart; larger ones for deep networks, square ones for fixed inputs.
_ASKED = {
    2: ((64, 96), (128, 192), (256, 384), (224, 224), (256, 256), (384, 384), (512, 512), (352, 352), (572, 572)),
    3: ((32, 32, 48), (64, 64, 96), (96, 96, 96), (128, 128, 128)),
}
_ENDS: Mapping[type[nn.Module], Activation] = {nn.Sigmoid: "sigmoid", nn.Softmax: "softmax", nn.Softmax2d: "softmax"}
_READ: dict[str, Reading] = {}


def reading_of(network: ForeignNetwork) -> Reading:
    """How the network's answers are read; asked once in a process.

    Raises:
        RecipeError: see `adapted`.
    """
    key = repr(network)
    if key not in _READ:
        _READ[key] = _Probe(network).reading()
    return _READ[key]


class _Probe:
    """One network being asked on a small example, without weights that mean anything."""

    def __init__(self, network: ForeignNetwork) -> None:
        self.network, self.head = network, network.head
        self.notes: list[str] = []

    def reading(self) -> Reading:
        net, image, self.takes, answer = self._answered()
        self.size = tuple(image.shape[2:] if self.takes == "channels_first" else image.shape[1:-1])
        self.expected = ExpectedLogits(network=self.network, size=self.size)
        found = tensors_in(answer)
        output = self._output(found)
        tensor = found[output]
        channels = tensor.dim() == self.network.dims + 2
        layout = self.expected.layout(tensor)
        shape = without_channels(tensor, layout) if channels else tuple(tensor.shape[1:])
        training = self._training(net, image, output)
        activation, removed, notes = _activation(net, image, self.head.activation)
        self.notes += notes
        size = self._size(shape)
        if self.takes == "channels_last":
            self.notes.append("the network takes its image's channels last")
        if layout == "channels_last":
            self.notes.append("the network answers with its classes last: they are moved to the second axis")
        return Reading(
            output=output,
            training=training,
            layout=layout,
            takes=self.takes,
            size=size,
            resized=size == "input" and (shape != self.size or self.head.size == "input"),
            activation=activation,
            removed=removed,
            channels=channels,
            example=self.size,
            notes=tuple(self.notes),
        )

    def _answered(self) -> tuple[nn.Module, Tensor, Layout, Any]:
        """A network, the first example that it takes, and its answer; on the meta device if it runs there."""
        network = self.network
        sizes = [network.input] if network.input is not None else _ASKED[network.dims]
        layouts: list[Layout] = [self.head.takes] if self.head.takes else ["channels_first", "channels_last"]
        reasons = []
        for device in ("meta", "cpu"):
            net = built_on_meta(network) if device == "meta" else built_on(network, device)
            for layout in layouts:
                for size in sizes:
                    image = image_of(network, size, layout, device)
                    answer = answer_of(net, image)
                    if not isinstance(answer, Exception):
                        return net, image, layout, answer
                    reasons.append(answer)
        # What values would say is only said off the meta device.
        refused = reason(reasons[len(reasons) // 2])
        tried = ", ".join(times(size) for size in sizes)
        raise wrong(
            f"the network answers to no image of {network.in_channels} channels ({refused}); tried {tried}: "
            "correct in_channels or dims, or set input to the one size it takes"
        )

    def _output(self, found: Mapping[str, Tensor]) -> str:
        if self.head.output is not None:
            return self._told_output(found)
        fitting = {key: tensor for key, tensor in found.items() if self.expected.fits(tensor)}
        if not fitting:
            raise wrong(self.expected.why_none(found))
        if len(fitting) > 1:
            known = sorted((key for key in fitting if usualness(key) is not None), key=lambda key: usualness(key) or 0)
            largest = max(tensor.numel() for tensor in fitting.values())
            whole = [key for key, tensor in fitting.items() if tensor.numel() == largest]
            if not known and len(whole) > 1:
                raise SeveralOutputs(tuple(whole))
            chosen = (known or whole)[0]
        else:
            (chosen,) = fitting
        if chosen:
            rest = [key for key in found if key != chosen]
            others = f"; it also answers with {', '.join(rest)}" if rest else ""
            self.notes.append(f"the logits are '{chosen}' of what the network answers with{others}")
        return chosen

    def _told_output(self, found: Mapping[str, Tensor]) -> str:
        output = self.head.output
        if isinstance(output, int) and output < 0:
            tops = list(dict.fromkeys(key.partition(".")[0] for key in found))
            output = tops[output] if -len(tops) <= output else output
        if str(output) not in found:
            raise wrong(f"head: output: the answer has no '{output}'; it has {listing(found)}")
        if not self.expected.fits(found[str(output)]):
            raise wrong(
                f"head: output: '{output}' cannot be the logits: {self.expected.why_none({'': found[str(output)]})}"
            )
        return str(output)

    def _size(self, shape: tuple[int, ...]) -> Literal["input", "own"]:
        if shape == self.size:
            return self.head.size or "input"
        if self.head.size is not None:
            return self.head.size
        if any(side > whole for side, whole in zip(shape, self.size, strict=True)):
            raise wrong(
                f"the network answers at {times(shape)} to an input of {times(self.size)}: set head: {{size: input}} "
                "to have its answer resized"
            )
        if proportional(shape, self.size):
            share = self.size[0] // shape[0]
            self.notes.append(f"the network answers at 1/{share} of the input's size: its logits are resized to it")
            return "input"
        self.notes.append(
            f"the network answers with {times(shape)} of an input of {times(self.size)}, and is compared there, at "
            "the centre; set head: {size: input} to have its answer resized"
        )
        return "own"

    def _training(self, net: nn.Module, image: Tensor, output: str) -> tuple[str, ...]:
        """Every output that training learns from, the final one first."""
        answer = answer_of(net, image.expand(2, *image.shape[1:]), training=True)
        if isinstance(answer, Exception):
            self.notes.append(f"the network could not be asked in training ({reason(answer)})")
            return (output,)
        found = dict(unstacked(tensors_in(answer), self.network.dims))
        fitting = [key for key, tensor in found.items() if self.expected.fits(tensor[:1])]
        if output in fitting:
            return output, *(key for key in fitting if key != output)
        if not fitting:
            self.notes.append(f"in training the network answers with {listing(found)}, which are no logits")
            return (output,)
        if isinstance(self.head.output, int) and self.head.output < 0:
            fitting = fitting[::-1]
        fitting = sorted(fitting, key=lambda key: (usualness(key) is None, -found[key].numel()))
        if len(fitting) > 1:
            self.notes.append(
                f"in training the network answers with {len(fitting)} outputs: {title(fitting[0])} is taken to be the "
                "final one"
            )
        return tuple(fitting)


def _activation(
    net: nn.Module, image: Tensor, told: Activation | None
) -> tuple[Activation, tuple[str, ...], list[str]]:
    """What is undone in the answer, the last layers that are taken off instead, and a note where there is either."""
    removed = () if told == "none" else _ends(net, image, told)
    if removed:
        return (
            "none",
            removed,
            [f"the network ends in {removed[0]}, which makes probabilities of logits: it is taken off"],
        )
    if told in (None, "none"):
        return "none", (), []
    note = (
        f"the network's {told} is no layer that could be taken off: its probabilities are turned back into "
        "logits, which costs time and, in integers, accuracy; leave it out of the network"
    )
    return told, (), [note]


def _ends(net: nn.Module, image: Tensor, told: Activation | None) -> tuple[str, ...]:
    """The names of the layers that make the answer's tensors and are an activation, and nothing besides."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}
    calls: dict[int, int] = {}

    def see(module: nn.Module, _: Any, output: Any) -> None:
        calls[id(module)] = calls.get(id(module), 0) + 1
        if isinstance(output, Tensor):
            made[id(output)] = module, output

    kinds = [kind for kind, activation in _ENDS.items() if told in (None, activation)]
    watched = [module for module in net.modules() if type(module) in kinds]
    if not watched:
        return ()
    handles = [module.register_forward_hook(see) for module in watched]
    answer = answer_of(net, image)
    for handle in handles:
        handle.remove()
    ends = [made[id(tensor)][0] for tensor in tensors_in(answer).values() if id(tensor) in made]
    # A layer that also stands within the network must stay there.
    ends = [module for module in ends if calls[id(module)] == sum(each is module for each in ends)]
    names = net.named_modules(remove_duplicate=False)
    return tuple(name for name, module in names if name and any(module is each for each in ends))


def wrong(sentence: str) -> RecipeError:
    """What is wrong with a network that was asked."""
    return RecipeError("asked once", [sentence])
