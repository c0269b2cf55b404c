"""What other people's networks answer with, made into logits: found by asking the network once, or told by `head`.

A network that answers with one tensor of logits, BKHW and as large as its input, is left as it is. Any other is
wrapped in a `Headed`, whose `net` it becomes: its own names follow after `net.`.

Legend: B batch, C channels, K classes, H height, W width; volumes have a depth before the height.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts import multiples
from compress.errors import RecipeError, WeightsError
from compress.networks.foreign.computed import folded
from compress.networks.foreign.named import line_of
from compress.networks.foreign.repeatable import draws, why_otherwise
from compress.networks.foreign.shapes import ShapesAlone
from export.modules import put

Layout = Literal["channels_first", "channels_last"]
Activation = Literal["none", "sigmoid", "softmax"]

# The usual names of the final logits in an answer that is a dictionary: torchvision's, Hugging Face's, others'.
_FINAL = ("out", "logits", "pred", "preds", "prediction", "output", "seg", "mask", "masks", "main")
# Not square, so that height and width are told apart; larger ones for deep networks, square ones for fixed inputs.
_ASKED = {
    2: ((64, 96), (128, 192), (256, 384), (224, 224), (256, 256), (384, 384), (512, 512), (352, 352), (572, 572)),
    3: ((32, 32, 48), (64, 64, 96), (96, 96, 96), (128, 128, 128)),
}
_ENDS: Mapping[type[nn.Module], Activation] = {nn.Sigmoid: "sigmoid", nn.Softmax: "softmax", nn.Softmax2d: "softmax"}
_CERTAIN = 1e-6
"""A probability is kept so far from 0 and 1 before it becomes a logit."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Head:
    """How logits are taken from an answer; what is left out is found by asking the network once."""

    output: str | int | None = None
    """Which part of the answer they are: a key, or a place (-1 is the last)."""
    layout: Layout | None = None
    """Where the answer's classes are: second, or last."""
    takes: Layout | None = None
    """Where the image's channels are for this network: second, or last."""
    size: Literal["input", "own"] | None = None
    """`input` resizes a smaller answer to the input bilinearly; `own` leaves it, as that of an unpadded network."""
    activation: Activation | None = None
    """What the network has applied already. A last layer of that kind is taken off; where it is a function within the
    network, probabilities are turned back into logits. `none` says that these are logits, whatever they look like."""


class Door(Protocol):
    """A network of someone else's, described and not built yet: a `Network` whose answer is still to be read."""

    @property
    def classes(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def dims(self) -> int: ...
    @property
    def input(self) -> tuple[int, ...] | None:
        """The one size it takes, where it takes only one."""
        ...

    @property
    def head(self) -> Head: ...
    def bare(self) -> nn.Module:
        """The network as its library builds it, freshly initialised."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How one network's answers are read."""

    output: str
    """The place of the logits, "" where the answer is nothing else."""
    training: tuple[str, ...]
    """The places of all logits that it answers with in training, the final ones first."""
    layout: Layout
    takes: Layout
    size: Literal["input", "own"]
    resized: bool
    """Whether answers are resized to the input: the example's had another size, or the recipe says so."""
    activation: Activation
    """What is undone in each answer."""
    removed: tuple[str, ...]
    """Last layers that are taken off: they made probabilities of logits."""
    channels: bool
    """Whether the answer has an axis of classes: one class may come without."""
    example: tuple[int, ...]
    """A size that the network took."""
    notes: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Whether the network answers as ours do, so that nothing needs to be wrapped."""
        as_ours = self.layout == self.takes == "channels_first" and self.activation == "none" and self.channels
        return as_ours and self.output == "" and not self.resized and len(self.training) == 1 and self.training[0] == ""


class SeveralOutputs(RecipeError):
    """Any of several outputs could be the final logits: without weights nothing tells which."""

    def __init__(self, places: tuple[str, ...]) -> None:
        self.places = places
        sentence = (
            f"the network answers with {len(places)} outputs of one size ({', '.join(places)}): say which are the "
            "final logits with head: {output: ...}"
        )
        super().__init__("asked once", [sentence])


class Headed(nn.Module):
    """A network that answers with logits_BKHW; in training with a tuple of them where `net` has several."""

    def __init__(self, net: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.net, self.reading = net, reading

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        answer = self.net(image if self.reading.takes == "channels_first" else image.movedim(1, -1))
        found = parts(answer)
        if not self.training:
            return self._logits(found[self.reading.output], image, resized=self.reading.resized)
        first, *others = _of_training(found, self.reading.training)
        # The others are often coarser, and are compared with the same truth.
        whole = self.reading.size == "input"
        several = (
            self._logits(first, image, resized=self.reading.resized),
            *(self._logits(part, image, resized=whole) for part in others),
        )
        return several if len(several) > 1 else several[0]

    def _logits(self, part: Tensor, image: Tensor, *, resized: bool) -> Tensor:
        reading = self.reading
        logits = part if reading.channels else part.unsqueeze(1)
        if reading.layout == "channels_last":
            logits = logits.movedim(-1, 1)
        if reading.activation == "sigmoid":
            certain = logits.clamp(_CERTAIN, 1 - _CERTAIN)
            logits = certain.log() - (1 - certain).log()
        elif reading.activation == "softmax":
            logits = logits.clamp_min(_CERTAIN).log()
        if resized and logits.shape[2:] != image.shape[2:]:
            mode = "bilinear" if image.dim() == 4 else "trilinear"
            logits = F.interpolate(logits, size=image.shape[2:], mode=mode, align_corners=False)
        return logits


def headed(door: Door) -> nn.Module:
    """The door's network, answering with logits; what was found out about it is in `notes_of`.

    Raises:
        RecipeError: if it cannot be asked, or no part of its answer can be told to be the logits.
    """
    reading = reading_of(door)
    net = _built(door)
    computed = folded(net)
    # Their names in a checkpoint are others: where its names do not fit, it is loaded into the network as built.
    vars(net)["_as_built"] = door if computed else None
    for name in reading.removed:
        put(net, [name], nn.Identity())
    if not reading.plain:
        net = Headed(net, reading)
    note_on(net, *reading.notes, *_of_the_computed(computed))
    return net


def as_built(net: nn.Module) -> nn.Module | None:
    """For a network whose computed weights are folded, one in which they are not; None for any other."""
    door = vars(net).get("_as_built")
    if door is None:
        return None
    with torch.random.fork_rng(devices=[]):
        return _built(door)


def _of_the_computed(computed: Sequence[str]) -> list[str]:
    if not computed:
        return []
    some = ", ".join(computed[:3]) + (f" and {len(computed) - 3} more" if len(computed) > 3 else "")
    return [f"weights that the network computes before each call are folded into plain ones: {some}"]


def fault_of(door: Door, size: tuple[int, ...]) -> str | None:
    """What is wrong with an input of this size; None if the network takes it. It is asked, on the meta device."""
    reading = reading_of(door)
    net = _on_meta(door)

    def refusal(size: Sequence[int]) -> str | None:
        answer = _answer(net, _image(door, size, reading.takes, "meta"))
        if isinstance(answer, Exception) and not _runs_on_meta(net, door, reading):
            answer = _answer(_asked_on(door, "cpu"), _image(door, size, reading.takes, "cpu"))
        if isinstance(answer, Exception):
            return _reason(answer)
        found = parts(answer)[reading.output]
        shape = _without_channels(found, reading.layout) if reading.channels else tuple(found.shape[1:])
        if reading.size == "own" or reading.resized or shape == tuple(size):
            return None
        return f"it answers at {_times(shape)}"

    reason = refusal(size)
    if reason is None:
        return None
    for step in (2**power for power in range(1, 9)):
        wanted = [-(-side // step) * step for side in size]
        if wanted != list(size) and refusal(wanted) is None:
            return multiples(size, step)
    fits = door.input or reading.example
    return f"this network does not take it ({reason}); {_times(fits)} would fit"


def check_repeatable(door: Door) -> None:
    """That a network, its weights not loaded yet, answers the same each time, where it draws random numbers at all.

    Raises:
        RecipeError: if not, with the lines that draw them.
    """
    reading = reading_of(door)
    with contextlib.suppress(Exception), torch.random.fork_rng(devices=[]), torch.device("meta"):
        if not draws(_on_meta(door), _image(door, reading.example, reading.takes, "meta")):
            return
    net, image = _asked_on(door, "cpu"), _image(door, reading.example, reading.takes, "cpu")
    with torch.random.fork_rng(devices=[]):
        why = why_otherwise(net, torch.rand_like(image))
    if why is not None:
        raise _wrong(why)


def check_logits(net: nn.Module, images: Iterable[np.ndarray], head: Head) -> None:
    """Whether a trained network's answers to real images (1CHW) are logits, and not probabilities.

    Raises:
        WeightsError: if they are: over 0 would mean nothing, and distillation would learn from the wrong numbers.
    """
    if head.activation is not None or getattr(getattr(net, "reading", None), "activation", "none") != "none":
        return
    with torch.no_grad():
        answers = [net.eval()(torch.from_numpy(image)) for image in images]
    if not answers or not all((answer.min() >= 0) & (answer.max() <= 1) for answer in answers):
        return
    several = answers[0].shape[1] > 1
    sums = several and all((answer.sum(1) - 1).abs().max() < 1e-3 for answer in answers)
    what = "its classes sum to 1 at every pixel" if sums else "all of its answers lie between 0 and 1"
    last = "softmax" if sums else "sigmoid"
    raise WeightsError(
        f"the network answers with probabilities, not logits: {what}; leave its last {last} out, or set head: "
        f"{{activation: {last}}} to have it undone"
    )


def notes_of(net: nn.Module) -> tuple[str, ...]:
    """What was found out about a network as it came in, one plain sentence each."""
    found: tuple[str, ...] = vars(net).get("_notes", ())
    return found


def note_on(net: nn.Module, *lines: str) -> None:
    """Keep what was found out about a network with it, for the log and the report."""
    # Underscored: it is no attribute by which a layer differs from the one it was built as (storage/changed.py).
    vars(net)["_notes"] = (*notes_of(net), *lines)


# Asking.


_READ: dict[str, Reading] = {}
_ON_META: dict[str, nn.Module] = {}
"""The network asked last, kept: it is asked again for every size."""
_RUNS: dict[str, bool] = {}
"""Whether a door's network answers on the meta device at all."""


def reading_of(door: Door) -> Reading:
    """How the door's network is read; asked once in a process.

    Raises:
        RecipeError: see `headed`.
    """
    key = repr(door)
    if key not in _READ:
        _READ[key] = _Asking(door).reading()
    return _READ[key]


class _Asking:
    """One network being asked on a small example, without weights that mean anything."""

    def __init__(self, door: Door) -> None:
        self.door, self.head = door, door.head
        self.notes: list[str] = []

    def reading(self) -> Reading:
        net, image, self.takes, answer = self._answered()
        self.size = tuple(image.shape[2:] if self.takes == "channels_first" else image.shape[1:-1])
        found = parts(answer)
        output = self._output(found)
        part = found[output]
        channels = part.dim() == self.door.dims + 2
        layout = self._layout(part)
        shape = _without_channels(part, layout) if channels else tuple(part.shape[1:])
        training = self._training(net, image, output)
        activation, removed = self._activation(net, image)
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
        door = self.door
        sizes = [door.input] if door.input is not None else _ASKED[door.dims]
        layouts: list[Layout] = [self.head.takes] if self.head.takes else ["channels_first", "channels_last"]
        reasons = []
        for device in ("meta", "cpu"):
            net = _on_meta(door) if device == "meta" else _asked_on(door, device)
            for layout in layouts:
                for size in sizes:
                    image = _image(door, size, layout, device)
                    answer = _answer(net, image)
                    if not isinstance(answer, Exception):
                        return net, image, layout, answer
                    reasons.append(answer)
        # What values would say is only said off the meta device.
        reason = _reason(reasons[len(reasons) // 2])
        tried = ", ".join(_times(size) for size in sizes)
        raise _wrong(
            f"the network answers to no image of {door.in_channels} channels ({reason}); tried {tried}: "
            "correct in_channels or dims, or set input to the one size it takes"
        )

    def _output(self, found: Mapping[str, Tensor]) -> str:
        if self.head.output is not None:
            return self._told_output(found)
        fitting = {place: part for place, part in found.items() if self._fits(part)}
        if not fitting:
            raise _wrong(self._why_none(found))
        if len(fitting) > 1:
            known = sorted(
                (place for place in fitting if _known(place) is not None), key=lambda place: _known(place) or 0
            )
            largest = max(part.numel() for part in fitting.values())
            whole = [place for place, part in fitting.items() if part.numel() == largest]
            if not known and len(whole) > 1:
                raise SeveralOutputs(tuple(whole))
            chosen = (known or whole)[0]
        else:
            (chosen,) = fitting
        if chosen:
            rest = [place for place in found if place != chosen]
            beside = f"; it also answers with {', '.join(rest)}" if rest else ""
            self.notes.append(f"the logits are '{chosen}' of what the network answers with{beside}")
        return chosen

    def _told_output(self, found: Mapping[str, Tensor]) -> str:
        output = self.head.output
        if isinstance(output, int) and output < 0:
            tops = list(dict.fromkeys(place.partition(".")[0] for place in found))
            output = tops[output] if -len(tops) <= output else output
        if str(output) not in found:
            raise _wrong(f"head: output: the answer has no '{output}'; it has {_listing(found)}")
        if not self._fits(found[str(output)]):
            raise _wrong(f"head: output: '{output}' cannot be the logits: {self._why_none({'': found[str(output)]})}")
        return str(output)

    def _fits(self, part: Tensor) -> bool:
        door = self.door
        if not part.is_floating_point() or part.shape[:1] != (1,):
            return False
        if part.dim() == door.dims + 1:
            return door.classes == 1 and _proportional(tuple(part.shape[1:]), self.size)
        return part.dim() == door.dims + 2 and bool(self._layouts(part))

    def _layouts(self, part: Tensor) -> list[Layout]:
        """In which layouts the part has as many classes as are told; those of the input's proportions first."""
        both: tuple[Layout, ...] = ("channels_first", "channels_last")
        layouts = [self.head.layout] if self.head.layout else list(both)
        fitting = [each for each in layouts if part.shape[1 if each == "channels_first" else -1] == self.door.classes]
        return sorted(fitting, key=lambda each: not _proportional(_without_channels(part, each), self.size))

    def _layout(self, part: Tensor) -> Layout:
        return self._layouts(part)[0] if part.dim() == self.door.dims + 2 else "channels_first"

    def _why_none(self, found: Mapping[str, Tensor]) -> str:
        door = self.door
        if not found:
            return "the network answers with no tensor"
        if all(not part.is_floating_point() for part in found.values()):
            return "the network answers with whole numbers, not logits: leave its argmax out"
        maps = [part for part in found.values() if part.dim() == door.dims + 2]
        if maps:
            return (
                f"classes is {door.classes}, but the network answers with {_listing(found)} to an input of "
                f"{_times(self.size)}: correct classes, which is {maps[0].shape[1]} there if the second axis has them"
            )
        return (
            f"the network answers with {_listing(found)}: logits have {door.dims + 2} axes, the batch, the classes and "
            "those of the image"
        )

    def _size(self, shape: tuple[int, ...]) -> Literal["input", "own"]:
        if shape == self.size:
            return self.head.size or "input"
        if self.head.size is not None:
            return self.head.size
        if any(side > whole for side, whole in zip(shape, self.size, strict=True)):
            raise _wrong(
                f"the network answers at {_times(shape)} to an input of {_times(self.size)}: set head: {{size: input}} "
                "to have its answer resized"
            )
        if _proportional(shape, self.size):
            share = self.size[0] // shape[0]
            self.notes.append(f"the network answers at 1/{share} of the input's size: its logits are resized to it")
            return "input"
        self.notes.append(
            f"the network answers with {_times(shape)} of an input of {_times(self.size)}, and is compared there, at "
            "the centre; set head: {size: input} to have its answer resized"
        )
        return "own"

    def _training(self, net: nn.Module, image: Tensor, output: str) -> tuple[str, ...]:
        """Every output that training learns from, the final one first."""
        answer = _answer(net, image.expand(2, *image.shape[1:]), training=True)
        if isinstance(answer, Exception):
            self.notes.append(f"the network could not be asked in training ({_reason(answer)})")
            return (output,)
        found = dict(_unstacked(parts(answer), self.door.dims))
        fitting = [place for place, part in found.items() if self._fits(part[:1])]
        if output in fitting:
            return output, *(place for place in fitting if place != output)
        if not fitting:
            self.notes.append(f"in training the network answers with {_listing(found)}, which are no logits")
            return (output,)
        if isinstance(self.head.output, int) and self.head.output < 0:
            fitting = fitting[::-1]
        fitting = sorted(fitting, key=lambda place: (_known(place) is None, -found[place].numel()))
        if len(fitting) > 1:
            self.notes.append(
                f"in training the network answers with {len(fitting)} outputs: {_title(fitting[0])} is taken to be the "
                "final one"
            )
        return tuple(fitting)

    def _activation(self, net: nn.Module, image: Tensor) -> tuple[Activation, tuple[str, ...]]:
        """What is undone in the answer, and the last layers that are taken off instead."""
        told = self.head.activation
        if told == "none":
            return "none", ()
        removed = _ends(net, image, told)
        if removed:
            self.notes.append(f"the network ends in {removed[0]}, which makes probabilities of logits: it is taken off")
            return "none", removed
        if told is not None:
            self.notes.append(
                f"the network's {told} is no layer that could be taken off: its probabilities are turned back into "
                "logits, which costs time and, in integers, accuracy; leave it out of the network"
            )
        return told or "none", ()


def _unstacked(found: Mapping[str, Tensor], dims: int) -> Iterator[tuple[str, Tensor]]:
    """Parts, those with one axis too many taken apart along the second, where deep supervision stacks its heads."""
    for place, part in found.items():
        if part.dim() == dims + 3:
            yield from ((f"{place}|{number}", each) for number, each in enumerate(part.unbind(1)))
        else:
            yield place, part


def _of_training(found: Mapping[str, Tensor], places: Sequence[str]) -> Iterator[Tensor]:
    for place in places:
        whole, stacked, number = place.partition("|")
        yield found[whole][:, int(number)] if stacked else found[whole]


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
    answer = _answer(net, image)
    for handle in handles:
        handle.remove()
    ends = [made[id(part)][0] for part in parts(answer).values() if id(part) in made]
    # A layer that also stands within the network must stay there.
    ends = [module for module in ends if calls[id(module)] == sum(each is module for each in ends)]
    names = net.named_modules(remove_duplicate=False)
    return tuple(name for name, module in names if name and any(module is each for each in ends))


def parts(answer: Any, place: str = "") -> dict[str, Tensor]:
    """Every tensor in an answer, by its place in it: "" for one tensor, "out", "1", "aux.0"."""
    if isinstance(answer, Tensor):
        return {place: answer}
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(answer, Mapping):
        inside = answer.items()
    elif isinstance(answer, list | tuple):
        inside = zip(getattr(answer, "_fields", range(len(answer))), answer, strict=True)
    elif dataclasses.is_dataclass(answer):
        inside = ((field.name, getattr(answer, field.name)) for field in dataclasses.fields(answer))
    found: dict[str, Tensor] = {}
    for key, value in inside:
        found |= parts(value, f"{place}.{key}" if place else str(key))
    return found


def _built(door: Door) -> nn.Module:
    """The door's network on the device that is set; one whose building needs values is built on the CPU, and moved."""
    if torch.get_default_device().type != "meta":
        return door.bare()
    try:
        return door.bare()
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return door.bare().to("meta")


def _asked_on(door: Door, device: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        return _built(door)


def _on_meta(door: Door) -> nn.Module:
    key = repr(door)
    if key not in _ON_META:
        net = _asked_on(door, "meta")
        _ON_META.clear()
        _ON_META[key] = net
    return _ON_META[key]


def _runs_on_meta(net: nn.Module, door: Door, reading: Reading) -> bool:
    key = repr(door)
    if key not in _RUNS:
        answer = _answer(net, _image(door, reading.example, reading.takes, "meta"))
        _RUNS[key] = not isinstance(answer, Exception)
    return _RUNS[key]


def _image(door: Door, size: Sequence[int], layout: Layout, device: str) -> Tensor:
    shape = (door.in_channels, *size) if layout == "channels_first" else (*size, door.in_channels)
    return torch.zeros(1, *shape, device=device)


def _answer(net: nn.Module, image: Tensor, *, training: bool = False) -> Any:
    """What the network answers, or what it raises."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device(image.device), _least(image.device):
            return net.train(training)(image)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a stranger's network may raise anything; the caller tells
        ended = RuntimeError("it ends the program").with_traceback(error.__traceback__)
        return error if isinstance(error, Exception) else ended


def _least(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """On the meta device shapes are all that is asked for."""
    return ShapesAlone() if device.type == "meta" else contextlib.nullcontext()


def _proportional(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether a shape is a size, or a whole fraction of it."""
    if len(shape) != len(size) or not all(shape):
        return False
    shares = {whole / side for side, whole in zip(shape, size, strict=True)}
    return len(shares) == 1 and shares.pop().is_integer()


def _without_channels(part: Tensor, layout: Layout) -> tuple[int, ...]:
    return tuple(part.shape[2:] if layout == "channels_first" else part.shape[1:-1])


def _known(place: str) -> int | None:
    """How usual the name of a place is for final logits, 0 the most; None if it is not."""
    name = place.rpartition(".")[2]
    return _FINAL.index(name) if name in _FINAL else None


def _title(place: str) -> str:
    whole, stacked, number = place.partition("|")
    return f"number {number} of those stacked" if stacked else f"'{whole}'"


def _listing(found: Mapping[str, Tensor]) -> str:
    return ", ".join(
        f"'{place}' ({_times(part.shape)})" if place else _times(part.shape) for place, part in found.items()
    )


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:200].rstrip(".")


def _reason(error: BaseException) -> str:
    """What an error says, in one line, and where in the user's own code it was raised, if there."""
    theirs = line_of(error)
    return first_line(error) if theirs is None else f"{theirs}: {type(error).__name__}: {first_line(error)}"


def _wrong(sentence: str) -> RecipeError:
    return RecipeError("asked once", [sentence])
