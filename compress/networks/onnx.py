"""A network from an ONNX file, whoever wrote it: PyTorch, TensorFlow, Paddle, MATLAB, opset 9 and later.

The graph becomes a module of torch's own layers, with the operators between them, so that every pass finds what it
finds in any other network. Its answers are compared with ONNX Runtime's before anything else is done.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.errors import RecipeError, WeightsError
from compress.networks.foreign.adapter import adapted
from compress.networks.foreign.answers import tensors_in
from compress.networks.foreign.checks import fault_of
from compress.networks.foreign.head import Head
from compress.networks.foreign.notes import note_on
from compress.networks.foreign.onnx.description import graph_of, image_of, text_of
from compress.networks.foreign.onnx.file import File, read
from compress.networks.foreign.onnx.graph import Translated
from compress.networks.foreign.onnx.layers import KNOWN
from compress.networks.foreign.onnx.node import Node
from compress.networks.foreign.probe import reading_of
from export.errors import BackendError

_read: dict[str, File] = {}
"""Files read in this process, by what is in them."""
_checked: set[str] = set()

NEAR = 1e-3
"""How far an answer may be from ONNX Runtime's, over its largest value; 16-bit floats compute in fewer digits."""
NEAR_HALF = 3e-2


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Onnx:
    """The network that is in an ONNX file, and its weights.

    A description holds the graph without the weights, so that what is saved is loaded without the file.
    """

    path: str
    """The file, relative to the recipe. Stored as its name alone."""
    classes: Annotated[int, Field(ge=1, le=255)] = None  # type: ignore[assignment]
    """Output channels, background included; 1 is a single sigmoid logit. Found in the file when left out."""
    in_channels: Annotated[int, Field(ge=1)] = None  # type: ignore[assignment]
    """Found in the file when left out."""
    dims: Literal[2, 3] = None  # type: ignore[assignment]
    """2 for images, 3 for volumes. Found in the file when left out."""
    input: tuple[int, ...] | None = None
    """The size it takes, if it takes only one; found in a file with a fixed size."""
    head: Head = Head()
    batch: int | None = None
    """How many images it takes at once, where a file of a fixed batch takes no other number; found."""
    graph: str | None = None
    """The graph without its weights, compressed, as text; read from the file when left out."""
    sha256: str | None = None
    """Of the file as it was; found when left out."""

    def __post_init__(self) -> None:
        """The file is read once, here: what is kept of it is its name, its hash and its graph."""
        file = None if self.graph is not None else _file(Path(self.path))
        if file is not None:
            found = Translated(file.graph, file.opset)
            self._keep("path", file.path.name)
            self._keep("sha256", file.sha256)
            self._keep("graph", text_of(file.graph, file.opset, found.weights))
        assert self.graph is not None
        if None in (self.classes, self.in_channels, self.dims) or self.input is None:
            self._find()
        if self.input is not None and len(self.input) != self.dims:
            raise ValueError(f"input: {list(self.input)} has not {self.dims} sides")
        if file is not None:
            self._keep("batch", _batch(file))

    def _keep(self, name: str, value: Any) -> None:
        # Frozen for others: what the file tells is told once.
        object.__setattr__(self, name, value)

    def _find(self) -> None:
        """What the file tells of its input and its answer, where it was not given."""
        graph, _ = graph_of(str(self.graph))
        _, (_, *axes) = image_of(graph)
        if self.dims is None:
            self._keep("dims", len(axes) - 1)
        if self.in_channels is None:
            self._keep("in_channels", _channels(axes, self.head, self.path))
        sides = axes[:-1] if _channels_last(axes, self.in_channels, self.head) else axes[1:]
        if self.input is None and all(sides):
            self._keep("input", tuple(sides))
        if self.classes is None:
            self._keep("classes", 1)
            self._keep("classes", _classes(self))

    def __call__(self) -> nn.Module:
        """The network, with layers freshly initialised, answering with logits_BKHW."""
        net = adapted(self)
        file = _read.get(str(self.sha256))
        if file is not None:
            note_on(net, *file.notes)
        return net

    def check(self) -> None:
        """Compare with ONNX Runtime, once in a process.

        Raises:
            RecipeError: if an answer differs, with the first node where it does; or if it cannot be asked.
        """
        reading = reading_of(self)
        file = _read.get(str(self.sha256))
        if file is None or file.sha256 in _checked:
            return
        sizes = [reading.example, *([] if self.input else [reading.example[::-1]])]
        _compare(file, [_shape_for(file, self.in_channels, size, reading.takes) for size in dict.fromkeys(sizes)])
        _checked.add(file.sha256)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this size, and what would be right; None if nothing."""
        return fault_of(self, size)

    def unwrapped(self) -> nn.Module:
        """The module that the graph describes."""
        return Translated(*graph_of(str(self.graph)), self.batch)


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The weights that are in an ONNX file, by their names in the module that it becomes."""
    file = _file(path)
    return Translated(file.graph, file.opset).state_dict()


def _file(path: Path) -> File:
    file = read(path, KNOWN)
    _read[file.sha256] = file
    try:
        Translated(file.graph, file.opset)
    except WeightsError as error:
        raise RecipeError(str(path), [str(error)]) from None
    return file


def _channels_last(axes: Sequence[int | None], channels: int, head: Head) -> bool:
    """Whether an input's channels come last, as far as its shape tells."""
    if head.takes is not None:
        return head.takes == "channels_last"
    return axes[0] != channels and axes[-1] == channels


def _channels(axes: Sequence[int | None], head: Head, path: str) -> int:
    """The axis of the channels is the one that is told, or much the smaller one."""
    first, last = axes[0], axes[-1]
    if head.takes is not None:
        told = last if head.takes == "channels_last" else first
    elif first is None or last is None:
        told = first or last
    else:
        told = min(first, last)
    if told is None:
        raise ValueError(f"{path}: leaves the number of channels open: give in_channels")
    return told


def _classes(network: Onnx) -> int:
    """The axis of the answer that is no side of the image."""
    net = network.unwrapped()
    _, (batch, *_) = image_of(graph_of(str(network.graph))[0])
    sizes: list[tuple[int, ...]] = [network.input] if network.input else [(64, 96), (128, 192), (256, 384), (512, 512)]
    if network.dims == 3 and not network.input:
        sizes = [(32, 32, 48), (64, 64, 96), (128, 128, 128)]
    reason = ""
    for size in sizes:
        for last in (False, True):
            shape = (*size, network.in_channels) if last else (network.in_channels, *size)
            try:
                with torch.no_grad():
                    answer = net.to("meta")(torch.empty(batch or 1, *shape, device="meta"))
            except RuntimeError as error:
                reason = reason or str(error)
                continue
            found = {_axis_of_classes(tuple(part.shape), size) for part in tensors_in(answer).values()} - {None}
            if len(found) == 1:
                (classes,) = found
                assert classes is not None
                return classes
            told = ", ".join(f"'{name}' {tuple(part.shape)}" for name, part in tensors_in(answer).items())
            raise ValueError(
                f"{network.path}: answers with {told}, which does not tell the number of classes: give classes"
            )
    raise ValueError(
        f"{network.path}: answers to no image of {network.in_channels} channels ({reason}): give in_channels or input"
    )


def _batch(file: File) -> int | None:
    """The batch of a file that answers otherwise, or not at all, where it is given several images at once."""
    _, (batch, *axes) = image_of(file.graph)
    if batch is None:
        return None
    net = Translated(file.graph, file.opset).eval()
    images = torch.from_numpy(_image((2 * batch, *(side or 64 for side in axes)), seed=0))
    try:
        with torch.no_grad():
            both = tensors_in(net(images))
            each = [tensors_in(net(image)) for image in images.split(batch)]
        same = all(
            _distance(both[name].numpy(), torch.cat([one[name] for one in each]).numpy()) < NEAR for name in both
        )
    except RuntimeError:
        return batch
    return None if same else batch


def _axis_of_classes(shape: tuple[int, ...], size: tuple[int, ...]) -> int | None:
    if len(shape) == len(size) + 1:
        return 1
    if len(shape) != len(size) + 2:
        return None
    first = {side / whole for side, whole in zip(shape[2:], size, strict=True)}
    last = {side / whole for side, whole in zip(shape[1:-1], size, strict=True)}
    return shape[-1] if len(last) == 1 and len(first) > 1 else shape[1]


# Comparing.


def _shape_for(file: File, channels: int, size: Sequence[int], takes: str) -> tuple[int, ...]:
    _, (batch, *_) = image_of(file.graph)
    return (batch or 1, channels, *size) if takes == "channels_first" else (batch or 1, *size, channels)


def _compare(file: File, shapes: Sequence[tuple[int, ...]]) -> None:
    """That the module answers as ONNX Runtime does, on noise that is smooth and rough as images are."""
    from export.backends.onnxruntime import answers

    net = Translated(file.graph, file.opset).eval()
    name, _ = image_of(file.graph)
    half = any(tensor.data_type == 10 for tensor in file.graph.initializer)
    near = NEAR_HALF if half else NEAR
    for number, shape in enumerate(shapes):
        image = _image(shape, number)
        ours: dict[str, tuple[Node, np.ndarray]] = {}

        def see(node: Node, output: str, value: Any, ours: dict[str, Any] = ours) -> None:
            ours[output] = node, value.numpy() if isinstance(value, Tensor) else value

        with torch.no_grad():
            net.values(torch.from_numpy(image), see)
        wanted = [each.name for each in file.graph.output]
        try:
            theirs = answers(_as_it_came(file, wanted), {name: _as_taken(file, image)})
        except BackendError as error:
            raise RecipeError(str(file.path), [str(error)]) from None
        if all(_distance(ours[output][1], theirs[output]) <= near for output in wanted):
            continue
        raise RecipeError(str(file.path), [_first_difference(file, name, image, ours, near)])


def _as_it_came(file: File, outputs: Sequence[str]) -> bytes:
    """The file itself, which answers with these outputs too."""
    model = onnx.load(file.path)
    _answering(model, outputs)
    return bytes(model.SerializeToString())


def _answering(model: Any, outputs: Sequence[str]) -> None:
    there = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in there)


def _as_taken(file: File, image: np.ndarray) -> np.ndarray:
    half = file.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    return image.astype(np.float16) if half else image


def _first_difference(file: File, name: str, image: np.ndarray, ours: dict[str, Any], near: float) -> str:
    from export.backends.onnxruntime import answers

    model = onnx.helper.make_model(file.graph, opset_imports=[onnx.helper.make_opsetid("", file.opset)])
    model.ir_version = min(model.ir_version, 10)
    asked = [output for output, (_, value) in ours.items() if value.dtype == np.float32]
    _answering(model, asked)
    theirs = answers(model.SerializeToString(), {name: _as_taken(file, image)})
    worst = {output: _distance(ours[output][1], theirs[output]) for output in asked}
    first = next((output for output in asked if worst[output] > near), asked[-1])
    node = ours[first][0]
    return (
        f"'{node.name}' ({node.kind}) is computed otherwise than by ONNX Runtime, by {worst[first]:.1%} of its largest "
        "value: this network cannot be taken; give the network in PyTorch (network: {python: ...}) if you have it"
    )


def _distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(theirs)
    if not (finite == np.isfinite(ours)).all():
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(ours - theirs)[finite].max() / max(np.abs(theirs[finite]).max(), 1e-6))


def _image(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Noise, summed along its sides to be smooth, and a little more noise."""
    rng = np.random.default_rng(seed)
    rough = rng.standard_normal(shape)
    smooth = rough
    for axis in range(1, len(shape)):
        if shape[axis] > 8:
            smooth = np.cumsum(smooth, axis=axis) / np.sqrt(shape[axis])
    smooth = (smooth - smooth.mean()) / (smooth.std() + 1e-6)
    return (smooth + 0.1 * rough).astype(np.float32)
