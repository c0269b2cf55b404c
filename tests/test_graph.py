"""Capturing networks, folding their batch norms, and writing transposed convolutions as convolutions."""

import copy
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from zoo import EVERY, C, body, conv, example, image, made

from export.capture import capture
from export.errors import ExportError
from export.graph import (
    LAYERS,
    aten,
    convolutions,
    fold_batch_norm,
    layer_name,
    transposed_as_convolution,
    weight_of,
)
from export.modules import copy_of


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Equal but for the order of sums, in float64."""
    return torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.detach().abs().max()))


def count(graph: fx.GraphModule, *targets: object) -> int:
    return sum(node.target in targets for node in graph.graph.nodes)


@pytest.mark.parametrize("name", EVERY)
def test_capturing_folding_and_rewriting_change_no_value(name: str) -> None:
    net, x = made(name).double(), example(name).double()
    before = copy.deepcopy(net.state_dict())
    graph = capture(net, x)
    assert count(graph, *LAYERS) == len(list(convolutions(graph)))
    with torch.no_grad():
        logits = net(x)
        assert close(graph(x), logits)
        fold_batch_norm(graph)
        assert close(graph(x), logits)
        transposed_as_convolution(graph)
        assert close(graph(x), logits)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "left"), [("unet", 0), ("recurrent", 0), ("volume", 0), ("norm before conv", 1), ("two norms", 2)]
)
def test_every_batch_norm_that_is_alone_behind_a_convolution_is_folded(name: str, left: int) -> None:
    graph = capture(made(name), example(name))
    fold_batch_norm(graph)
    assert count(graph, aten._native_batch_norm_legit_no_training.default) == left


def test_a_batch_norm_stays_where_the_convolution_has_another_reader() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv(3, 4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.norm(x) + x

    graph = capture(Net().eval(), image())
    assert fold_batch_norm(graph) == 0


def test_a_step_that_recurs_with_its_batch_norm_keeps_one_weight() -> None:
    graph = capture(made("recurrent"), image())
    assert fold_batch_norm(graph) == 3
    steps = [node for node in convolutions(graph) if layer_name(node) == "2.step.0"]
    assert len(steps) == 3
    assert len({node.args[1] for node in steps}) == 1


def test_a_convolution_with_two_batch_norms_in_turn_gets_two_weights() -> None:
    graph = capture(made("shared with norms"), image())
    fold_batch_norm(graph)
    names = [layer_name(node) for node in convolutions(graph)]
    assert names == ["0", "2.conv", "2.conv", "3"]
    assert len({node.args[1] for node in convolutions(graph)}) == 4


def test_layers_are_named_by_their_weights() -> None:
    names = {name: [layer_name(node) for node in convolutions(capture(made(name), image()))] for name in NAMES}
    assert names == NAMES


NAMES = {
    "functional": ["0", "2.kernel", "2.up.kernel", "2", "3"],
    "weight norm": ["0", "2", "4"],
    "spectral norm": ["0", "2", "3"],
    "standardized": ["0", "2", "4"],
    "clash": ["0", "2.a.b_c", "2.a_b.c", "3"],
    "buffers": ["0", "2.sobel", "2.conv", "3"],
}


def test_a_computed_weight_is_computed_once() -> None:
    graph = capture(made("weight norm"), image())
    assert count(graph, aten._weight_norm.default) == 0
    assert not [name for name, _ in graph.named_parameters() if "original" in name]


class ManyTransposed(nn.Module):
    """Transposed convolutions of every shape side by side, their outputs padded to one size."""

    def __init__(self) -> None:
        super().__init__()
        shapes = product((2, 3, 4, 5), (1, 2, 3), (0, 1), (0, 1))
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(
                4, 6, kernel, stride, padding, extra, groups=1 + index % 2, bias=index % 3 > 0, dtype=torch.float64
            )
            for index, (kernel, stride, padding, extra) in enumerate(shapes)
            if extra < stride
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = [F.relu(layer(x)) if index % 4 else layer(x) for index, layer in enumerate(self.layers)]
        return torch.cat([F.pad(y, (0, 32 - y.shape[3], 0, 32 - y.shape[2])) for y in outputs], 1)


def test_transposed_convolutions_of_every_shape_are_written_exactly() -> None:
    net, x = ManyTransposed(), image(0, 2, 4, 5, 7).double()
    graph = capture(net, x)
    written = transposed_as_convolution(graph)
    assert close(graph(x), net(x))
    assert written == len(net.layers) - count(graph, aten.conv_transpose2d.input) > len(net.layers) / 2


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.ConvTranspose2d(4, 4, 1, stride=2), "most of the work would be zeros"),
        (nn.ConvTranspose2d(4, 4, (2, 4), stride=(2, 4)), "pixel shuffle is square"),
        (nn.ConvTranspose2d(4, 4, 3, stride=2, dilation=2), "dilated"),
    ],
)
def test_other_transposed_convolutions_stay_as_they_are(layer: nn.Module, why: str) -> None:
    graph = capture(nn.Sequential(layer), image(0, 1, 4, 8, 8))
    assert transposed_as_convolution(graph) == 0, why


def test_the_shuffle_comes_behind_the_activation() -> None:
    graph = capture(made("transposed"), image())
    fold_batch_norm(graph)
    transposed_as_convolution(graph)
    (shuffle,) = (node for node in graph.graph.nodes if node.target is aten.pixel_shuffle.default)
    assert shuffle.args[0].target is aten.relu.default


def test_a_graph_serves_other_batches_and_sizes() -> None:
    net = made("unet")
    graph = capture(net, image(), ("batch", "size"))
    fold_batch_norm(graph)
    x = image(1, 3, 3, 48, 64)
    with torch.no_grad():
        assert torch.allclose(graph(x), net(x), atol=1e-5)


def test_a_captured_graph_copies_and_changes_its_mode_like_any_module() -> None:
    graph = capture(made("unet of one class"), image())
    again = copy.deepcopy(graph).eval().train()
    assert torch.equal(graph(image()), again(image()))


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": x}


class TwoImages(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return x
        return -x


class Repeats(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.abs().max())):
            x = F.relu(x)
        return x


class Classes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


REFUSED = {
    Two: "Two returns a tuple of 2 tensors; a network for export returns one tensor of logits",
    Named: "Named returns a dict of 1 tensors; a network for export returns one tensor of logits",
    TwoImages: r"TwoImages.forward\(\): missing a required argument: 'y'; a network for export takes one image",
    Branches: r"depends on the values of its input, at test_graph.py:\d+: if x.mean\(\) > 0:; torch.where",
    Repeats: r"depends on the values of its input, at test_graph.py:\d+: for _ in range\(int\(x.abs\(\).max\(\)\)\):",
    Classes: "Classes returns int64 with 3 axes; a network for export returns one tensor of logits",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_captured_is_refused_in_one_sentence(
    kind: type[nn.Module], capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(ExportError, match=REFUSED[kind]) as refusal:
        capture(kind(), image())
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_an_image_that_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(ExportError, match=r"cannot be captured by torch.export: .*to have 1 channels, but got 3"):
        capture(conv(1, 2), image())


def test_an_axis_that_the_network_fixes_cannot_be_left_open() -> None:
    with pytest.raises(ExportError, match=r"Sequential .* only images of the example's size, so no axis can be left"):
        capture(made("position"), image(), ("size",))


def test_half_of_a_network_may_be_shared() -> None:
    # The bias is shared, the weights are not: folding one norm must not move the other's bias.
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(3, C), conv(3, C)
            self.b.bias = self.a.bias
            self.norm = nn.BatchNorm2d(C)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.a(x)) + self.b(x)

    net = Net().double().eval()
    nn.init.normal_(net.norm.running_mean)  # type: ignore[arg-type]
    graph = capture(net, image().double())
    assert fold_batch_norm(graph) == 1
    assert close(graph(image().double()), net(image().double()))


def test_a_folded_weight_keeps_its_type() -> None:
    graph = capture(body(conv(C, C), nn.BatchNorm2d(C)).double().eval(), image().double())
    fold_batch_norm(graph)
    assert {weight_of(graph, node).dtype for node in convolutions(graph)} == {torch.float64}


class Keeping(nn.Module):
    """Leaves what it answers where others look for it, as MONAI's DynUNet its heads."""

    def __init__(self, place: list[Tensor] | dict[int, Tensor]) -> None:
        super().__init__()
        self.place, self.conv = place, nn.Conv2d(1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.place[0] = self.conv(x)
        return self.place[0]


@pytest.mark.parametrize("place", [[torch.rand(1)], {0: torch.rand(1)}], ids=["list", "dictionary"])
def test_what_modules_share_is_still_shared_when_a_network_was_captured(
    place: list[Tensor] | dict[int, Tensor],
) -> None:
    net = nn.Sequential(Keeping(place), nn.Conv2d(2, 1, 1)).eval()
    net.place, before = place, place[0]  # type: ignore[assignment]
    capture(net, torch.zeros(1, 1, 8, 8))
    assert net.place is net[0].place is place
    assert place[0] is before
    copied = copy_of(net)
    copied(torch.zeros(2, 1, 8, 8))
    assert len(copied.place[0]) == 2  # type: ignore[index]
