"""Zeros in the weights: where they go, that they stay, and what each runtime makes of them."""

from __future__ import annotations

import importlib.util
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError
from torch import Tensor, nn
from zoo import Standardized, image, made

from compress.data.folder import Folder
from compress.editing.calibration import calibrated
from compress.errors import PassError
from compress.passes.distill import Distill
from compress.passes.sparsify import Sparsify
from compress.storage.description import Description, build_net, described
from compress.storage.weights import load_net, save_net
from compress.task import Task
from compress.train import sparsity
from compress.train.training import Training
from export.artifact import Artifact
from export.backends import onnxruntime, openvino, tensorrt
from export.backends.tensorrt import TensorRt, _two_of_four
from export.capture import folded_graph
from export.engines.module import _with_sparse_weights
from export.quantization.quantized import Quantized
from export.registry import find_device
from export.to_onnx import to_onnx

UNET = {"unet": {"classes": 2, "in_channels": 1, "width": 16, "depth": 2}}
needs_tensorrt = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")),
    reason="neither TensorRT nor TensorRT-RTX is installed",
)


pytestmark = pytest.mark.usefixtures("one_thread")


def unet(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return build_net({"unet": {**UNET["unet"], **options}}).eval()


def quiet_task(said: list[str] | None = None) -> Any:
    """All that the pass asks of a task when it does not recover."""
    return SimpleNamespace(note=(said if said is not None else []).append, example=image(), dynamic=())


def sparse(net: nn.Module | None = None, said: list[str] | None = None, **options: Any) -> nn.Module:
    return Sparsify(**options)(unet() if net is None else net, quiet_task(said))


def weights(net: nn.Module) -> dict[str, Tensor]:
    """The kernels, by layer."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return {name: layer.weight.detach() for name, layer in net.named_modules() if isinstance(layer, kinds)}


def fours(weight: Tensor, inside: int) -> Tensor:
    """Each four input channels of one output channel and kernel position, in a row."""
    return weight.movedim(inside, -1).reshape(-1, 4)


# --- where zeros go ---


def test_the_two_largest_of_every_four_input_channels_stay_as_they_were() -> None:
    net = unet()
    thin = sparse(net)
    for name, before in weights(net).items():
        after = weights(thin)[name]
        if name in ("encoder.0.0", "head"):
            assert torch.equal(before, after)
            continue
        inside = 0 if name.startswith("up") else 1
        assert ((fours(after, inside) != 0).sum(1) == 2).all()
        largest = fours(before, inside).abs().topk(2, dim=1).values.sum(1)
        assert torch.equal(fours(after, inside).abs().topk(2, dim=1).values.sum(1), largest)
        assert torch.equal(after[after != 0], before[after != 0])


def test_the_given_network_is_not_changed() -> None:
    net = unet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sparse(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.description == UNET and not sparsity.masks(net)


def test_it_says_which_layers_stay_dense_and_why() -> None:
    said: list[str] = []
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.Conv2d(16, 16, 3, groups=2),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 1)),
        nn.Conv2d(16, 16, 1),
        nn.Conv2d(16, 16, 1),
    )
    pass_ = Sparsify(keep=("4",))
    assert pass_._chosen(net, quiet_task(said)) == ["3"]
    assert said == [
        "sparsify: kept dense 0: sparse Tensor Cores take multiples of 16 channels in and 8 out",
        "sparsify: kept dense 1: TensorRT has no sparse kernels for convolutions in groups",
        "sparsify: kept dense 2: the weight that runs is computed from others",
        "sparsify: kept dense 4: named in keep",
    ]


def test_each_layer_loses_its_smallest_weights() -> None:
    net = unet()
    thin = sparse(net, pattern="unstructured", ratio=0.75)
    for name, before in weights(net).items():
        after = weights(thin)[name]
        assert int((after == 0).sum()) == int(0.75 * before.numel())
        assert before[after == 0].abs().max() <= after[after != 0].abs().min()


def test_the_network_loses_its_smallest_weights_wherever_they_are() -> None:
    net = unet()
    thin = sparse(net, pattern="unstructured", ratio=0.75, across="network")
    before = torch.cat([weight.flatten() for weight in weights(net).values()])
    after = torch.cat([weight.flatten() for weight in weights(thin).values()])
    assert int((after == 0).sum()) == int(0.75 * before.numel())
    assert before[after == 0].abs().max() <= after[after != 0].abs().min()
    shares = [(weight == 0).float().mean().item() for weight in weights(thin).values()]
    assert max(shares) - min(shares) > 0.2


def test_a_layer_is_never_zeroed_altogether() -> None:
    net = unet()
    with torch.no_grad():
        net.head.weight.mul_(1e-3)
    with pytest.raises(PassError, match=r"^sparsify: head would be all zeros; lower the ratio, set across: layer, or"):
        sparse(net, pattern="unstructured", ratio=0.5, across="network")
    assert sparse(net, pattern="unstructured", ratio=0.5, across="network", keep=("head",)).head.weight.all()


def test_equal_weights_are_not_all_taken_for_the_smallest() -> None:
    net = unet()
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(1.0)
    thin = sparse(net, pattern="unstructured", ratio=0.5)
    assert all(int((weight == 0).sum()) == weight.numel() // 2 for weight in weights(thin).values())


@pytest.mark.parametrize("name", ["depthwise", "transposed in groups", "volume", "squeeze and excite", "attention"])
def test_networks_of_other_kinds_take_scattered_zeros(name: str) -> None:
    net = made(name)
    chosen = Sparsify(pattern="unstructured", ratio=0.5)
    layers: Any = {part: net.get_submodule(part) for part in chosen._chosen(net, quiet_task())}
    chosen._zero(layers, 0.5)
    assert layers and all((layer.weight == 0).float().mean() > 0.4 for layer in layers.values())


def test_a_layer_that_computes_its_weight_keeps_it_and_one_that_only_pads_does_not() -> None:
    class Padded(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))

    torch.manual_seed(0)
    net = nn.Sequential(Standardized(3, 16, 3), Padded(16, 16, 2))
    said: list[str] = []
    assert Sparsify(pattern="unstructured", ratio=0.5)._chosen(net, quiet_task(said)) == ["1"]
    assert said == ["sparsify: kept dense 0: the weight that runs is computed from others"]


def test_layers_that_share_a_weight_share_its_zeros() -> None:
    net = nn.Sequential(nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1))
    net[1].weight = net[0].weight
    said: list[str] = []
    assert Sparsify()._chosen(net, quiet_task(said)) == ["0"]
    assert said == ["sparsify: 1 has the weight of 0, and its zeros"]


# --- what it refuses ---


def test_a_network_without_a_layer_for_the_pattern_is_refused() -> None:
    with pytest.raises(PassError, match=r"^sparsify: no layer can take the pattern 2:4 \(encoder.0.0: sparse Tensor"):
        sparse(unet(width=4, depth=1))


def test_a_layer_to_keep_that_is_not_there_is_refused() -> None:
    with pytest.raises(PassError, match=r"^sparsify: keep 'haed' names no layer; did you mean 'head'\?$"):
        sparse(keep=("haed",))


def test_integers_are_refused() -> None:
    net = unet()
    graph = folded_graph(net, image(0, 1, 1, 32, 32), ())
    ranges = calibrated(graph, [image(0, 1, 1, 32, 32)], None, 1)
    with pytest.raises(PassError, match=r"in 8-bit integers already; give sparsify before int8"):
        sparse(Quantized(graph, ranges))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pattern": "unstructured"}, "an unstructured pattern needs a ratio"),
        ({"ratio": 0.5}, "2:4 is half of each layer at once"),
        ({"across": "network"}, "2:4 is half of each layer at once"),
        ({"pattern": "unstructured", "ratio": 0.5, "rounds": 2}, "set recover"),
        ({"pattern": "1:4"}, "'2:4' or 'unstructured'"),
        ({"pattern": "unstructured", "ratio": 1.0}, "less than 1"),
        ({"recover": {"epoch": 3}}, "epoch"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Sparsify(**options)


# --- that they stay ---


def test_zeros_and_their_marks_survive_saving(tmp_path: Path) -> None:
    thin = sparse()
    save_net(thin, Description(network=thin.description), tmp_path / "net.safetensors", half=True)  # type: ignore[arg-type]
    again = load_net(tmp_path / "net.safetensors")
    assert sparsity.masks(again).keys() == sparsity.masks(thin).keys()
    assert len(sparsity.masks(again)) == 11
    assert all(torch.equal(zero, sparsity.masks(again)[name]) for name, zero in sparsity.masks(thin).items())


def test_a_mark_survives_on_a_layer_that_another_pass_put_there() -> None:
    net = unet()
    net.encoder[1][0] = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 1))
    thin = sparse(described(net))
    assert {"encoder.1.0.0.weight", "encoder.1.0.1.weight"} <= set(sparsity.masks(thin))
    assert sparsity.marked(build_net(thin.description)).keys() == sparsity.marked(thin).keys()  # type: ignore[arg-type]


def test_a_layer_that_takes_a_sparse_one_s_place_is_dense() -> None:
    thin = sparse()
    thin.encoder[1][0] = nn.Conv2d(16, 32, 3, padding=1)
    assert "encoder.1.0" not in sparsity.marked(build_net(described(thin).description))  # type: ignore[arg-type]


def test_a_sparse_network_that_lost_channels_keeps_its_marks() -> None:
    thin = sparse()
    first, norm, second = thin.encoder[0][0], thin.encoder[0][1], thin.encoder[0][3]
    kept = slice(0, 8)
    for layer in (first, norm):
        layer.weight = nn.Parameter(layer.weight.detach()[kept].clone())
        layer.bias = nn.Parameter(layer.bias.detach()[kept].clone())
    norm.running_mean, norm.running_var = norm.running_mean[kept], norm.running_var[kept]
    first.out_channels = norm.num_features = second.in_channels = 8
    second.weight = nn.Parameter(second.weight.detach()[:, kept].clone())
    again = build_net(described(thin).description)  # type: ignore[arg-type]
    again.load_state_dict(thin.state_dict())
    assert torch.equal(sparsity.masks(again)["encoder.0.3.weight"], second.weight == 0)


def test_a_training_that_applies_the_masks_keeps_every_zero() -> None:
    net = sparse().train()
    masks = sparsity.masks(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for seed in range(3):
        net(image(seed, 2, 1, 16, 16)).square().mean().backward()
        optimizer.step()
        sparsity.apply(net, masks)
    assert all(torch.equal(sparsity.masks(net)[name], zero) for name, zero in masks.items())
    assert not any(torch.signbit(net.get_parameter(name)[zero]).any() for name, zero in masks.items())
    assert all(
        (before != after).any() for before, after in zip(weights(sparse()).values(), weights(net).values(), strict=True)
    )


def test_a_dense_network_has_nothing_to_keep() -> None:
    assert sparsity.masks(unet()) == {}
    # Other layers have a plain attribute of some such name, too.
    assert sparsity.masks(nn.Sequential(nn.Embedding(4, 4, sparse=True))) == {}


# --- recovery ---


@pytest.fixture
def task(folder: Path, tmp_path: Path) -> Task:
    """The blobs, and a small U-Net that has still to learn them."""
    data = Folder(root=folder, size=(32, 32), batch=3)(channels=1, classes=3)
    return Task(data=data, net=unet(classes=3, width=8, depth=1), seed=0, folder=tmp_path)


RECOVER = Distill(steps=2, rate=1e-3, augment="none")


def test_zeros_stay_through_recovery(task: Task) -> None:
    said: list[str] = []
    pass_ = Sparsify(pattern="unstructured", ratio=0.5, recover=RECOVER)
    thin = pass_(task.net, replace(task, note=said.append))
    assert any("validation Dice" in line for line in said)
    assert all((weight == 0).float().mean() == 0.5 for weight in weights(thin).values())


def test_zeros_stay_through_any_later_training(task: Task, tmp_path: Path) -> None:
    thin = Sparsify(pattern="unstructured", ratio=0.5)(task.net, task)
    before = {name: weight.clone() for name, weight in weights(thin).items()}
    masks = sparsity.masks(thin)
    assert len(masks) == 8
    Training(epochs=2, rate=1e-3, augment="none")(thin, task.data, tmp_path / "on", 0, print)
    assert all((weight != before[name]).any() for name, weight in weights(thin).items())
    assert all(torch.equal(sparsity.masks(thin)[name], zero) for name, zero in masks.items())


def test_rounds_put_in_most_zeros_first(task: Task) -> None:
    """The cubic schedule: of 0.8, 7/8 after half of the rounds."""
    shares: list[float] = []

    class Seen(Distill):
        def __call__(self, net: nn.Module, task: Task) -> nn.Module:
            shares.append(float(torch.cat([zero.flatten() for zero in sparsity.masks(net).values()]).float().mean()))
            return net

    gradual = Sparsify(pattern="unstructured", ratio=0.8, rounds=4, recover=Seen(steps=1))
    thin = gradual(task.net, task)
    assert shares == pytest.approx([0.8 * (1 - left**3) for left in (0.75, 0.5, 0.25, 0)], abs=0.01)
    assert float((weights(thin)["decoder.0.0"] == 0).float().mean()) == pytest.approx(0.8, abs=0.01)


def test_it_uses_the_cases_that_its_recovery_uses() -> None:
    assert Sparsify().uses == ()
    assert Sparsify(recover=RECOVER).uses == ("train", "val")


# --- what is said ---


def test_it_says_how_many_zeros_and_what_they_bring() -> None:
    said: list[str] = []
    thin = sparse(said=said)
    zeroed = sum(int((weight == 0).sum()) for weight in thin.parameters())
    everything = sum(weight.numel() for weight in thin.parameters())
    assert said[1].startswith(f"sparsify: {zeroed / everything:.1%} of all parameters are zero: 50.0% of encoder.0.3, ")
    assert "in 16 bits" in said[2] and "in 8 bits" in said[2]
    assert "TensorRT may run these layers faster" in said[3]
    assert said[4].startswith("sparsify: up.0, up.1: only where int8 writes them")
    assert said[5].startswith("sparsify: elsewhere zeros take as long as other weights")


def test_the_sizes_it_says_are_true(tmp_path: Path) -> None:
    said: list[str] = []
    thin = sparse(said=said, pattern="unstructured", ratio=0.9)
    half, half_deflated, before, int8, int8_deflated, _ = (
        float(word) for word in re.findall(r"\d+\.\d\d", next(line for line in said if "in 16 bits" in line))
    )
    save_net(thin, Description(network=thin.description), tmp_path / "net.safetensors", half=True)  # type: ignore[arg-type]
    with zipfile.ZipFile(tmp_path / "net.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").stat().st_size / 1e6 == pytest.approx(half, abs=0.02)
    assert (tmp_path / "net.zip").stat().st_size / 1e6 == pytest.approx(half_deflated, abs=0.02)
    assert half_deflated < 0.35 * half and before > 0.85 * half
    assert int8 == pytest.approx(half / 2, rel=0.1) and int8_deflated < half_deflated
    assert said[-1].startswith("sparsify: on every runtime here zeros take as long")


# --- what the runtimes get ---


X = image(0, 1, 1, 32, 32)


def exported(net: nn.Module, path: Path, rules: Any = None) -> Artifact:
    """The network as one ONNX file; with rules, in int8 as that runtime wants it."""
    if rules is not None:
        graph = folded_graph(net, X, ())
        ranges = calibrated(graph, [image(seed, 1, 1, 32, 32) for seed in (1, 2)], None, 2)
        net = Quantized(graph, ranges).placed(rules)
    return to_onnx(net, X, path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A small U-Net: dense, with 2:4 and with scattered zeros, and with 2:4 in int8 for TensorRT."""
    folder = tmp_path_factory.mktemp("files")
    net = unet(depth=1)
    thin, scattered = sparse(net), sparse(net, pattern="unstructured", ratio=0.5)
    return {
        "dense": exported(net, folder / "dense.onnx"),
        "sparse": exported(thin, folder / "sparse.onnx"),
        "scattered": exported(scattered, folder / "scattered.onnx"),
        "int8": exported(thin, folder / "int8.onnx", tensorrt.RULES),
    }


@pytest.mark.parametrize("rules", [onnxruntime.RULES, openvino.RULES], ids=["onnxruntime", "openvino"])
def test_int8_keeps_every_zero(rules: Any, tmp_path: Path) -> None:
    thin = sparse(unet(depth=1), pattern="unstructured", ratio=0.5)
    graph = onnx.load(exported(thin, tmp_path / "int8.onnx", rules).path).graph
    stored = {tensor.name.removesuffix(".weight.int8"): numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kernels = {name: value for name, value in stored.items() if name in weights(thin)}
    # Where integers run only between two pairs, the convolution of the logits stays float.
    assert len(kernels) == 8 - rules.outputs
    for name, value in kernels.items():
        assert value.dtype == np.int8
        zero = (weights(thin)[name] == 0).numpy()
        assert (value == 0).sum() >= zero.sum()
        if value.shape == zero.shape:
            assert not value[zero].any()


def test_layers_with_two_zeros_in_four_are_found_in_the_file(files: dict[str, Artifact]) -> None:
    assert {name: two_of_four(file.path) for name, file in files.items()} == {
        "dense": 0,
        # The convolutions but stem and head, and without the transposed one.
        "sparse": 5,
        "scattered": 0,
        # In integers that is a convolution, too.
        "int8": 6,
    }


def two_of_four(path: Path) -> int:
    return _two_of_four(onnx.load(path).graph)


def model(path: Path, nodes: list[Any], **stored: np.ndarray) -> Path:
    """A file of these nodes and stored tensors; it is read, not run."""
    made = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], made)), path)
    return path


@pytest.mark.parametrize(
    ("kind", "given", "shape", "inside"),
    [
        ("Conv", {}, (4, 8, 3, 3), 1),
        ("Conv", {}, (4, 8, 3, 3, 3), 1),
        ("Gemm", {"transB": 1}, (4, 8), 1),
        ("Gemm", {}, (8, 4), 0),
        ("MatMul", {}, (8, 4), 0),
        ("MatMul", {}, (2, 8, 4), 1),
    ],
)
def test_the_input_channels_of_every_layer_are_known(
    kind: str, given: dict[str, int], shape: tuple[int, ...], inside: int, tmp_path: Path
) -> None:
    nodes = [helper.make_node(kind, ["x", "w"], ["y"], **given)]
    weight = np.ones(shape, np.float32)
    lanes = np.moveaxis(weight, inside, -1)
    lanes[..., 0] = lanes[..., 3] = lanes[..., 5] = lanes[..., 6] = 0
    assert two_of_four(model(tmp_path / "m.onnx", nodes, w=weight)) == 1
    lanes[..., -1, 6] = 1
    assert two_of_four(model(tmp_path / "m.onnx", nodes, w=weight)) == 0


def test_weights_are_seen_through_scales_and_layouts(tmp_path: Path) -> None:
    weight = np.zeros((8, 4), np.int8)
    weight[::2] = 3
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"]),
        helper.make_node("Gemm", ["x", "t"], ["y"], transB=1),
    ]
    path = model(tmp_path / "m.onnx", nodes, w=weight, s=np.float32(0.1))
    assert two_of_four(path) == 1
    nodes[1] = helper.make_node("Transpose", ["d"], ["t"], perm=[0, 1])
    assert two_of_four(model(tmp_path / "m.onnx", nodes, w=weight.T.copy(), s=np.float32(0.1))) == 1


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        ({"group": 2}, np.tile(np.float32([1, 0])[None, :, None, None], (4, 2, 1, 1))),
        ({}, np.zeros((4, 8, 1, 1), np.float32)),
        ({}, np.tile(np.float32([1, 0])[None, :, None, None], (4, 3, 1, 1))),
    ],
    ids=["in groups", "all zeros", "six channels"],
)
def test_layers_without_a_sparse_kernel_do_not_count(given: dict[str, int], weight: Any, tmp_path: Path) -> None:
    path = model(tmp_path / "m.onnx", [helper.make_node("Conv", ["x", "w"], ["y"], **given)], w=weight)
    assert two_of_four(path) == 0


@needs_tensorrt
def test_an_engine_is_built_with_sparse_weights_where_the_file_has_them(
    files: dict[str, Artifact], tmp_path: Path
) -> None:
    backend = TensorRt(device=find_device("rtx_30"))
    flags = {name: backend.build(file, tmp_path).made["flags"].get("sparse_weights") for name, file in files.items()}
    assert flags == {
        "dense": None,
        "sparse": "set for 5 layers with 2:4 weights",
        "scattered": None,
        "int8": "set for 6 layers with 2:4 weights",
    }


def test_a_builder_without_the_flag_says_so() -> None:
    old = SimpleNamespace(BuilderFlag=object(), __name__="tensorrt", __version__="7.2")
    said = _with_sparse_weights(old, None, 3)
    assert said == "not set for 3 layers with 2:4 weights: tensorrt 7.2 has no such flag"
