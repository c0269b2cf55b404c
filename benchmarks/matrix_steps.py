"""The ways of passes that leave fewer bits: each done, saved, loaded, exported, built and run as a run does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from benchmarks.matrix_data import drawn
from benchmarks.matrix_rows import WIDTHS, Network, Shape, built, image_of
from benchmarks.matrix_same import NEAR, NEAR_INT8, SHAKEN, SHAKEN_INT8, apart_on_average, compared, from_itself
from compress.cache import Cache
from compress.contracts import Pass
from compress.errors import BackendError
from compress.measure.complexity import bit_operations
from compress.passes.binary import Binary
from compress.passes.distill import Distill
from compress.passes.half import Half as HalfPass
from compress.passes.int8 import Int8
from compress.passes.low_bit import LowBit
from compress.pipeline.build import Build
from compress.pipeline.deployment import Deployment, target_on
from compress.pipeline.exporting import placed
from compress.pipeline.exports import Exports, stem_of
from compress.pipeline.measure import Answers
from compress.pipeline.stages import Stage, baseline, chain
from compress.task import Task
from compress.train.augment import Augment
from export.artifact import Artifact
from export.files import make_folder
from export.graph import convolutions, layer_name
from export.half.network import Half
from export.half.operations import PRODUCTS
from export.layers import layers_of
from export.quantization.learnt import weight_path
from export.quantization.quantized import Quantized
from export.registry import find_device
from export.to_onnx import Style

FEW = Distill(steps=1, rate=1e-4, augment=Augment(preset="none"))
"""Training that only shows that a network can be trained."""
BEST = 20_000
"""Up to how many parameters a network is given the whole effort of `int8`, which learns from each layer in turn."""
WIDER = 4
"""How many times as wide a toy is made for `binary`, which leaves narrow layers as they are."""
LOADED = 1e-4
"""How far a loaded network's logits may be from those of the one that was saved, on average."""
FOREGROUND = 0.02
"""The share of pixels that a network takes for more than background."""
OFF = {"float16": 0.05, "bfloat16": 0.3}
"""How far 16 bits may take the simulated logits from those in float, on average: a hundred units or so of rounding."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """One network, and the task that passes are given."""

    network: Network
    folder: Path

    def columns(self) -> dict[str, Callable[[], str]]:
        """By its word, each way: what it came to, or an error."""
        return {
            "half": lambda: self._in_half("float16", ("onnxruntime", "openvino")),
            "bfloat16": lambda: self._in_half("bfloat16", ("openvino",)),
            "low_bit": self._in_few_bits,
            "best": self._with_effort,
            "binary": lambda: self._in_one_bit("binary", Binary(recover=FEW)),
            "signs": lambda: self._in_one_bit("signs", Binary(activations=1, zero=True, recover=FEW)),
        }

    @cached_property
    def task(self) -> Task:
        """On drawn images, of as many classes as the network has."""
        return task_of(self.network, make_folder(self.folder / "data"))

    def _in_half(self, word: Any, runtimes: tuple[str, ...]) -> str:
        done = Done.of(word, HalfPass(type=word), self.task, self.folder)
        half = done.stage.net
        assert isinstance(half, Half)
        done.check_loaded()
        silent = [name for name in _in_32_bits(half) if name not in half.kept]
        assert not silent, f"in 32 bits without a reason: {', '.join(silent)}"
        image = done.image
        with torch.no_grad():
            apart = apart_on_average(half(image).numpy(), self.task.net(image).numpy())
        if apart > OFF[word]:
            itself = from_itself(self.task.net, image, half.format.unit)
            assert apart <= 2 * itself, f"its simulation is {apart:.1%} from the network in float"
        for runtime in runtimes:
            done.checked(runtime)
        counts = half.layers()
        in_file = _bits_of_layers(done.file(runtimes[0]), self.network.shape)
        assert (in_file[16], in_file[32]) == tuple(counts.values()), f"{counts}, but in the file {dict(in_file)}"
        return f"{counts[word]} of {sum(counts.values())} layers; {apart:.0e} from float"

    def _in_few_bits(self) -> str:
        done = Done.of("low_bit", LowBit(bits=4, steps=2), self.task, self.folder)
        done.check_loaded()
        said = [done.same_integers(word) for word in ("onnxruntime", "openvino")]
        counts = done.bits("onnxruntime")
        in_file = _bits_of_layers(done.file("onnxruntime"), self.network.shape)
        assert in_file[4] + in_file[2] >= counts[4] > 0, f"{counts}, but in the file {dict(in_file)}"
        return f"{counts[4]} of {counts.total()} layers in 4 bits; {'; '.join(said)}"

    def _with_effort(self) -> str:
        total = sum(parameter.numel() for parameter in self.task.net.parameters())
        effort: Any = "best" if total <= BEST else "normal"
        done = Done.of("best", Int8(effort=effort), self.task, self.folder)
        done.check_loaded()
        return f"{effort}: {'; '.join(done.same_integers(word) for word in ('onnxruntime', 'openvino'))}"

    def _in_one_bit(self, word: str, how: Binary) -> str:
        wider = replace(self.network, options=_wider(self.network.options))
        task = task_of(wider, make_folder(self.folder / "wide"))
        done = Done.of(word, how, task, self.folder)
        done.check_loaded()
        said = [done.same_floats(word) for word in ("onnxruntime", "openvino")]
        marked = sum(name.endswith((".bits", ".trits")) for name in _stored(done.stage.path))
        in_file = done.file("onnxruntime").made.get("weights_in_bits", 0)
        assert 0 < marked <= in_file, f"{marked} weights are saved in bits, and {in_file} are in the file"
        return f"{marked} weights in bits; {'; '.join(said)}"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A network after a pass, in memory and as it was saved."""

    made: nn.Module
    stage: Stage
    task: Task
    exports: Exports

    @classmethod
    def of(cls, name: str, step: Pass, task: Task, folder: Path) -> Done:
        """The pass done to the task's network, as a run does it."""
        cache, keeping = Cache(make_folder(folder / name)), Keeping(step=step)
        begun = baseline(task, name, cache, lambda _: None)
        (stage,) = chain([(name, cast(Pass, keeping))], begun, task, cache, lambda _: None)
        return cls(made=keeping.made[0], stage=stage, task=task, exports=Exports(task, Style(), cache))

    @property
    def image(self) -> torch.Tensor:
        """One that the pass has not seen."""
        return torch.from_numpy(next(self.task.data.images(self.task.data.cases["test"])))

    @property
    def quantized(self) -> Quantized:
        """As it was loaded."""
        assert isinstance(self.stage.net, Quantized)
        return self.stage.net

    def at(self, word: str) -> Deployment:
        """The runtime on this host, in one thread."""
        return Deployment(backend=word, target=target_on(find_device("cpu"), 1))

    def file(self, word: str) -> Artifact:
        """The ONNX file for a runtime."""
        at = self.at(word)
        return self.exports.file(self.stage, stem_of(self.stage, at), at.rules if self.stage.quantized else None)

    def bits(self, word: str) -> Counter[int]:
        """How many layers have weights of so many bits, as the network itself says of a runtime."""
        rules = self.at(word).rules
        assert rules is not None
        in_float = {name for name, _ in self.quantized.in_float(rules)}
        grids = self.quantized.learnt.grids
        return Counter(
            32 if layer_name(node) in in_float else grids[path].bits if (path := weight_path(node)) in grids else 8
            for node in convolutions(self.quantized.graph)
        )

    def check_loaded(self) -> None:
        """Saved and loaded, it is the network that the pass returned: to the last bit, and in all that it says."""
        made, loaded = self.made.eval(), self.stage.net
        assert made.description == loaded.description, "loaded, it is described otherwise"
        states = made.state_dict(), loaded.state_dict()
        other = sorted({*states[0]} ^ {*states[1]})
        assert not other, f"saved or loaded alone: {', '.join(other[:3])}"
        for name, tensor in states[0].items():
            assert tensor.dtype == states[1][name].dtype, f"loaded, {name} is {states[1][name].dtype}"
            assert torch.equal(tensor, states[1][name]), f"loaded, {name} differs"
        for word in ("onnxruntime", "openvino"):
            nets = [_in_torch(net, self.at(word)) for net in (made, loaded)]
            with torch.no_grad():
                apart = apart_on_average(*(net(self.image).numpy() for net in nets))
            # Training leaves tensors in another layout, whose kernels add up in another order.
            assert apart < LOADED, f"loaded, its logits differ by {apart:.0e}"

    def checked(self, word: str) -> tuple[Artifact, NDArray[np.float32]]:
        """Built for a runtime, held to the network as a run holds it, and its answer.

        Raises:
            BackendError: if a run would refuse the artifact.
        """
        at = self.at(word)
        artifact = at.build(self.file(word), self.file(word).path.parent)
        build = Build(stage=self.stage, deployment=at, key=word, artifact=artifact)
        answers, backend = Answers(self.task), at.open()
        with backend.open(artifact) as infer:
            fault = answers.fault(build, backend, answers.parity(build, infer), lambda _: None)
            if fault is not None:
                raise BackendError(f"the artifact is refused: {fault}")
            return artifact, infer(self.image.numpy())

    def same_integers(self, word: str) -> str:
        """See `compared`; and that its bits are counted as they are stored."""
        answer = self.checked(word)[1]
        net = _in_torch(self.stage.net, self.at(word))
        integers, floats = (bit_operations(each, self.task.example) for each in (net, self.task.net))
        assert integers < floats, f"{integers:,} bit operations, of {floats:,} in float"
        return compared(answer, net, self.image, NEAR_INT8, SHAKEN_INT8)

    def same_floats(self, word: str) -> str:
        """See `compared`."""
        return compared(self.checked(word)[1], self.stage.net, self.image, NEAR, SHAKEN)


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """A pass, and what it returned, before that was saved."""

    step: Pass
    made: list[nn.Module] = field(default_factory=list)

    @property
    def requires(self) -> Any:
        """As the pass."""
        return self.step.requires

    @property
    def ensures(self) -> Any:
        """As the pass."""
        return self.step.ensures

    @property
    def uses(self) -> Any:
        """As the pass."""
        return self.step.uses

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        self.made.append(self.step(net, task))
        return self.made[-1]


def task_of(network: Network, folder: Path) -> Task:
    """A network on images drawn for it."""
    net = decided(built(network), network.shape)
    _, channels, *size = network.shape
    with torch.no_grad():
        logits = net(torch.zeros(network.shape)).shape[1]
    data = drawn(folder, channels, tuple(size), max(2, logits))
    return Task(data=data, net=net, seed=0)


@torch.no_grad()
def decided(net: nn.Module, shape: Shape) -> nn.Module:
    """The network, nearly always sure of the background by its last bias, as a trained one mostly is.

    With logits around zero every rounding changes the class of some pixels, and nothing could be told from that.
    """
    image = image_of(shape, 9)
    before = net(image)
    rivals = before[:, 1:].amax(1) - before[:, 0] if before.shape[1] > 1 else before[:, 0]
    shift = torch.quantile(rivals.flatten()[:100_000], 1 - FOREGROUND)
    for bias in _biases_of_logits(net, before.shape[1]):
        old = bias[0].clone()
        bias[0] += shift if before.shape[1] > 1 else -shift
        moved = (net(image) - before)[:, 0]
        if torch.allclose(moved, bias[0] - old, rtol=0.05, atol=1e-6):
            return net
        bias[0] = old
    return net


def _biases_of_logits(net: nn.Module, logits: int) -> Iterator[torch.Tensor]:
    """The biases of layers with as many channels as there are logits, the last first."""
    for module in reversed(list(net.modules())):
        bias = getattr(module, "bias", None)
        if isinstance(bias, torch.Tensor) and len(bias) == logits:
            yield bias


def _wider(options: Any, factor: int = WIDER) -> Any:
    """The options with widths so many times as large."""
    if not isinstance(options, dict):
        return options
    return {key: _times(value, factor) if key in WIDTHS else _wider(value, factor) for key, value in options.items()}


def _times(value: Any, factor: int) -> Any:
    if isinstance(value, list):
        return [_times(each, factor) for each in value]
    return value * factor if isinstance(value, int) else value


def _in_torch(net: nn.Module, at: Deployment) -> nn.Module:
    """What simulates the artifact for a runtime; of 16 bits the network itself."""
    return net if isinstance(net, Half) else placed(net, at.rules)


def _in_32_bits(half: Half) -> Iterator[str]:
    """The sums of products that are not in 16 bits."""
    for node in half.graph.graph.nodes:
        if node.target in PRODUCTS and node.name not in half.halves:
            yield node.name


def _stored(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _bits_of_layers(artifact: Artifact, shape: Shape) -> Counter[int]:
    """How many layers a file has whose weights are stored in so many bits."""
    return Counter(layer.bits for layer in layers_of(artifact.path, shape) if layer.bits)
