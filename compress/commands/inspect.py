"""`compress inspect`: the layers of a network, and where the time goes on a device, beside the MACs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from compress.data.dataset.tiles import Size, by
from compress.editing.pruning.dependency.groups import Group
from compress.editing.pruning.trial import groups
from compress.errors import BackendError, SegpressError
from compress.measure.latency import Timing, in_turns
from compress.pipeline.bounds import floors, layers_work, many_zeros
from compress.pipeline.deployment import Deployment, target_on
from compress.pipeline.exporting import written
from compress.recipe import load
from compress.storage.description import build_net, read_description, shape_of
from compress.storage.weights import load_net, load_weights
from export.artifact import Artifact, Port
from export.backend import Profiler
from export.floor import Floor
from export.layers import Layer, layers_of, opened_port, total, with_times
from export.modules import precision_of
from export.quantization.saturation import PairSums, pair_sums
from export.reach import PYTHON, word_of
from export.registry import find_backend, find_device, words
from export.target import Target
from export.to_onnx import Style


@dataclass(frozen=True, kw_only=True)
class Where:
    """What an inspection runs on."""

    backend: str = "onnxruntime"
    device: str = "cpu"
    python: str = PYTHON
    """Of a device elsewhere: the one there that has the runtime."""
    size: Size | None = None
    """Of the input; None takes the recipe's, the saved network's or the file's own."""
    runs: int = 30


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The layers of one network on one runtime, in the order they run."""

    model: str
    backend: str
    device: str
    threads: int
    input: tuple[int, ...]
    """BCHW, or BCDHW of volumes."""
    layers: Sequence[Layer]
    own: Mapping[str, float]
    """The runtime's own work between layers (reordering), by its kind, in microseconds."""
    whole_us: float
    """Of one profiled run."""
    latency_ms: float
    """Median of a run without the profiler."""
    groups: Sequence[Group]
    """What pruning could remove together; empty for a file that is no torch network."""
    pair_sums: PairSums | None
    """Whether integer layers can be cut off at 16 bits on a CPU without VNNI; None where none can be asked."""
    floors: Mapping[str, Floor] = field(default_factory=dict)
    """The time that this network cannot beat on each device whose peaks are published, by the device's word."""
    notes: Sequence[str]

    @property
    def outside_us(self) -> float:
        """The profiled run's time that is no layer's: the runtime's own work, and what lies between nodes."""
        return self.whole_us - total(self.layers)["microseconds"]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        layers = [{key: value for key, value in asdict(layer).items() if key != "nodes"} for layer in self.layers]
        record = {**asdict(replace(self, layers=(), groups=())), "layers": layers, "outside_us": self.outside_us}
        return {**record, "total": dict(total(self.layers)), "groups": [asdict(group) for group in self.groups]}


def inspect(model: Path, where: Where) -> Inspection:
    """Look at a recipe's network (.yaml), a saved one (.safetensors) or an ONNX file (.onnx).

    Raises:
        SegpressError: if it is none of these, the size does not fit, or the runtime cannot tell times.
    """
    deployment = _deployment(where)
    backend = deployment.open()
    assert isinstance(backend, Profiler)
    with tempfile.TemporaryDirectory() as scratch:
        exported = _exported(model, where, deployment, Path(scratch))
        built = deployment.build(exported.file, Path(scratch))
        image = np.random.default_rng(0).normal(size=exported.shape).astype(np.float32)
        # First without the profiler, whose own cost is then seen.
        latency = _latency(deployment, built, image)
        profile = backend.profile(built, image, where.runs)
        layers, own = with_times(layers_of(exported.file.path, exported.shape), profile)
        graph = onnx.load(exported.file.path)
        sums, sparse = pair_sums(graph), many_zeros(graph)
    notes = [*exported.notes, *_busy(deployment.target)]
    return Inspection(
        model=str(model),
        backend=where.backend,
        device=where.device,
        threads=deployment.target.threads,
        input=exported.shape,
        layers=layers,
        own=own,
        whole_us=profile.whole_us,
        latency_ms=latency,
        groups=exported.groups,
        pair_sums=sums,
        floors=floors(layers_work(layers, exported.shape, sparse)),
        notes=notes,
    )


def _deployment(where: Where) -> Deployment:
    for what, word, known in (
        ("device", word_of(where.device), words("export.devices")),
        ("backend", where.backend, words("export.backends")),
    ):
        if word not in known:
            raise BackendError(f"no {what} '{word}'; there are {', '.join(known)}")
    if not issubclass(find_backend(where.backend), Profiler):
        profilers = [word for word in words("export.backends") if issubclass(find_backend(word), Profiler)]
        raise BackendError(f"{where.backend} does not tell how long its layers take; choose {' or '.join(profilers)}")
    try:
        device = find_device(where.device, where.python)
    except ValueError as error:
        raise BackendError(f"--device {error}") from None
    if where.backend not in device.backends:
        raise BackendError(f"{where.backend} does not run on {where.device}; {', '.join(device.backends)} do")
    return Deployment(backend=where.backend, target=target_on(device, None))


@dataclass(frozen=True, kw_only=True)
class _Exported:
    file: Artifact
    shape: tuple[int, ...]
    groups: Sequence[Group] = ()
    notes: Sequence[str] = ()


def _exported(model: Path, where: Where, at: Deployment, scratch: Path) -> _Exported:
    if model.suffix in (".yaml", ".yml"):
        recipe = load(model)
        net, notes = build_net(recipe.network).eval(), []
        if recipe.weights is None:
            notes = ["the recipe gives no weights: the network is as it was made, which changes no time and no count"]
        else:
            load_weights(net, recipe.weights)
        return _of_net(model, net, where.size or recipe.data.size, at, scratch, notes)
    if not model.is_file():
        raise SegpressError(f"{model}: no such file")
    if model.suffix == ".safetensors":
        net, described = load_net(model), read_description(model)
        size = where.size or (None if described is None else described.size)
        if size is None:
            raise SegpressError(f"{model}: its description tells no input size; give --size, such as 256x256")
        return _of_net(model, net, size, at, scratch, [])
    if model.suffix == ".onnx":
        file = _sealed(model, scratch)
        return _Exported(file=file, shape=_shape(model, file, where.size))
    raise SegpressError(
        f"{model}: inspect takes a recipe (.yaml), a saved network (.safetensors) or an ONNX file (.onnx)"
    )


def _of_net(model: Path, net: nn.Module, size: Size, at: Deployment, scratch: Path, notes: Sequence[str]) -> _Exported:
    network: Mapping[str, Any] = net.description  # type: ignore[assignment]
    while next(iter(network)) not in words("compress.networks"):
        # What passes have made of a network: it is described by what it began as.
        network = next(iter(network.values()))["net"]
    shape = shape_of(network)
    if len(size) != shape.dims:
        raise SegpressError(f"{model}: input is {by(size)}, but the network's has {shape.dims} sides")
    fault = shape.check_size(size)
    if fault:
        raise SegpressError(f"{model}: input is {by(size)}; {fault}")
    example = torch.zeros(1, shape.in_channels, *size)
    file = written(net, at.rules, example, scratch / "model.onnx", Style(), {})
    return _Exported(file=file, shape=tuple(example.shape), groups=_groups(net, example), notes=notes)


def _groups(net: nn.Module, example: Tensor) -> list[Group]:
    # Nothing is pruned any more once a network is in integers or 16 bits.
    return groups(net, example) if precision_of(net) == "float" else []


def _sealed(model: Path, scratch: Path) -> Artifact:
    """The ONNX file as an artifact: with the sidecar it has, or, where it is someone else's, with one of its own."""
    if model.with_name(f"{model.name}.json").is_file():
        return Artifact.read(model)
    ports = opened_port(model)
    copy = scratch / model.name
    copy.write_bytes(model.read_bytes())
    return Artifact(path=copy, format="onnx", input=ports[0], output=ports[1]).sealed()


def _shape(model: Path, file: Artifact, size: Size | None) -> tuple[int, ...]:
    port: Port = file.input
    own = port.shape[2:]
    if len(own) not in (2, 3) or port.shape[1] == -1:
        raise SegpressError(f"{model}: its input is {port.shape}; inspect takes networks of images, BCHW, or volumes")
    if size is None and -1 in own:
        raise SegpressError(f"{model}: its input may have any size; give --size, such as 256x256")
    wanted = size or own
    if len(wanted) != len(own) or any(axis not in (-1, side) for axis, side in zip(own, wanted, strict=True)):
        raise SegpressError(f"{model}: its input is {by(own)}, which --size cannot change")
    return (1, port.shape[1], *wanted)


def _latency(at: Deployment, built: Artifact, image: np.ndarray) -> float:
    timing = Timing(samples=44, seconds=10, warm_up=1)
    with at.open().open(built) as infer:
        times = in_turns({"it": partial(at.target.time, infer, [image])}, timing, 0)["it"].times_ms
    return float(np.median(times))


def _busy(target: Target) -> list[str]:
    load = float(target.conditions()["load"])
    cpus = target.facts()["cpus"]
    if load <= cpus + 0.5:
        return []
    return [f"the host is busy (load {load:.1f} on {cpus} CPUs): shares can be believed, milliseconds hardly"]


def surprises(found: Inspection, most: int = 3) -> list[str]:
    """The layers whose share of the time is furthest above their share of the MACs, in words."""
    sums = total(found.layers)
    if not sums["macs"] or not sums["microseconds"]:
        return []
    shares = [
        (layer.microseconds / found.whole_us, (layer.macs or 0) / sums["macs"], layer.name) for layer in found.layers
    ]
    ranked = sorted(shares, key=lambda share: share[1] - share[0])[:most]
    return [
        f"{name} takes {time:.0%} of the time and has {macs:.1%} of the MACs"
        for time, macs, name in ranked
        if time > macs + 0.01
    ]
