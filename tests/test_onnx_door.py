"""A network from anybody's ONNX file answers as the file does; a file that cannot be taken says why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from shared_fixtures import write_recipe
from torch import Tensor, nn

from compress.commands.run import run
from compress.errors import PassError, RecipeError, WeightsError
from compress.networks.foreign.notes import notes_of
from compress.networks.onnx import Onnx
from compress.recipe import load
from compress.storage.description import Description, build_net
from compress.storage.weights import load_net, load_weights, save_net
from export.backends.onnxruntime import answers
from export.capture import capture, quiet
from export.to_onnx import Style, to_onnx

RNG = np.random.default_rng(0)
IMAGE = torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(0))


pytestmark = pytest.mark.usefixtures("one_thread")


def unet(**options: Any) -> nn.Module:
    """A U-Net whose batch norms have seen something."""
    torch.manual_seed(0)
    net = build_net({"unet": {"classes": 3, "in_channels": 1, "width": 4, "depth": 2, **options}}).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net


def exported(net: nn.Module, path: Path, **options: Any) -> Path:
    """As torch writes it."""
    with quiet():
        torch.onnx.export(net, (IMAGE,), path, verbose=False, **options)
    return path


def taken(path: Path, **options: Any) -> nn.Module:
    """Through the door, compared with ONNX Runtime, with the weights of the file."""
    shape = Onnx(path=str(path), **options)
    shape.check()
    net = build_net({"onnx": dataclasses.asdict(shape)})
    load_weights(net, path)
    return net.eval()


def written(path: Path, nodes: Sequence[Any], weights: dict[str, Any], shape: Sequence[Any], **options: Any) -> Path:
    """A file made by hand: from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "hand",
        [helper.make_tensor_value_info("x", options.pop("of", TensorProto.FLOAT), shape)],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in options.pop("y", {"y": 1}).items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", options.pop("opset", 17)), *options.pop("opsets", [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)
    onnx.save(model, path)
    return path


def weight(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


HEAD = helper.make_node("Conv", ["h", "w"], ["y"], name="head")


def between(path: Path, nodes: Sequence[Any], weights: dict[str, Any] | None = None, **options: Any) -> Path:
    """A file with some nodes from `a`, four channels, to `h`, four channels, between two convolutions."""
    first = helper.make_node("Conv", ["x", "v"], ["a"], name="first", pads=[1, 1, 1, 1])
    held = {"v": weight(4, 3, 3, 3), "w": weight(2, 4, 1, 1), **(weights or {})}
    return written(path, [first, *nodes, HEAD], held, [1, 3, 16, 24], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"dynamo": True, "opset_version": 18, "external_data": True},
        pytest.param({"dynamo": True, "opset_version": 23}, marks=pytest.mark.slow),
        pytest.param({"dynamo": True, "dynamic_shapes": ({0: "b", 2: "h", 3: "w"},)}, marks=pytest.mark.slow),
        {"dynamo": False, "opset_version": 11},
        {"dynamo": False, "opset_version": 17, "input_names": ["x"], "dynamic_axes": {"x": {0: "b", 2: "h", 3: "w"}}},
    ],
    ids=["dynamo, weights beside", "dynamo, opset 23", "dynamo, open", "TorchScript, opset 11", "TorchScript, open"],
)
def test_a_unet_comes_back_from_torchs_exporters(options: dict[str, Any], tmp_path: Path) -> None:
    net = unet()
    path = exported(net, tmp_path / "unet.onnx", **options)
    shape = Onnx(path=str(path))
    is_open = "dynamic_axes" in options or "dynamic_shapes" in options
    assert (shape.classes, shape.in_channels, shape.dims, shape.input) == (3, 1, 2, None if is_open else (32, 48))
    again = taken(path)
    assert "encoder.0.0" in dict(again.named_modules()), "layers have the names they had"
    both = torch.cat([IMAGE, IMAGE.flip(3)])
    other = torch.randn(2, 1, 40, 16) if is_open else both
    with torch.no_grad():
        for image in (IMAGE, both, other):
            torch.testing.assert_close(again(image), net(image), rtol=1e-3, atol=1e-4)


def test_what_is_saved_is_loaded_without_the_file(tmp_path: Path) -> None:
    path = exported(unet(), tmp_path / "unet.onnx", dynamo=False, opset_version=13)
    net = taken(path)
    path.unlink()
    save_net(net, Description(network=net.description), tmp_path / "net.safetensors")  # type: ignore[arg-type]
    assert str(tmp_path) not in (tmp_path / "net.json").read_text()
    with torch.no_grad():
        assert torch.equal(load_net(tmp_path / "net.safetensors")(IMAGE), net(IMAGE))


def test_a_damaged_description_is_told() -> None:
    for text in ("no base64!", "eJwDAAAAAAE="):
        with pytest.raises(ValueError, match="described graph is damaged"):
            Onnx(path="x.onnx", graph=text)


@pytest.mark.slow
def test_it_goes_on_with_an_open_batch(tmp_path: Path) -> None:
    axes = {"x": {0: "b", 2: "h", 3: "w"}}
    net = taken(
        exported(unet(), tmp_path / "u.onnx", dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=axes)
    )
    graph = capture(net, IMAGE, ("batch",))
    assert graph(torch.randn(3, 1, 32, 48)).shape == (3, 3, 32, 48)
    artifact = to_onnx(net, IMAGE, tmp_path / "again.onnx", Style(dynamic=("batch", "size")))
    image = torch.randn(2, 1, 16, 40)
    (found,) = answers(artifact.path.read_bytes(), {"image": image.numpy()}).values()
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), net(image), rtol=1e-3, atol=1e-4)


class Ending(nn.Module):
    """A network and something after it."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.net, self.end = unet(), end

    def forward(self, image: Tensor) -> Any:
        return self.end(self.net(image))


@pytest.mark.parametrize(
    ("end", "note"),
    [
        (lambda logits: logits.softmax(1), "makes probabilities"),
        (lambda logits: logits.sigmoid(), "makes probabilities"),
        (lambda logits: logits.argmax(1, keepdim=True), "argmax"),
        (lambda logits: (logits, torch.nn.functional.avg_pool2d(logits, 4)), "it also answers"),
        (lambda logits: logits.permute(0, 2, 3, 1), "classes last"),
    ],
    ids=["softmax", "sigmoid", "argmax", "two outputs", "classes last"],
)
def test_logits_are_found_whatever_the_file_ends_in(end: Any, note: str, tmp_path: Path) -> None:
    net = taken(exported(Ending(end).eval(), tmp_path / "net.onnx", dynamo=False, opset_version=17))
    with torch.no_grad():
        torch.testing.assert_close(net(IMAGE), unet()(IMAGE), rtol=1e-3, atol=1e-4)
    assert note in " ".join(notes_of(net))


def test_channels_last_as_tensorflow_writes_them(tmp_path: Path) -> None:
    """Transposes, uneven padding as `same` makes it, a resize without half pixels, a softmax at the end."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["x0"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x0", "v", "b"], ["a0"], name="down", strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("Relu", ["a0"], ["a"]),
        helper.make_node("Resize", ["a", "", "s"], ["u"], mode="linear", coordinate_transformation_mode="asymmetric"),
        helper.make_node("Conv", ["u", "w"], ["h"], name="head"),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Softmax", ["t"], ["y"], name="soft", axis=-1),
    ]
    weights = {"v": weight(8, 3, 3, 3), "b": weight(8), "w": weight(4, 8, 1, 1), "s": np.float32([1, 1, 2, 2])}
    path = written(tmp_path / "tf.onnx", nodes, weights, ["n", 32, 48, 3])
    net = taken(path)
    image = torch.randn(2, 3, 32, 48)
    (theirs,) = answers(path.read_bytes(), {"x": image.movedim(1, -1).contiguous().numpy()}).values()
    with torch.no_grad():
        torch.testing.assert_close(net(image).softmax(1).movedim(1, -1), torch.from_numpy(theirs), rtol=1e-4, atol=1e-5)


def node(kind: str, inputs: str = "a", outputs: str = "h", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(","), outputs.split(","), name=f"the {kind}", **attributes)


def resized(coordinates: str, mode: str, scale: float, nearest: str = "floor") -> Any:
    options = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    return [node("Resize", "a,,s", **options)], {"s": np.float32([1, 1, scale, scale])}


ORDINARY: dict[str, Any] = {
    "clip": ([node("Clip", "a,low,high")], {"low": np.float32(-0.5), "high": np.float32(0.5)}),
    "pad by reflection": ([node("Pad", "a,p", mode="reflect")], {"p": np.int64([0, 0, 1, 2, 0, 0, 3, 4])}),
    "slice backwards": (
        [node("Slice", "a,s,e,ax,t")],
        {"s": np.int64([-1]), "e": np.int64([-(2**62)]), "ax": np.int64([3]), "t": np.int64([-1])},
    ),
    "uneven pooling": ([node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])], {}),
    "average without edges": ([node("AveragePool", kernel_shape=[3, 3], pads=[0, 0, 2, 2])], {}),
    "uneven transposed": (
        [node("ConvTranspose", "a,u", strides=[2, 2], auto_pad="SAME_UPPER")],
        {"u": weight(4, 4, 3, 3)},
    ),
    "output padding": (
        [node("ConvTranspose", "a,u", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])],
        {"u": weight(4, 4, 3, 3)},
    ),
    "squeeze and excitation": (
        [
            node("ReduceMean", "a", "m", axes=[2, 3]),
            node("HardSigmoid", "m", "g"),
            node("Mul", "a,g"),
        ],
        {},
    ),
    "shape arithmetic": (
        [
            node("Shape", "a", "s"),
            helper.make_node("Gather", ["s", "two"], ["r"], name="rows"),
            helper.make_node("Mul", ["r", "twice"], ["r2"], name="double"),
            helper.make_node("Concat", ["begin", "r2", "last"], ["t"], name="target", axis=0),
            node("Reshape", "a,t"),
        ],
        {"two": np.int64([2]), "twice": np.int64([2]), "begin": np.int64([0, 4]), "last": np.int64([-1])},
    ),
    "linear over channels": (
        [
            helper.make_node("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]),
            node("MatMul", "t,m", "l"),
            node("Add", "b,l", "z"),
            node("LayerNormalization", "z,g,b2", "n"),
            helper.make_node("Transpose", ["n"], ["h"], name="back", perm=[0, 3, 1, 2]),
        ],
        {"m": weight(4, 4), "b": weight(4), "g": weight(4), "b2": weight(4)},
    ),
    "instance norm of groups": (
        [
            node("Reshape", "a,groups", "r"),
            node("InstanceNormalization", "r,one,zero", "i"),
            node("Shape", "a", "s"),
            helper.make_node("Reshape", ["i", "s"], ["h"], name="back"),
        ],
        {"groups": np.int64([0, 2, -1]), "one": np.ones(2, np.float32), "zero": np.zeros(2, np.float32)},
    ),
    "softmax of opset 11": ([node("Softmax", axis=1)], {}, 11),
    "split of opset 18": ([node("Split", "a", "p,q", axis=1, num_outputs=2), node("Concat", "q,p", axis=1)], {}, 18),
    "gelu of opset 20": ([node("Gelu", approximate="tanh")], {}, 20),
    "mish of opset 18": ([node("Mish")], {}, 18),
    "celu": ([node("Celu", alpha=0.7)], {}),
    "group norm of opset 21": (
        [node("GroupNormalization", "a,g,b", num_groups=2)],
        {"g": weight(4), "b": weight(4)},
        21,
    ),
    "upsample of opset 9": ([node("Upsample", "a,s", mode="nearest")], {"s": np.float32([1, 1, 2, 2])}, 9),
    "nearest, half pixel": resized("half_pixel", "nearest", 1.5, "round_prefer_floor"),
    "nearest, ceil": resized("asymmetric", "nearest", 2.0, "ceil"),
    "linear, corners": resized("align_corners", "linear", 2.0),
    "linear, asymmetric": resized("asymmetric", "linear", 1.5),
    "linear, downwards": resized("half_pixel", "linear", 0.5),
    "cubic": resized("half_pixel", "cubic", 2.0),
}


@pytest.mark.parametrize("case", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_operators_are_computed_as_onnx_runtime_does(case: Any, tmp_path: Path) -> None:
    nodes, weights, opset = (*case, 17)[:3]
    path = between(tmp_path / "net.onnx", nodes, weights, opset=opset)
    net = taken(path, classes=2, head={"size": "own"})
    image = torch.randn(1, 3, 16, 24)
    (theirs,) = answers(path.read_bytes(), {"x": image.numpy()}).values()
    with torch.no_grad():
        torch.testing.assert_close(net(image), torch.from_numpy(theirs), rtol=1e-3, atol=1e-4)


NORM = {name: np.abs(weight(4)) + 0.5 for name in ("g", "b", "m", "s")}
REFUSED: dict[str, Any] = {
    "no file": (None, "no such file"),
    "no ONNX": (lambda path: path.write_bytes(b"not ONNX at all"), "cannot be read as ONNX"),
    "an unknown operator": (
        lambda path: between(path, [node("GridSample", "a,grid")], {"grid": weight(1, 16, 24, 2)}),
        "'the GridSample' \\(GridSample\\): this operator is not known",
    ),
    "a training norm": (
        lambda path: between(path, [node("BatchNormalization", "a,g,b,m,s", "h,m2,s2", training_mode=1)], NORM),
        "training mode.*net.eval",
    ),
    "integers": (
        lambda path: between(
            path,
            [node("QuantizeLinear", "a,s,z", "q"), node("DequantizeLinear", "q,s,z")],
            {"s": np.float32(0.1), "z": np.uint8(0)},
        ),
        "in integers already: give the float file",
    ),
    "another domain": (
        lambda path: between(
            path, [node("FusedGelu", domain="com.microsoft")], opsets=[helper.make_opsetid("com.microsoft", 1)]
        ),
        "com.microsoft, which is no part of ONNX; it was optimized",
    ),
    "an old opset": (lambda path: between(path, [node("Relu")], opset=7), "opset 7, and 9 to"),
    "bytes for an image": (
        lambda path: written(
            path, [node("Cast", "x", "h", to=1), HEAD], {"w": weight(2, 4, 1, 1)}, [1, 4, 8, 8], of=TensorProto.UINT8
        ),
        "its input is uint8",
    ),
    "labels of an image": (
        lambda path: written(path, [node("Relu", "x", "y")], {}, [1, 10]),
        "its input has 2 axes",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_taken_says_why(case: Any, tmp_path: Path) -> None:
    make, reason = case
    path = tmp_path / "net.onnx"
    if make is not None:
        make(path)
    with pytest.raises(ValueError, match=reason):
        Onnx(path=str(path)).check()


def test_16_bit_floats_are_computed_in_32(tmp_path: Path) -> None:
    path = between(tmp_path / "net.onnx", [node("Relu")])
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    assert taken(path)(torch.randn(1, 3, 16, 24)).dtype == torch.float32


def test_known_branches_sequences_and_functions_are_written_out(tmp_path: Path) -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(kind, ["a"], [name])], name, [], [helper.make_tensor_value_info(name, 1, None)]
        )
        for name, kind in (("then", "Relu"), ("else", "Sigmoid"))
    }
    nodes = [
        node("If", "yes", "i", **branches),
        node("SplitToSequence", "i,two", "q", axis=1),
        node("SequenceAt", "q,first", "f"),
        helper.make_node("Mine", ["f"], ["m"], name="mine", domain="me"),
        node("Concat", "f,m", axis=1),
    ]
    values = {"yes": np.array(True), "two": np.int64(2), "first": np.int64(0)}
    path = between(tmp_path / "net.onnx", nodes, values, opsets=[helper.make_opsetid("me", 1)])
    model = onnx.load(path)
    mine = helper.make_node("Neg", ["x"], ["y"])
    model.functions.append(helper.make_function("me", "Mine", ["x"], ["y"], [mine], [helper.make_opsetid("", 17)]))
    onnx.save(model, path)
    image = torch.randn(1, 3, 16, 24)
    (theirs,) = answers(path.read_bytes(), {"x": image.numpy()}).values()
    with torch.no_grad():
        torch.testing.assert_close(taken(path)(image), torch.from_numpy(theirs), rtol=1e-3, atol=1e-4)


def test_tensors_that_are_missing_beside_the_file_are_told(tmp_path: Path) -> None:
    path = between(tmp_path / "net.onnx", [node("Relu")])
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    (tmp_path / "net.data").unlink()
    with pytest.raises(ValueError, match="in a file beside it, which is not there"):
        Onnx(path=str(path))


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    path = between(tmp_path / "net.onnx", [node("Add", "a,other")])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("other", 1, [1, 4, 16, 24]))
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"2 inputs \(x, other\)"):
        Onnx(path=str(path))


def test_a_file_that_answers_otherwise_is_refused_with_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = between(tmp_path / "net.onnx", [node("Elu", "a", "e"), node("Relu", "e")])
    from compress.networks.foreign.onnx import operators

    wrong = {**operators.OPERATORS, "Elu": lambda node, x: x.tanh()}
    monkeypatch.setattr(operators, "OPERATORS", wrong)
    with pytest.raises(RecipeError, match=r"'the Elu' \(Elu\) is computed otherwise than by ONNX Runtime"):
        Onnx(path=str(path), classes=2).check()


def test_a_fixed_batch_is_followed_where_that_is_what_the_file_means(tmp_path: Path) -> None:
    nodes = [node("Reshape", "a,flat", "f"), helper.make_node("Reshape", ["f", "back"], ["h"], name="back")]
    shapes = {"flat": np.int64([1, 4, 384]), "back": np.int64([1, 4, 16, 24])}
    net = taken(between(tmp_path / "net.onnx", nodes, shapes))
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(net(images), torch.cat([net(image) for image in images.split(1)]))


def test_a_file_of_one_image_at_a_time_takes_no_two(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "a", "m", axes=[0]), node("Add", "a,m")]
    net = taken(between(tmp_path / "net.onnx", nodes))
    assert net(torch.randn(1, 3, 16, 24)).shape == (1, 2, 16, 24)
    with pytest.raises(PassError, match="1 image at a time"):
        net(torch.randn(2, 3, 16, 24))


def test_a_changed_file_is_another(tmp_path: Path) -> None:
    path = between(tmp_path / "net.onnx", [node("Relu")])
    before = Onnx(path=str(path))
    between(path, [node("Relu")])
    after = Onnx(path=str(path))
    assert before.graph == after.graph
    assert before.sha256 != after.sha256


def test_weights_of_an_onnx_file_are_of_no_other_network(tmp_path: Path) -> None:
    path = between(tmp_path / "net.onnx", [node("Relu")])
    with pytest.raises(WeightsError, match=r"network: \{onnx"):
        load_weights(unet(), path)


@pytest.mark.slow
def test_a_recipe_takes_an_onnx_file_through_passes_to_integers(tmp_path: Path, folder: Path, trained: Path) -> None:
    recipe = {
        "name": "from-onnx",
        "network": {"onnx": {"path": trained.name}},
        "data": {"folder": {"root": str(folder), "size": [32, 32]}},
        "passes": [{"prune": {"ratio": 0.3, "multiple": 1}}, {"distill": {"epochs": 2}}, {"int8": {"calibrate": 8}}],
        "devices": ["cpu"],
        "latency": {"samples": 12, "seconds": 1, "warm_up": 0.1, "threads": 2},
        "gates": [{"parity": {"at_most": 0.05, "device": "cpu"}}],
    }
    path = write_recipe(tmp_path, recipe)
    (tmp_path / trained.name).write_bytes(trained.read_bytes())
    report = run(load(path), tmp_path / "out", say=lambda _: None).as_dict()
    rows = {(row["step"], row["backend"]): row for row in report["rows"]}
    for backend in ("onnxruntime", "openvino"):
        assert rows["baseline", backend]["scores"]["dice"] > 0.8
        assert rows["03-int8", backend]["status"] == "measured"
        assert rows["03-int8", backend]["params"] < rows["baseline", backend]["params"]
        assert rows["03-int8", backend]["scores"]["dice"] > 0.7


@pytest.mark.slow
def test_a_recipe_takes_an_onnx_file_to_integers(tmp_path: Path, folder: Path, trained: Path) -> None:
    recipe = {
        "name": "from-onnx",
        "network": {"onnx": {"path": trained.name}},
        "data": {"folder": {"root": str(folder), "size": [32, 32]}},
        "passes": [{"int8": {"calibrate": 8, "keep": ["head"]}}],
        "devices": ["cpu"],
        "latency": {"samples": 12, "seconds": 1, "warm_up": 0.1, "threads": 2},
    }
    path = write_recipe(tmp_path, recipe)
    (tmp_path / trained.name).write_bytes(trained.read_bytes())
    report = run(load(path), tmp_path / "out", say=lambda _: None).as_dict()
    rows = {(row["step"], row["backend"]): row for row in report["rows"]}
    for backend in ("onnxruntime", "openvino"):
        assert rows["01-int8", backend]["status"] == "measured"
        assert rows["01-int8", backend]["scores"]["dice"] > 0.8
        assert rows["01-int8", backend]["parity"]["flipped"] < 0.05
    described = (tmp_path / "out/steps/baseline/net.json").read_text()
    assert str(tmp_path) not in described


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """The tiny trained U-Net as the older exporter writes it, its batch norms folded."""
    path = tmp_path_factory.mktemp("onnx") / "trained.onnx"
    net = load_net(weights)
    with quiet():
        torch.onnx.export(
            net,
            (torch.randn(1, 1, 32, 32),),
            path,
            dynamo=False,
            opset_version=13,
            verbose=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "b"}},
        )
    return path
