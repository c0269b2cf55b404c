"""Programs of torch.export written in functional operations without being traced a second time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from zoo import example, made

from export.backends.onnxruntime import OnnxRuntime
from export.capture import capture, exported, quiet
from export.programs.functional import in_functions, named_as_traced
from export.to_onnx import to_onnx


def listed(graph: fx.Graph) -> list[tuple[str, ...]]:
    return [(node.name, node.op, str(node.target), str(node.args), str(node.kwargs)) for node in graph.nodes]


@pytest.mark.parametrize("name", ["unet", "transposed in groups", "projection", "volume"])
def test_what_is_written_is_what_tracing_again_gives_under_the_same_names(name: str) -> None:
    net, seen = made(name), example(name)
    program = exported(net, seen)
    with quiet():
        traced = exported(net, seen).run_decompositions({}).module(check_guards=False)
    assert in_functions(program)
    written = named_as_traced(program.module(check_guards=False).graph)
    assert listed(written) == listed(traced.graph)


class Module(nn.Module):
    """A function of one image, as a network."""

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of = of

    def forward(self, image: Tensor) -> Tensor:
        return self.of(image)


def read_before_and_after(x: Tensor) -> Tensor:
    y = x * 2
    before = y + 1
    y.add_(3)
    return before + y


def changed_through_a_view(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 0].relu_()
    return y


def changed_under_a_view(x: Tensor) -> Tensor:
    y = x * 2
    seen = y.flatten(2)
    y.neg_()
    return y + seen.view(x.shape)


def changed_under_a_dropout(x: Tensor) -> Tensor:
    y = x * 2
    same = F.dropout(y, training=False)
    y.mul_(3)
    return same + y


def changed_twice(x: Tensor) -> Tensor:
    y = F.relu_(x + 1)
    y.mul_(2).sub_(1)
    return y * y


def the_same_memory_by_another_type(x: Tensor) -> Tensor:
    y = x - 0.5
    same = y.to(torch.float32)
    y.relu_()
    return same + y


FUNCTIONS = (
    read_before_and_after,
    changed_through_a_view,
    changed_under_a_view,
    changed_under_a_dropout,
    changed_twice,
    the_same_memory_by_another_type,
)


def image() -> Tensor:
    return torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("of", FUNCTIONS, ids=lambda of: of.__name__)
def test_what_changes_a_tensor_in_place_means_the_same_in_a_graph(of: Callable[[Tensor], Tensor]) -> None:
    assert torch.equal(capture(Module(of), image())(image()), of(image()))


def test_what_changes_a_tensor_in_place_means_the_same_in_a_file(tmp_path: Path) -> None:
    def all_of_them(x: Tensor) -> Tensor:
        return torch.cat([of(x + 0) for of in FUNCTIONS], 1)

    with OnnxRuntime().open(to_onnx(Module(all_of_them), image(), tmp_path / "net.onnx")) as infer:
        np.testing.assert_allclose(infer(image().numpy()), all_of_them(image()), atol=1e-6)


def test_a_batch_norm_that_learns_is_left_to_torch() -> None:
    program = exported(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), torch.zeros(1, 3, 4, 4))
    assert not in_functions(program)
