"""The layers of an ONNX file, and whose time a runtime's nodes take."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from zoo import example, image, made, quantized, written

from export.backend import Backend
from export.backends import onnxruntime, openvino
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.errors import BackendError
from export.layers import Layer, layers_of, opened_port, total, with_times
from export.profile import NodeTime, Profile, profile_of
from export.to_onnx import Style, to_onnx

RULES = {"onnxruntime": onnxruntime.RULES, "openvino": openvino.RULES}
BACKENDS: dict[str, type] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def counted(net: nn.Module, name: str) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(example(name))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    "name", ["unet", "residual", "squeeze and excite", "grouped", "transposed overlapping", "volume"]
)
def test_macs_are_those_that_torch_counts(name: str, tmp_path: Path) -> None:
    found = layers_of(written(name, tmp_path / "net.onnx").path, tuple(example(name).shape))
    assert total(found)["macs"] == counted(made(name), name)


def test_layers_are_named_by_their_weights_and_count_what_they_hold(tmp_path: Path) -> None:
    net = made("unet of one class")
    for module in net.modules():
        # The exporter leaves out a bias of zeros.
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.constant_(module.bias, 0.1)
    found = layers_of(to_onnx(net, image(), tmp_path / "net.onnx").path, (1, 3, 32, 32))
    names = [layer.name for layer in found]
    convolutions = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert set(convolutions) <= set(names)
    assert {layer.bits for layer in found if layer.macs} == {32}
    norms = sum(module.weight.numel() for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    # A folded norm leaves its shift in the convolution's bias, and its scale nowhere.
    assert total(found)["params"] == sum(tensor.numel() for tensor in net.parameters()) - 2 * norms
    head = next(layer for layer in found if layer.name == convolutions[-1])
    assert (head.kind, head.shape) == ("Conv 1x1", (1, 1, 32, 32))


@pytest.mark.parametrize("word", RULES)
def test_quantized_layers_keep_their_names_and_have_8_bits(word: str, tmp_path: Path) -> None:
    net = quantized("unet of one class")
    path = written("unet of one class", tmp_path / "net.onnx", RULES[word]).path
    found = {layer.name: layer for layer in layers_of(path, (1, 3, 32, 32)) if layer.macs}
    assert set(found) == set(net.layer_names())
    assert sum(layer.bits == 8 for layer in found.values()) == net.layers(RULES[word])["integer"]


def test_open_axes_take_the_size_asked_for(tmp_path: Path) -> None:
    net, style = made("unet of one class"), Style(dynamic=("batch", "size"))
    path = to_onnx(net, image(), tmp_path / "net.onnx", style).path
    small, large = (layers_of(path, (1, 3, side, side)) for side in (32, 64))
    assert total(large)["macs"] == 4 * total(small)["macs"] > 0


@pytest.mark.parametrize("word", BACKENDS)
@pytest.mark.parametrize("integer", [False, True])
def test_the_time_of_every_convolution_is_found(word: str, integer: bool, tmp_path: Path) -> None:
    file = written("unet of one class", tmp_path / "net.onnx", RULES[word] if integer else None)
    backend: Backend = BACKENDS[word]()
    built = backend.build(file, tmp_path)
    profile = backend.profile(built, np.asarray(image()), runs=4)  # type: ignore[attr-defined]
    found, own = with_times(layers_of(file.path, (1, 3, 32, 32)), profile)
    assert [layer.name for layer in found if layer.macs and not layer.microseconds] == []
    spent = total(found)["microseconds"] + sum(own.values())
    assert spent == pytest.approx(sum(node.microseconds for node in profile.nodes))
    # How they compare is a matter of timing: on a busy host medians of parts and whole part ways.
    assert profile.whole_us > 0 and spent > 0


def layer(name: str, macs: int, *nodes: str) -> Layer:
    return Layer(name=name, kind="Conv", shape=None, macs=macs, params=0, bits=32, nodes=frozenset(nodes))


def test_a_fused_node_is_the_layers_that_computes_and_no_time_is_lost() -> None:
    layers = [layer("cat", 0, "cat"), layer("conv", 9, "conv", "relu")]
    times = [
        NodeTime(names=("cat", "relu"), kind="Conv", microseconds=5),
        NodeTime(names=("cat",), kind="Concat", microseconds=2),
        NodeTime(names=("", "unknown"), kind="Reorder", microseconds=3),
    ]
    found, own = with_times(layers, Profile(nodes=tuple(times), whole_us=11))
    assert [one.microseconds for one in found] == [2, 5]
    assert own == {"Reorder": 3}


def test_an_interruption_in_every_run_is_in_no_median() -> None:
    def run(*times: float) -> tuple[float, list[NodeTime]]:
        nodes = [NodeTime(names=(str(n),), kind="Conv", microseconds=spent) for n, spent in enumerate(times)]
        return sum(times) + 1, nodes

    found = profile_of([run(100, 2, 3), run(1, 100, 3), run(1, 2, 100)])
    assert [node.microseconds for node in found.nodes] == [1, 2, 3]
    assert found.whole_us == 7


def test_a_node_that_runs_twice_counts_twice() -> None:
    node = NodeTime(names=("a",), kind="Conv", microseconds=2)
    assert profile_of([(5.0, [node, node])]).nodes[0].microseconds == 4


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "not.onnx"
    path.write_bytes(b"neither")
    for read in (lambda: opened_port(path), lambda: layers_of(path, (1, 3, 32, 32))):
        with pytest.raises(BackendError, match="not an ONNX file"):
            read()


def test_a_file_of_two_inputs_is_refused(tmp_path: Path) -> None:
    floats = onnx.TensorProto.FLOAT
    ports = [onnx.helper.make_tensor_value_info(name, floats, [1, 3, "H", 4]) for name in "abc"]
    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "two", ports[:2], ports[2:]))
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(BackendError, match="has 2 inputs and 1 outputs"):
        opened_port(tmp_path / "two.onnx")
