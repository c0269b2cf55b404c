"""16 bits: every tensor of a network is of the type that its operation says, whatever the operation is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shared_fixtures import write_recipe
from test_half import answers, in_half, written
from torch import Tensor, fx, nn
from zoo import C, conv, image

from compress.errors import PassError
from compress.passes.half import Half as HalfPass
from compress.recipe import load
from export.backends.onnxruntime import OnnxRuntime
from export.half.network import Half

Operation = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """A network with an operation in its middle."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation
        self.before, self.after = conv(3, C), conv(C, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.operation(self.before(x)))


def unpooled(x: Tensor) -> Tensor:
    return F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)


def largest_two(x: Tensor) -> Tensor:
    return x * torch.topk(x, 2, dim=1)[0].mean(1, keepdim=True)


OPERATIONS: dict[str, Operation] = {
    "unpooling": unpooled,
    "topk": largest_two,
    "max over channels": lambda x: x + x.max(1, keepdim=True)[0],
    "where of two numbers": lambda x: x * torch.where(x > 0, 1.0, -0.5),
    "a condition as numbers": lambda x: x + (x > 0) * 0.5,
    "one hot": lambda x: x + F.one_hot(x.argmax(1), C).permute(0, 3, 1, 2) * 0.5,
}


class _Types(fx.Interpreter):
    """Runs a graph and keeps the floating types that come out of its nodes."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.seen: dict[str, torch.dtype] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        first = value[0] if isinstance(value, tuple) else value
        if n.op == "call_function" and isinstance(first, Tensor) and first.is_floating_point():
            self.seen[n.name] = first.dtype
        return value


def types(half: Half, x: Tensor) -> dict[str, torch.dtype]:
    """What every operation of the file gives, but for casts."""
    typed = _Types(half.typed())
    with torch.no_grad():
        typed.run(x)
    own = {node.name for node in half.graph.graph.nodes}
    return {name: dtype for name, dtype in typed.seen.items() if name in own}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_gives_the_type_that_is_said_of_it(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, images = Between(OPERATIONS[name]).eval(), [image(seed, 1, 3, 16, 16) for seed in (1, 2)]
    half = in_half(net, images)
    assert half.layers() == {"float16": 2, "float32": 0}
    found = types(half, images[0])
    assert {name for name, dtype in found.items() if dtype is torch.float16} == half.halves & set(found)
    answer = answers(OnnxRuntime(), written(half, images[0], tmp_path / "half.onnx"))(images[1])
    with torch.no_grad():
        # Where two channels are all but equal, rounding decides which of them is the largest.
        assert float((half(images[1]) - answer).abs().mean() / answer.abs().mean()) < 5e-3


@pytest.mark.parametrize(
    ("operation", "name"),
    [(largest_two, "topk"), (lambda x: torch.einsum("bchw,cd->bdhw", x, torch.eye(C)), "einsum")],
    ids=["topk", "einsum"],
)
def test_what_onnx_has_not_in_bfloat16_stays_in_float32_and_is_told(
    operation: Operation, name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    images = [image(seed, 1, 3, 16, 16) for seed in (1, 2)]
    half = in_half(Between(operation).eval(), images, "bfloat16")
    assert half.reasons() == {name: "ONNX has no such operation in bfloat16"}
    assert written(half, images[0], tmp_path / "half.onnx").path.is_file()
    assert not in_half(Between(operation).eval(), images, "float16").reasons()


@pytest.mark.parametrize("word", ["float16", "bfloat16"])
def test_a_network_none_of_whose_layers_can_be_in_16_bits_is_refused(
    word: Any, recipe: dict[str, object], tmp_path: Path
) -> None:
    task = load(write_recipe(tmp_path, {**recipe, "passes": ["half"]})).task()
    with pytest.raises(PassError, match=rf"half: no layer is left in {word}: .*encoder\.0\.0.*: the recipe keeps it"):
        HalfPass(type=word, keep=("*",), calibrate=2)(task.net, task)
