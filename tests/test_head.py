"""What strangers' networks answer with becomes logits; what cannot be told is refused with what to say."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import RecipeError, WeightsError
from compress.networks.foreign import asking, probe
from compress.networks.foreign.adapter import LogitsAdapter, adapted
from compress.networks.foreign.checks import check_logits, fault_of
from compress.networks.foreign.head import Head
from compress.networks.foreign.notes import notes_of
from compress.networks.foreign.probe import reading_of
from export.backends.reference import Reference
from export.to_onnx import to_onnx

IMAGE = torch.randn(2, 2, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def unasked() -> None:
    """Lambdas are told apart by where they lie in memory, which two of them may share in turn."""
    probe._READ.clear()
    asking._ON_META.clear()
    asking._RUNS.clear()


class Pair(NamedTuple):
    """An answer with names and places."""

    coarse: Tensor
    fine: Tensor


@dataclasses.dataclass
class Given:
    """An answer as an object."""

    logits: Tensor
    hidden: Tensor


class Stranger(nn.Module):
    """One convolution, and whatever somebody does to its answer."""

    def __init__(self, answer: Callable[..., Any], classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, classes, 3, padding=1)
        self.aux = nn.Conv2d(2, classes, 1)
        self.last = nn.Sigmoid()
        self.soft = nn.Softmax(dim=1)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self, x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Door:
    """A door to a `Stranger`."""

    answer: Callable[..., Any]
    classes: int = 3
    in_channels: int = 2
    dims: int = 2
    input: tuple[int, ...] | None = None
    head: Head = dataclasses.field(default_factory=Head)

    def unwrapped(self) -> nn.Module:
        torch.manual_seed(0)
        return Stranger(self.answer, self.classes)


def last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


def logits(door: Door) -> Tensor:
    """What the convolution says."""
    with torch.no_grad():
        return door.unwrapped().conv(IMAGE)


AS_OURS: dict[str, Callable[[Any, Tensor], Any]] = {
    "tensor": lambda net, x: net.conv(x),
    "dictionary": lambda net, x: OrderedDict(out=net.conv(x), aux=net.aux(x)),
    "Hugging Face": lambda net, x: {"loss": None, "logits": net.conv(x), "hidden_states": (x,)},
    "one key": lambda net, x: {"anything": net.conv(x)},
    "list of one": lambda net, x: [net.conv(x)],
    "coarser ones beside": lambda net, x: (F.avg_pool2d(net.aux(x), 4), F.avg_pool2d(net.aux(x), 2), net.conv(x)),
    "labels of the image beside": lambda net, x: (net.conv(x), net.aux(x).mean((2, 3))),
    "names and places": lambda net, x: Pair(F.avg_pool2d(net.aux(x), 2), net.conv(x)),
    "object": lambda net, x: Given(net.conv(x), x),
    "classes last": lambda net, x: last(net.conv(x)),
    "ends in a sigmoid": lambda net, x: net.last(net.conv(x)),
    "ends in a softmax": lambda net, x: {"out": net.soft(net.conv(x))},
    "a sigmoid for each": lambda net, x: {"out": net.last(net.conv(x)), "aux": net.last(net.aux(x))},
}


@pytest.mark.parametrize("answer", AS_OURS.values(), ids=AS_OURS)
def test_logits_are_found_in_an_answer(answer: Callable[..., Any]) -> None:
    door = Door(answer=answer)
    net = adapted(door).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(IMAGE), logits(door))
    assert isinstance(net, LogitsAdapter) == bool(notes_of(net)) or answer is AS_OURS["ends in a sigmoid"]


def test_a_network_that_answers_as_ours_is_left_as_it_is() -> None:
    net = adapted(Door(answer=AS_OURS["tensor"]))
    assert isinstance(net, Stranger)
    assert notes_of(net) == ()


@pytest.mark.parametrize(
    ("answer", "told", "note"),
    [
        (lambda net, x: [net.aux(x), net.conv(x)], Head(output=1), ""),
        (lambda net, x: [net.aux(x), net.conv(x)], Head(output=-1), ""),
        (lambda net, x: {"a": net.aux(x), "b": net.conv(x)}, Head(output="b"), ""),
        (lambda net, x: {"a": [net.aux(x), net.conv(x)]}, Head(output="a.1"), ""),
        (lambda net, x: net.conv(last(x).movedim(-1, 1)), Head(layout="channels_first"), ""),
        (lambda net, x: torch.sigmoid(net.conv(x)), Head(activation="sigmoid"), "turned back into logits"),
        (lambda net, x: net.last(net.conv(x)), Head(activation="sigmoid"), "last, which makes probabilities"),
    ],
)
def test_what_is_told_of_the_head_is_followed(answer: Callable[..., Any], told: Head, note: str) -> None:
    door = Door(answer=answer, head=told)
    net = adapted(door).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(IMAGE), logits(door), rtol=1e-4, atol=1e-5)
    assert note in " ".join(notes_of(net))


def test_softmax_undone_is_the_logits_but_for_a_constant() -> None:
    door = Door(answer=lambda net, x: net.conv(x).softmax(1), head=Head(activation="softmax"))
    with torch.no_grad():
        found = adapted(door).eval()(IMAGE)
    torch.testing.assert_close(found.softmax(1), logits(door).softmax(1))


def test_an_answer_at_a_quarter_of_the_size_is_resized_and_told() -> None:
    door = Door(answer=lambda net, x: F.avg_pool2d(net.conv(x), 4))
    net = adapted(door).eval()
    with torch.no_grad():
        found = net(IMAGE)
    wanted = F.interpolate(F.avg_pool2d(logits(door), 4), scale_factor=4, mode="bilinear")
    torch.testing.assert_close(found, wanted)
    assert "1/4 of the input's size" in notes_of(net)[0]
    own = adapted(dataclasses.replace(door, head=Head(size="own"))).eval()
    with torch.no_grad():
        assert own(IMAGE).shape == (2, 3, 8, 12)


def test_an_unpadded_answer_is_left_and_told() -> None:
    net = adapted(Door(answer=lambda net, x: net.conv(x)[..., 4:-4, 4:-4])).eval()
    assert "compared there, at the centre" in notes_of(net)[0]
    with torch.no_grad():
        assert net(IMAGE).shape == (2, 3, 24, 40)


def test_one_class_may_come_without_an_axis() -> None:
    door = Door(answer=lambda net, x: net.conv(x)[:, 0], classes=1)
    with torch.no_grad():
        torch.testing.assert_close(adapted(door).eval()(IMAGE), logits(door))


def test_an_image_with_its_channels_last_is_given_so() -> None:
    def answer(net: Any, x: Tensor) -> Tensor:
        assert x.shape[-1] == 2
        return last(net.conv(x.movedim(-1, 1)))

    door = Door(answer=answer)
    net = adapted(door).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(IMAGE), logits(door))
    assert "channels last" in notes_of(net)[0]


def test_a_sigmoid_within_the_network_stays() -> None:
    def gated(net: Any, x: Tensor) -> Tensor:
        return net.last(net.conv(x) * net.last(net.aux(x)))

    door = Door(answer=gated, classes=1)
    net = adapted(door).eval()
    assert isinstance(net.last, nn.Sigmoid)
    with pytest.raises(WeightsError, match=r"probabilities, not logits: all of its answers .*activation: sigmoid"):
        check_logits(net, [IMAGE[:1].numpy()], door.head)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (lambda net, x: net.conv(x).softmax(1), r"sum to 1 at every pixel; .*activation: softmax"),
        (lambda net, x: torch.sigmoid(net.conv(x)), r"between 0 and 1; .*activation: sigmoid"),
    ],
)
def test_probabilities_are_refused_by_their_values(answer: Callable[..., Any], what: str) -> None:
    door = Door(answer=answer)
    images = [IMAGE[:1].numpy(), IMAGE[1:].numpy()]
    with pytest.raises(WeightsError, match=what):
        check_logits(adapted(door), images, door.head)
    check_logits(adapted(door), images, Head(activation="none"))
    told = dataclasses.replace(door, head=Head(activation="sigmoid"))
    check_logits(adapted(told), images, told.head)


def test_logits_are_no_probabilities() -> None:
    door = Door(answer=AS_OURS["tensor"])
    check_logits(adapted(door), [IMAGE[:1].numpy()], door.head)
    check_logits(adapted(door), [], door.head)


@pytest.mark.parametrize(
    ("answer", "given", "told"),
    [
        (
            lambda net, x: [net.conv(x), net.aux(x)],
            Head(),
            r"2 outputs of one size \(0, 1\): .* head: \{output: \.\.\.\}",
        ),
        (lambda net, x: net.conv(x).argmax(1), Head(), "whole numbers, not logits: leave its argmax out"),
        (lambda net, x: net.conv(x)[:, :2], Head(), r"classes is 3, but the network answers with 1x2x64x96"),
        (lambda net, x: net.conv(x).mean((2, 3)), Head(), "logits have 4 axes"),
        (lambda net, x: None, Head(), "no tensor"),
        (lambda net, x: {"a": net.conv(x)}, Head(output="b"), r"head: output: the answer has no 'b'; it has 'a'"),
        (lambda net, x: [net.conv(x)], Head(output=-3), r"head: output: the answer has no '-3'"),
        (lambda net, x: {"a": net.conv(x), "b": x}, Head(output="b"), "'b' cannot be the logits: classes is 3"),
        (lambda net, x: F.interpolate(net.conv(x), scale_factor=2), Head(), r"128x192 to an input of 64x96: set head"),
        (lambda net, x: net.conv(x[:, :1]), Head(), r"answers to no image of 2 channels \(.*expected .*2 channels"),
        (lambda net, x: net.nothing(x), Head(), "has no attribute 'nothing'"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused(answer: Callable[..., Any], given: Head, told: str) -> None:
    with pytest.raises(RecipeError, match=told) as error:
        adapted(Door(answer=answer, head=given))
    assert "\n" not in str(error.value)


def test_in_training_it_answers_with_all_its_heads_the_final_one_first() -> None:
    def answer(net: Any, x: Tensor) -> Any:
        coarse = F.avg_pool2d(net.aux(x), 2)
        return {"aux": coarse, "out": net.conv(x)} if net.training else net.conv(x)

    net = adapted(Door(answer=answer)).train()
    final, aux = net(IMAGE)
    torch.testing.assert_close(final, net.net.conv(IMAGE))  # type: ignore[operator, union-attr]
    assert aux.shape == final.shape
    assert "in training the network answers with 2 outputs: 'out' is" in " ".join(notes_of(net))


def test_heads_stacked_in_training_are_taken_apart() -> None:
    def answer(net: Any, x: Tensor) -> Tensor:
        return torch.stack([net.conv(x), net.aux(x)], dim=1) if net.training else net.conv(x)

    net = adapted(Door(answer=answer))
    first, second = net.train()(IMAGE)
    torch.testing.assert_close(first, net.net.conv(IMAGE))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(second, net.net.aux(IMAGE))  # type: ignore[operator, union-attr]
    assert isinstance(net.eval()(IMAGE), Tensor)


def test_a_network_that_looks_at_values_is_asked_on_the_cpu() -> None:
    def answer(net: Any, x: Tensor) -> Tensor:
        return net.conv(x) * (1.0 if x.sum().item() < 1e9 else 2.0)

    door = Door(answer=answer)
    with torch.no_grad():
        torch.testing.assert_close(adapted(door).eval()(IMAGE), logits(door))
    assert fault_of(door, (33, 35)) is None


def test_asking_draws_no_random_numbers() -> None:
    def answer(net: Any, x: Tensor) -> Tensor:
        return net.conv(x) + 0 * torch.rand(1).to(x.device)

    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    reading_of(Door(answer=answer))
    assert torch.equal(torch.rand(1), wanted)


def test_sizes_are_asked_of_the_network() -> None:
    halves = Door(answer=lambda net, x: F.interpolate(net.conv(x)[..., ::2, ::2], scale_factor=2))
    assert fault_of(halves, (30, 50)) is None
    assert fault_of(halves, (31, 50)) == "this network needs multiples of 2: pad to 32x50 or set data size"

    told = dataclasses.replace(halves, head=Head(size="input"))
    assert fault_of(told, (31, 50)) is None
    with torch.no_grad():
        assert adapted(told).eval()(IMAGE[..., 1:, :]).shape == (2, 3, 31, 48)

    def only(net: Any, x: Tensor) -> Tensor:
        assert x.shape[2:] == (40, 40), "positions are those of 40x40"
        return net.conv(x)

    fixed = Door(answer=only, input=(40, 40))
    assert fault_of(fixed, (40, 40)) is None
    assert fault_of(fixed, (41, 41)) == "this network does not take it (positions are those of 40x40); 40x40 would fit"
    with pytest.raises(RecipeError, match="set input to the one size it takes"):
        adapted(dataclasses.replace(fixed, input=None))


def test_a_wrapped_network_leaves_torch_as_one_onnx_file(tmp_path: Path) -> None:
    door = Door(answer=lambda net, x: {"out": last(F.avg_pool2d(net.conv(x), 4)), "aux": net.aux(x)})
    net = adapted(door).eval()
    artifact = to_onnx(net, IMAGE[:1], tmp_path / "net.onnx")
    with torch.no_grad():
        wanted = net(IMAGE[:1]).numpy()
    with Reference().open(artifact) as infer:
        np.testing.assert_allclose(infer(IMAGE[:1].numpy()), wanted, rtol=1e-4, atol=1e-4)
