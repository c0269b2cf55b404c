"""Where Quantize-Dequantize pairs stand, for every network and every runtime's rules."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from zoo import EVERY, ZOO, C, body, conv, example, image, quantized

from compress.editing.calibration import calibrated
from export.backends import onnxruntime, openvino, tensorrt
from export.capture import folded_graph
from export.graph import LAYERS, TRANSPOSED, aten, constant, convolutions, layer_name
from export.quantization.assignment import Assignment
from export.quantization.placement import candidates, operator_name, operators
from export.quantization.qdq import PAIR, STRETCHED
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.quantization.scales import grid
from export.to_onnx import to_onnx

MOVERS = (
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.pixel_shuffle.default,
    aten.slice.Tensor,
    aten.upsample_nearest2d.vec,
)
RULES = {"onnxruntime": onnxruntime.RULES, "openvino": openvino.RULES, "tensorrt": tensorrt.RULES}
every_rules = pytest.mark.parametrize("rules", RULES.values(), ids=RULES)


def of(net: nn.Module, *keep_float: str) -> Quantized:
    graph = folded_graph(net.eval(), image(), ())
    return Quantized(graph, calibrated(graph, [image(1)], None, 1), Assignment(keep_float=keep_float))


def pairs(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.target is PAIR]


def reader_of_weight(graph: fx.GraphModule, stem: str) -> fx.Node:
    """The pair that stands on the weight whose name begins so."""
    (found,) = (node for node in pairs(graph) if str(node.args[0].target).startswith(stem))
    return found


def scale_of(graph: fx.GraphModule, pair: fx.Node) -> torch.Tensor:
    return constant(graph, pair.args[1])


def in_integers(graph: fx.GraphModule) -> list[str]:
    """Layers that read both their image and their weight through a pair, by the paths of their weights."""
    layers = [node for node in graph.graph.nodes if node.target in LAYERS]
    found = [node for node in layers if node.args[1].target is PAIR]
    assert all(on_a_grid(node.args[0]) for node in found)
    return [str(node.args[1].args[0].target).rstrip("_").removesuffix(".weight") for node in found]


def on_a_grid(node: fx.Node) -> bool:
    if node.target is aten.cat.default:
        return all(map(on_a_grid, node.args[0]))
    return node.target in (PAIR, STRETCHED) or (node.target in MOVERS and on_a_grid(node.args[0]))


@pytest.mark.parametrize("name", EVERY)
def test_pairs_stand_on_every_layer_that_counts_as_integer_and_on_no_other(name: str) -> None:
    net, x = quantized(name), example(name)
    with torch.no_grad():
        logits = net.graph(x)
        for rules in RULES.values():
            graph = net.placed(rules)
            assert len(in_integers(graph)) == net.layers(rules)["integer"]
            assert {constant(graph, pair.args[2]).dtype for pair in pairs(graph)} <= allowed(rules)
            assert torch.isfinite(graph(x)).all()
            # 8 bits change an untrained network by some percent; a wrong scale by far more.
            assert (graph(x) - logits).abs().mean() < 0.1 * logits.abs().max()


def allowed(rules: Rules) -> set[torch.dtype]:
    return {torch.int8} if rules.activations == "int8" else {torch.int8, torch.uint8}


@every_rules
def test_keep_float_keeps_these_layers_and_no_other(rules: Rules) -> None:
    every = quantized("unet")
    kept = quantized("unet", ("decoder.1", "encoder.*.0", "head"))
    named = {"encoder.0.0", "encoder.1.0", "encoder.2.0", "decoder.1.0", "decoder.1.3", "head"}
    assert set(in_integers(kept.placed(rules))) == set(in_integers(every.placed(rules))) - named
    untouched = {layer_name(node) for node in convolutions(kept.placed(rules))}
    assert named <= untouched


def test_names_that_clash_as_underscores_keep_their_own_scales() -> None:
    graph = quantized("clash").placed(onnxruntime.RULES)
    large, small = (scale_of(graph, reader_of_weight(graph, stem)) for stem in ("2.a.b_c", "2.a_b.c"))
    assert large.max() > 10 * small.max()


def test_a_weight_that_two_calls_share_is_quantized_once() -> None:
    graph = quantized("shared").placed(openvino.RULES)
    assert len(reader_of_weight(graph, "2.conv").users) == 2


def test_a_weight_read_along_two_axes_has_a_scale_for_each() -> None:
    graph = quantized("tied").placed(openvino.RULES)
    found = [node for node in pairs(graph) if node.args[0].target == "2.down.weight"]
    assert sorted((node.args[3], *scale_of(graph, node).shape) for node in found) == [(0, 2 * C), (1, C)]
    assert {next(iter(node.users)).target in TRANSPOSED for node in found} == {True, False}


@pytest.mark.parametrize("name", ["transposed", "transposed overlapping", "transposed in groups"])
def test_a_rewritten_transposed_convolution_keeps_the_range_behind_its_activation(name: str) -> None:
    net = quantized(name)
    graph = net.placed(onnxruntime.RULES)
    (shuffle,) = (node for node in graph.graph.nodes if node.target is aten.pixel_shuffle.default)
    before = shuffle.args[0]
    assert before.target is PAIR
    assert before.args[0].target is aten.relu.default
    (relu,) = (node.name for node in net.graph.graph.nodes if node.target is aten.relu.default and node.name != "relu")
    low, high = net.ranges[net.names.index(relu)].tolist()
    assert scale_of(graph, before).item() == pytest.approx(grid((low, high), onnxruntime.RULES)[0].item())


def test_a_transposed_convolution_with_a_zero_point_is_a_convolution_for_openvino() -> None:
    assert not [node for node in convolutions(quantized("transposed asymmetric").placed(openvino.RULES)) if _up(node)]
    assert [node for node in quantized("transposed").placed(openvino.RULES).graph.nodes if _up(node)]


@pytest.mark.parametrize(("inside", "padding"), [(1, 3), (1, 100), (1, 2), (3, 3)])
def test_padding_beyond_a_kernel_of_one_channel_is_computed_in_float_for_openvino(
    inside: int, padding: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(inside, 8, 3, padding=padding), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    seen = torch.randn(1, inside, 16, 16)
    graph = folded_graph(net, seen, ())
    found = Quantized(graph, calibrated(graph, [seen], None, 1))
    beyond = inside == 1 and padding >= 3
    assert ("0" in in_integers(found.placed(openvino.RULES))) is not beyond
    assert "0" in in_integers(found.placed(tensorrt.RULES)) or inside < tensorrt.RULES.least_channels
    artifact = to_onnx(found.placed(openvino.RULES), torch.zeros_like(seen), tmp_path / "net.onnx")
    backend = openvino.OpenVino()
    with backend.open(backend.build(artifact, tmp_path)) as infer, torch.no_grad():
        wanted = found.placed(openvino.RULES)(seen)
        assert np.abs(infer(seen.numpy()) - wanted.numpy()).max() < 0.02 * wanted.abs().max()


@pytest.mark.parametrize(
    ("inside", "kernel", "stride"), [(32, 8, 8), (16, 8, 1), (48, 4, 4), (64, 8, 8), (32, 7, 4), (32, 2, 2)]
)
def test_an_even_kernel_over_few_channels_is_computed_in_float_for_openvino(
    inside: int, kernel: int, stride: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(inside, 16, kernel, stride=stride), nn.ReLU(), nn.Conv2d(16, 2, 1)).eval()
    seen = torch.randn(1, inside, 32, 32)
    graph = folded_graph(net, seen, ())
    found = Quantized(graph, calibrated(graph, [seen], None, 1))
    placed = found.placed(openvino.RULES)
    assert ("0" in in_integers(placed)) is not (inside < 64 and kernel in (4, 8))
    assert "0" in in_integers(found.placed(tensorrt.RULES)) and "0" in in_integers(found.placed(onnxruntime.RULES))
    artifact = to_onnx(placed, torch.zeros_like(seen), tmp_path / "net.onnx")
    backend = openvino.OpenVino()
    with backend.open(backend.build(artifact, tmp_path)) as infer, torch.no_grad():
        wanted = placed(seen)
        assert np.abs(infer(seen.numpy()) - wanted.numpy()).max() < 0.02 * wanted.abs().max()


def test_a_padded_grouped_convolution_of_volumes_is_computed_in_float_for_openvino(tmp_path: Path) -> None:
    torch.manual_seed(0)
    seen = torch.randn(1, 8, 8, 8, 8)
    for convolution, kept in ((nn.Conv3d(8, 8, 3, padding=1, groups=4), True), (nn.Conv3d(8, 8, 3, groups=4), False)):
        net = nn.Sequential(convolution, nn.ReLU(), nn.Conv3d(8, 2, 1)).eval()
        graph = folded_graph(net, seen, ())
        found = Quantized(graph, calibrated(graph, [seen], None, 1))
        assert ("0" in in_integers(found.placed(openvino.RULES))) is not kept
        assert "0" in in_integers(found.placed(onnxruntime.RULES))
        placed, backend = found.placed(openvino.RULES), openvino.OpenVino()
        artifact = to_onnx(placed, torch.zeros_like(seen), tmp_path / "net.onnx")
        with backend.open(backend.build(artifact, tmp_path)) as infer, torch.no_grad():
            wanted = placed(seen)
            assert np.abs(infer(seen.numpy()) - wanted.numpy()).max() < 0.02 * wanted.abs().max()


def test_a_transposed_convolution_of_ragged_channels_is_rewritten_for_openvino() -> None:
    torch.manual_seed(0)
    seen = image(1)
    for channels, as_it_is in ((8, True), (6, False)):
        net = nn.Sequential(
            nn.Conv2d(seen.shape[1], channels, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(channels, 4, 2, stride=2)
        ).eval()
        graph = folded_graph(net, seen, ())
        found = Quantized(graph, calibrated(graph, [seen], None, 1))
        placed = found.placed(openvino.RULES)
        assert any(map(_up, placed.graph.nodes)) is as_it_is
        assert found.layers(openvino.RULES)["float"] == 0


def _up(node: fx.Node) -> bool:
    return node.target in TRANSPOSED


def test_pooling_shuffling_and_cropping_do_not_change_the_grid() -> None:
    graph = quantized("unet unpadded").placed(onnxruntime.RULES)
    for node in graph.graph.nodes:
        if node.target in MOVERS:
            (behind,) = (user for user in node.users if user.target is PAIR)
            assert torch.equal(scale_of(graph, behind), scale_of(graph, node.args[0]))


@every_rules
def test_a_concatenation_covers_what_it_joins(rules: Rules) -> None:
    graph = quantized("two concats").placed(rules)
    joins = [node for node in graph.graph.nodes if node.target is aten.cat.default]
    assert [len(join.args[0]) for join in joins] == [2, 4]
    for join in joins:
        scales = {scale_of(graph, source).item() for source in join.args[0]}
        behind = [scale_of(graph, user).item() for user in join.users if user.target is PAIR]
        assert len(scales) == 1 or not rules.one_scale_concat
        assert all(scale >= max(scales) for scale in behind)
        assert len(behind) == rules.behind_carriers


def added_through_pairs(name: str, rules: Rules) -> list[bool]:
    graph = quantized(name).placed(rules)
    (add,) = (node for node in graph.graph.nodes if node.target is aten.add.Tensor)
    return [source.target is PAIR for source in add.args[:2]]


def test_tensorrt_quantizes_the_skip_and_leaves_the_branch_to_its_convolution() -> None:
    assert added_through_pairs("residual", tensorrt.RULES) == [False, True]
    assert added_through_pairs("projection", tensorrt.RULES) == [False, True]


def test_the_other_runtimes_quantize_both_sides_of_an_addition() -> None:
    for name in ("residual", "projection"):
        assert added_through_pairs(name, onnxruntime.RULES) == [True, True]
        assert added_through_pairs(name, openvino.RULES) == [True, True]


def test_depthwise_layers_are_integer_for_tensorrt_from_kernel_3_on() -> None:
    net = of(body(conv(C, C, groups=C), nn.ReLU(), conv(C, C, 1, groups=C), nn.ReLU(), conv(C, C, 1)))
    assert in_integers(net.placed(tensorrt.RULES)) == ["2", "6"]


def test_the_layer_of_the_logits_stays_float_where_it_would_have_to_round_them() -> None:
    graph = quantized("unet of one class").placed(onnxruntime.RULES)
    assert "head" not in in_integers(graph)
    assert "head" in in_integers(quantized("unet of one class").placed(openvino.RULES))
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    assert output.args[0].target is aten.conv2d.default


@every_rules
def test_whoever_reads_only_the_shape_reads_no_integers(rules: Rules) -> None:
    net = quantized("bilinear").graph
    graph = folded_graph(ZOO["bilinear"]().eval(), image(), ("batch", "size"))
    ranges = calibrated(graph, [image(1)], None, 1)
    placed = Quantized(graph, ranges).placed(rules)
    assert not [user for pair in pairs(placed) for user in pair.users if user.target is aten.sym_size.int]
    assert isinstance(net, fx.GraphModule)


@every_rules
def test_a_pair_never_parts_a_convolution_from_its_relu(rules: Rules) -> None:
    for name in ("unet", "relu6", "transposed"):
        graph = quantized(name).placed(rules)
        for node in graph.graph.nodes:
            if node.target in (aten.relu.default, aten.relu6.default, aten.hardtanh.default):
                assert node.args[0].target is not PAIR


def test_everything_some_runtime_quantizes_was_calibrated_and_nothing_else() -> None:
    for name in ("unet", "pyramid", "squeeze and excite", "attention"):
        net = quantized(name)
        assert set(net.names) == candidates(net.graph)
        known = {node.name for node in net.graph.graph.nodes}
        assert set(net.names) <= known


def test_zero_is_on_every_grid() -> None:
    for low, high in ((0.5, 2.0), (-3.0, -1.0), (-1.0, 1.0), (0.0, 0.0), (0.0, 1e-42)):
        for rules in RULES.values():
            scale, zero = grid((low, high), rules)
            limits = torch.iinfo(zero.dtype)
            assert scale > 0 and limits.min <= zero <= limits.max
            assert (limits.max - int(zero)) * scale >= high - float(scale)
            assert (limits.min - int(zero)) * scale <= low + float(scale)


def test_a_copy_is_placed_and_the_network_stays_as_it_was() -> None:
    net = quantized("unet")
    before = Counter(node.target for node in net.graph.graph.nodes)
    names = list(net.state_dict())
    for rules in RULES.values():
        net.placed(rules)
    assert Counter(node.target for node in net.graph.graph.nodes) == before
    assert list(net.state_dict()) == names


def test_called_it_simulates_its_integers() -> None:
    net = quantized("unet")
    with torch.no_grad():
        logits, rounded = net.graph(image()), net(image())
    assert 0 < (rounded - logits).abs().max() < 0.2 * logits.abs().max()


class Pooled(nn.Module):
    """A convolution that reads a largest or smallest value over axes, moved or changed as it may be."""

    def __init__(self, reduce: Callable[[Tensor], Tensor], inside: int) -> None:
        super().__init__()
        self.reduce = reduce
        self.before, self.behind = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(inside, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.reduce(torch.relu(self.before(x)))).expand(-1, -1, *x.shape[2:]) + x  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("reduce", "inside", "kept"),
    [
        (lambda x: x.amax(1, keepdim=True), 1, True),
        (lambda x: x.amin((2, 3), keepdim=True), 8, True),
        (lambda x: x.max(1, keepdim=True).values, 1, True),
        (lambda x: torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1), 2, True),
        (lambda x: torch.sigmoid(-x.amax(1, keepdim=True)), 1, True),
        (lambda x: nn.functional.adaptive_max_pool2d(x, 1), 8, True),
        (lambda x: x.mean(1, keepdim=True), 1, False),
        (lambda x: x * x.amax(1, keepdim=True), 8, False),
    ],
)
def test_what_reads_a_largest_value_over_axes_is_computed_in_float_for_openvino(
    reduce: Callable[[Tensor], Tensor], inside: int, kept: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    seen = torch.randn(1, 1, 16, 16)
    net = Pooled(reduce, inside).eval()
    graph = folded_graph(net, seen, ())
    found = Quantized(graph, calibrated(graph, [seen], None, 1))
    placed = found.placed(openvino.RULES)
    assert ("behind" in in_integers(placed)) is not kept
    assert ("behind" in dict(found.in_float(openvino.RULES))) is kept
    assert "behind" not in dict(found.in_float(onnxruntime.RULES))
    artifact = to_onnx(placed, torch.zeros_like(seen), tmp_path / "net.onnx")
    backend = openvino.OpenVino()
    with backend.open(backend.build(artifact, tmp_path)) as infer, torch.no_grad():
        wanted = placed(seen)
        assert np.abs(infer(seen.numpy()) - wanted.numpy()).max() < 0.02 * wanted.abs().max()


class Gated(nn.Module):
    """Convolutions whose values are multiplied, joined and added before others read them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)
        self.inside, self.head = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.a(x), self.b(x), self.c(x)
        return self.head(torch.relu(self.inside(torch.cat([a * b, a, b + c], 1))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("rules", [onnxruntime.RULES, openvino.RULES], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["mul", "cat", "add"])
def test_an_operator_that_stays_in_float_reads_what_nothing_rounded(kind: str, rules: Rules, tmp_path: Path) -> None:
    torch.manual_seed(0)
    seen = torch.randn(1, 1, 8, 8)
    graph = folded_graph(Gated().eval(), seen, ())
    ranges = calibrated(graph, [seen], None, 1)
    (name,) = (name for name in map(operator_name, operators(graph)) if kind in name)
    found = Quantized(graph, ranges, Assignment(by_runtime={rules.runtime: {name: "float32"}}))
    placed = found.placed(rules)
    (node,) = (node for node in placed.graph.nodes if f"operator:{node.name}" == name)
    assert not any(source.target is PAIR for source in node.all_input_nodes)
    assert "inside" in in_integers(placed), "only the operator is in float, not what reads it"
    in_float = {layer for layer, why in found.in_float(rules) if "what reads it" in why}
    produced = {"mul": {"a", "b"}, "cat": {"a"}, "add": {"b", "c"}}[kind]
    assert in_float == (produced if rules.outputs else set())
    backend = (onnxruntime.OnnxRuntime if rules.runtime == "onnxruntime" else openvino.OpenVino)()
    artifact = to_onnx(placed, torch.zeros_like(seen), tmp_path / "net.onnx")
    with backend.open(backend.build(artifact, tmp_path)) as infer, torch.no_grad():
        wanted = placed(seen)
        assert np.abs(infer(seen.numpy()) - wanted.numpy()).max() < 0.03 * wanted.abs().max()
