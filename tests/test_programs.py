"""Programs of torch.export that are kept for networks of one structure: the same answers, or no program."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from zoo import ZOO, example, made

from export.capture import capture, exported, folded_graph
from export.programs import kept
from export.programs.compiled import compiled_when_run
from export.programs.structure import structure_of
from export.to_onnx import to_onnx

OWN = ("weight norm", "spectral norm")
"""Networks of which nothing is kept: each has classes of its own."""
IMAGE = torch.zeros(1, 2, 8, 8)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_kept", OrderedDict())


class Scaled(nn.Module):
    """A convolution with some attributes of every kind."""

    def __init__(self, **given: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.by: object = 2
        self.sizes = [1, 2]
        vars(self).update(given)

    def forward(self, image: Tensor) -> Tensor:
        return self.act(self.conv(image)) * self.by

    def act(self, features: Tensor) -> Tensor:
        return F.relu(features)


def trained_on(net: nn.Module) -> nn.Module:
    """The network with other weights."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.rand_like(parameter) * 0.1)
    return net


QUICK = ("unet", "residual", "shared", "transposed in groups", "volume")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ZOO if name not in OWN]
)
def test_a_network_with_other_weights_is_written_as_if_nothing_were_kept(name: str, tmp_path: Path) -> None:
    seen = example(name)
    to_onnx(made(name).eval(), seen, tmp_path / "first.onnx")
    first = len(kept._kept)
    net = trained_on(made(name)).eval()
    graph = capture(net, seen)
    to_onnx(net, seen, tmp_path / "kept.onnx")
    assert first == len(kept._kept) == 1, "it has one program"
    kept._kept.clear()
    to_onnx(net, seen, tmp_path / "made.onnx")
    assert (tmp_path / "kept.onnx").read_bytes() == (tmp_path / "made.onnx").read_bytes()
    assert (tmp_path / "kept.onnx").read_bytes() != (tmp_path / "first.onnx").read_bytes()
    torch.testing.assert_close(graph(seen + 0.3), net(seen + 0.3), rtol=0, atol=1e-5)


@dataclass(frozen=True, slots=True)
class Slotted:
    number: int


def as_many() -> None: ...


def other(self: Scaled, features: Tensor) -> Tensor:
    return F.silu(features)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    net[1].weight = net[0].weight
    return net


def without_gradients() -> nn.Module:
    net = Scaled()
    net.conv.weight.requires_grad_(False)
    return net


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "another number": (Scaled, lambda: Scaled(by=3)),
    "another kind of number": (Scaled, lambda: Scaled(by=2.0)),
    "a sign of nothing": (lambda: Scaled(by=0.0), lambda: Scaled(by=-0.0)),
    "within a list": (Scaled, lambda: Scaled(sizes=[1, 3])),
    "a tuple for a list": (Scaled, lambda: Scaled(sizes=(1, 2))),
    "one attribute more": (Scaled, lambda: Scaled(more=None)),
    "within a dataclass": (lambda: Scaled(more=Slotted(1)), lambda: Scaled(more=Slotted(2))),
    "another function": (lambda: Scaled(more=as_many), lambda: Scaled(more=other)),
    "weights that are one": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)), tied),
    "weights that are not trained": (Scaled, without_gradients),
    "weights of another type": (Scaled, lambda: Scaled().double()),
    "weights in another order": (Scaled, lambda: Scaled().to(memory_format=torch.channels_last)),
    "a dropout that drops": (lambda: nn.Dropout(0.5).eval(), lambda: nn.Dropout(0.5)),
    "another class": (nn.ReLU, nn.ReLU6),
    "other names": (lambda: nn.Sequential(nn.ReLU()), lambda: nn.ModuleDict({"a": nn.ReLU()})),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_what_torch_reads_makes_another_structure(pair: str) -> None:
    one, another = PAIRS[pair]
    assert structure_of(one(), IMAGE) == structure_of(one(), IMAGE) is not None
    assert structure_of(one(), IMAGE) != structure_of(another(), IMAGE)


def test_another_example_makes_another_structure() -> None:
    net = Scaled().eval()
    for image in (
        torch.zeros(1, 2, 8, 9),
        torch.zeros(2, 2, 8, 8),
        IMAGE.double(),
        IMAGE.to(memory_format=torch.channels_last),
    ):
        assert structure_of(net, image) != structure_of(net, IMAGE)
    before = structure_of(net, IMAGE)
    with torch.no_grad():
        assert structure_of(net, IMAGE) != before


def test_a_function_of_its_class_that_is_replaced_makes_another_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Scaled().eval()
    image = torch.rand(1, 2, 8, 8)
    capture(net, image)
    monkeypatch.setattr(Scaled, "act", other)
    assert torch.equal(capture(net, image)(image), net(image))


class NoHash(str):
    __hash__ = None  # type: ignore[assignment]


def endless() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


def sparse() -> nn.Module:
    net = Scaled()
    net.register_buffer("few", torch.eye(3).to_sparse())
    return net


def counting() -> Callable[[], int]:
    count = 0

    def counted() -> int:
        nonlocal count
        count += 1
        return count

    return counted


def hooked() -> nn.Module:
    net = Scaled()
    net.conv.register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize(
    "make",
    [
        hooked,
        lambda: Scaled(more=torch.zeros(2)),
        lambda: Scaled(more=counting()),
        lambda: Scaled(more=object()),
        lambda: Scaled(more=nn.ReLU()),
        lambda: Scaled(more=NoHash("a")),
        sparse,
        lambda: fx.symbolic_trace(nn.Sequential(nn.ReLU())),
    ],
    ids=["hooks", "tensor", "closure", "object", "module of nobody", "no hash", "sparse", "graph"],
)
def test_of_what_is_not_known_to_be_the_same_nothing_is_kept(make: Callable[[], nn.Module]) -> None:
    net = make().eval()
    assert structure_of(net, IMAGE) is None
    exported(net, IMAGE)
    assert not kept._kept
    # torch itself refuses this one.
    assert structure_of(Scaled(more=endless()), IMAGE) is None


def test_axes_left_open_are_each_programs_own() -> None:
    exported(Scaled(), IMAGE, ("size",))
    assert not kept._kept


def test_buffers_that_are_not_saved_are_the_networks_own() -> None:
    class Offset(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.register_buffer("offset", torch.full((1,), by), persistent=False)

        def forward(self, image: Tensor) -> Tensor:
            return image + self.offset

    for by in (1.0, 2.0):
        assert torch.equal(capture(Offset(by), IMAGE)(IMAGE), IMAGE + by)
    assert len(kept._kept) == 1


def test_the_caller_may_change_its_program_and_its_weights_are_not_kept_alive() -> None:
    net = Scaled().eval()
    wanted = net(IMAGE + 1).detach()
    program = exported(net, IMAGE)
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.mul.Tensor:
            node.replace_all_uses_with(node.args[0])
    graph = capture(net, IMAGE)
    assert torch.equal(graph(IMAGE + 1), wanted)
    weight = weakref.ref(net.conv.weight)
    del net, program, graph, node
    gc.collect()
    assert weight() is None and len(kept._kept) == 1


def test_so_many_are_kept_and_the_one_used_last_is_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT", 2)
    nets = [Scaled(by=by).eval() for by in (1, 2, 3)]
    for net in (nets[0], nets[1], nets[0], nets[2]):
        exported(net, IMAGE)
    assert list(kept._kept) == [structure_of(nets[0], IMAGE), structure_of(nets[2], IMAGE)]


def test_graphs_are_compiled_when_they_are_run_and_as_before_afterwards() -> None:
    image, by_hand = torch.ones(1, 2, 8, 8), fx.GraphModule.recompile
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU())
    with compiled_when_run():
        put_off = fx.symbolic_trace(net)
        assert not hasattr(put_off, "_code")
    assert fx.GraphModule.recompile is by_hand
    assert torch.equal(put_off(image), net(image)) and "return" in put_off.code
    program = exported(Scaled(), image)
    # What torch gives can be run by whoever takes it.
    assert torch.equal(program.module()(image), program.module(check_guards=False)(image))
    assert "conv2d" in capture(Scaled(), image).code


def test_a_graph_that_is_made_in_steps_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, recompile = list[fx.GraphModule](), fx.GraphModule.recompile

    def compiled(graph: fx.GraphModule) -> object:
        graphs.append(graph)
        return recompile(graph)

    monkeypatch.setattr(fx.GraphModule, "recompile", compiled)
    graph = folded_graph(made("two norms").eval(), example("two norms"), ())
    assert graphs == [graph] and "input" in inspect.signature(graph.forward).parameters
