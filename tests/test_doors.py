"""Networks of other libraries and of a user's own file go through everything that ours go through."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from shared_fixtures import write_recipe
from torch import nn

from compress.commands.run import run
from compress.editing.calibration import calibrated
from compress.errors import MissingExtra, RecipeError, WeightsError
from compress.networks import python
from compress.networks.foreign.adapter import LogitsAdapter
from compress.networks.foreign.notes import notes_of
from compress.passes.prune import Prune
from compress.recipe import load, schema
from compress.recognition.network import recognized
from compress.storage.description import Description, build_net, shape_of
from compress.storage.weights import load_net, load_weights, save_net
from export.backends.onnxruntime import OnnxRuntime
from export.capture import folded_graph
from export.quantization.quantized import Quantized
from export.to_onnx import to_onnx

ROOT = Path(__file__).parent.parent
OWN = ROOT / "recipes" / "own"
FILE = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, width=8, classes=3, deep=True):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(2, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())
        self.head = nn.Conv2d(width, classes, 1)
        self.aux = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        x = self.down(x)
        return {"out": self.head(self.body(x)), "aux": self.aux(x)}

def make_net(**options):
    return Net(**options)

built = Net()
"""
NETWORKS: dict[str, dict[str, dict[str, Any]]] = {
    "smp": {
        "smp": {
            "arch": "Unet",
            "encoder": "resnet18",
            "classes": 3,
            "in_channels": 2,
            "options": {"decoder_channels": [32, 16, 8, 8, 8]},
        }
    },
    "torchvision": {
        "torchvision": {"arch": "lraspp_mobilenet_v3_large", "classes": 3, "in_channels": 2},
    },
    "monai": {
        "monai": {
            "arch": "DynUNet",
            "classes": 3,
            "in_channels": 2,
            "options": {
                "kernel_size": [3, 3, 3],
                "strides": [1, 2, 2],
                "upsample_kernel_size": [2, 2],
                "filters": [16, 16, 16],
                "norm_name": "batch",
                "deep_supervision": True,
            },
        }
    },
    "timm": {"timm": {"encoder": "lcnet_035", "classes": 3, "in_channels": 2, "width": 8}},
    "python": {
        "python": {"path": "my_nets.py", "build": "make_net", "args": {"width": 16}, "classes": 3, "in_channels": 2}
    },
}


# Tracing the libraries' own networks takes long even where they are small.
ONE_FAST = [pytest.param(word, marks=() if word == "python" else pytest.mark.slow) for word in NETWORKS]
WHOLE = [{"prune": {"ratio": 0.5}}, {"distill": {"epochs": 1, "rate": 1e-3}}, {"int8": {"calibrate": 4}}]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with my_nets.py in it, of which nothing has been named yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(python.NAMED, "")
    (tmp_path / "my_nets.py").write_text(FILE)
    return tmp_path


def image(batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 2, 64, 96, generator=torch.Generator().manual_seed(seed))


def built(word: str) -> nn.Module:
    """The network, its batch norms having seen something."""
    torch.manual_seed(0)
    net = build_net(NETWORKS[word])
    net.train()
    with torch.no_grad():
        net(image(4))
    return net.eval()


def same(first: nn.Module, second: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(first(image()), second(image()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("word", ONE_FAST)
def test_it_is_pruned_and_comes_back_from_its_description(word: str, here: Path) -> None:
    net = built(word)
    notes: list[str] = []
    task: Any = SimpleNamespace(example=image(), note=notes.append, seed=0, folder=None)
    pruned = Prune(ratio=0.5, multiple=4)(net, task)
    sizes = [sum(tensor.numel() for tensor in each.parameters()) for each in (net, pruned)]
    assert sizes[1] < 0.65 * sizes[0], notes
    save_net(pruned, Description(network=pruned.description), here / "pruned.safetensors")  # type: ignore[arg-type]
    same(load_net(here / "pruned.safetensors"), pruned)
    answer = pruned.train()(image(2))
    assert all(each.shape == (2, 3, 64, 96) for each in (answer if isinstance(answer, tuple) else (answer,)))


@pytest.mark.parametrize("word", ONE_FAST)
def test_it_goes_to_integers_and_out_to_onnx(word: str, here: Path) -> None:
    net = built(word)
    artifact = to_onnx(net, image(), here / "net.onnx")
    with torch.no_grad(), OnnxRuntime().open(artifact) as infer:
        ours = net(image()).numpy()
        np.testing.assert_allclose(infer(image().numpy()), ours, rtol=1e-3, atol=1e-3)
        graph = folded_graph(net, image(), ())
        ranges = calibrated(graph, [image(seed=1), image()], None, 2)
        integers = Quantized(graph, ranges)(image()).numpy()
    assert np.abs(integers - ours).mean() < 0.2 * np.abs(ours).mean() + 0.05


@pytest.mark.parametrize("word", NETWORKS)
def test_a_checkpoint_of_the_library_itself_is_taken(word: str, here: Path) -> None:
    torch.manual_seed(1)
    theirs = shape_of(NETWORKS[word]).unwrapped()
    torch.save({"state_dict": {f"module.{name}": each for name, each in theirs.state_dict().items()}}, "theirs.pt")
    ours = built(word)
    load_weights(ours, here / "theirs.pt")
    mine = ours.net if isinstance(ours, LogitsAdapter) else ours
    assert all(torch.equal(mine.state_dict()[name], each) for name, each in theirs.state_dict().items())


def test_what_was_found_out_is_told(here: Path) -> None:
    assert notes_of(built("python")) == (
        "the logits are 'out' of what the network answers with; it also answers with aux",
        "the network answers at 1/2 of the input's size: its logits are resized to it",
    )
    assert notes_of(built("smp")) == ()


def test_an_auxiliary_head_learns_beside_the_final_one() -> None:
    options = {"arch": "deeplabv3_mobilenet_v3_large", "classes": 2, "aux": True}
    net = build_net({"torchvision": options}).train()
    final, aux = net(torch.randn(2, 3, 32, 48))
    assert final.shape == aux.shape == (2, 2, 32, 48)


# What a recipe is told.


def mistakes(network: dict[str, Any], folder: Path) -> list[str]:
    path = write_recipe(folder, {"network": network, "data": "synthetic"})
    with pytest.raises(RecipeError) as told:
        load(path)
    assert "\n" not in str(told.value)
    return told.value.mistakes


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ({"smp": {"arch": "Unett", "classes": 3}}, "network (smp): arch: smp has no 'Unett'; did you mean 'Unet'?"),
        (
            {"smp": {"arch": "Unet", "encoder": "resnet35", "classes": 3}},
            "encoder: smp has no 'resnet35'; did you mean",
        ),
        ({"smp": {"arch": "Unet", "classes": 3, "options": {"depth": 3}}}, "Unet over resnet34: "),
        ({"smp": {"arch": "Unet", "classes": 3, "options": {"in_channels": 3}}}, "stand beside options"),
        ({"smp": {"arch": "Unet"}}, "network (smp): lacks the option 'classes'"),
        ({"torchvision": {"arch": "deeplabv4", "classes": 3}}, "'deeplabv4' is not one of fcn_resnet50"),
        ({"torchvision": {"arch": "maskrcnn_resnet50_fpn", "classes": 2}}, "answers with a list of instances"),
        ({"torchvision": {"arch": "lraspp_mobilenet_v3_large", "classes": 2, "aux": True}}, "has no auxiliary head"),
        ({"monai": {"arch": "Unet", "classes": 3}}, "monai's Unet needs channels, strides; give them in options"),
        ({"monai": {"arch": "BasicNet", "classes": 3}}, "arch: monai has no 'BasicNet'; did you mean 'BasicU"),
        (
            {"monai": {"arch": "BasicUNet", "classes": 3, "options": {"feature": 3}}},
            "takes no 'feature'; did you mean 'feat",
        ),
        ({"timm": {"encoder": "resnet51", "classes": 3}}, "timm has no encoder 'resnet51'; did you mean"),
        ({"timm": {"encoder": "vit_tiny_patch16_224", "classes": 3}}, "and a U-Net needs strides that grow"),
        (
            {"smp": {"arch": "Unet", "classes": 3, "head": {"outputs": "out"}}},
            "no option 'head.outputs'; did you mean 'output'",
        ),
    ],
)
def test_what_a_library_does_not_have_is_told(network: dict[str, Any], told: str, tmp_path: Path) -> None:
    (said,) = mistakes(network, tmp_path)
    assert told in said


@pytest.mark.parametrize(
    ("word", "package", "extra"),
    [
        ("smp", "segmentation_models_pytorch", "smp"),
        ("timm", "timm", "timm"),
        ("torchvision", "torchvision", "torchvision"),
    ],
)
def test_a_library_that_is_not_installed_is_told_with_how_to_install_it(
    word: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'segpress\[{extra}\]'"):
        shape_of(NETWORKS[word]).unwrapped()


def test_a_size_that_a_library_refuses_is_told() -> None:
    shape = shape_of({"smp": {"arch": "Linknet", "encoder": "resnet18", "classes": 2}})
    assert shape.check_size((64, 96)) is None
    assert shape.check_size((65, 96)) == "this network needs multiples of 32: pad to 96x96 or set data size"


def test_an_encoder_of_one_size_says_so() -> None:
    shape = shape_of({"timm": {"encoder": "swin_tiny_patch4_window7_224", "classes": 2}})
    assert shape.check_size((224, 224)) is None
    assert "224x224 would fit" in shape.check_size((225, 225))


def test_the_schema_has_the_head_and_takes_any_option_of_a_library() -> None:
    networks = schema()["properties"]["network"]["anyOf"]
    options = {word: each["properties"][word]["properties"] for each in networks for word in each.get("properties", {})}
    assert "head" in options["smp"] and "weights" in options["python"]
    assert options["monai"]["options"]["type"] == "object"


# A user's own file.


def python_network(**options: Any) -> dict[str, Any]:
    return {"python": {"path": "my_nets.py", "build": "make_net", "classes": 3, "in_channels": 2, **options}}


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        (FILE, {"path": "no.py"}, "no such file; path is looked for beside the recipe"),
        (FILE, {"build": "make_nets"}, "my_nets.py: has no class or function 'make_nets'; did you mean 'make_net'?"),
        (FILE, {"build": "built"}, "'built' is a Net, not a class or function"),
        (FILE, {"args": {"wide": 3}}, "line 19: TypeError: Net.__init__() got an unexpected keyword argument 'wide'"),
        (
            FILE,
            {"build": "Net", "args": {"wide": 3}},
            "unexpected keyword argument 'wide'; it takes width, classes, deep",
        ),
        (FILE, {"build": "Net", "args": {"width": "x"}}, "line 9: TypeError"),
        (FILE, {"classes": 2}, "classes is 2, but the network answers with 'out' (1x3x32x48), 'aux' (1x3x32x48)"),
        (FILE, {"in_channels": 5}, "answers to no image of 5 channels"),
        (FILE, {"module": "my_nets"}, "give path, a file of yours, or module"),
        (FILE, {"input": [64]}, "input: [64] has not 2 sides"),
        (FILE, {"path": None, "module": "not_there.at_all"}, "module not_there.at_all: cannot be found"),
        (FILE, {"head": {"output": "main"}}, "the answer has no 'main'; it has 'out' (1x3x32x48), 'aux'"),
        ("def make_net(:\n", {}, "my_nets.py: line 1: not Python: invalid syntax"),
        ("import no_such_package\n", {}, "my_nets.py: line 1: needs the package no_such_package"),
        ("import sys\nsys.exit(3)\n", {}, "line 2: ends the program: put what it does when run as a script under"),
        ("x = 1\ny = x / 0\n", {}, "line 2: ZeroDivisionError: division by zero"),
        ("def make_net():\n    return 3\n", {}, "make_net gave a int, not an nn.Module"),
        ("def make_net():\n    raise RuntimeError('boo\\nhoo')\n", {}, "line 2: RuntimeError: boo"),
    ],
)
def test_a_mistake_in_a_users_file_is_one_sentence(text: str, options: dict[str, Any], told: str, here: Path) -> None:
    (here / "my_nets.py").write_text(text)
    network = python_network(**options)
    network["python"] = {key: value for key, value in network["python"].items() if value is not None}
    (said,) = mistakes(network, here)
    assert said.startswith("network (python): ")
    assert told in said


def test_a_file_may_import_what_lies_beside_it(here: Path) -> None:
    (here / "my_parts_of_it.py").write_text("WIDTH = 4\n")
    (here / "my_nets.py").write_text(
        FILE + "\ndef make_net():\n    import my_parts_of_it\n    return Net(my_parts_of_it.WIDTH)\n"
    )
    before = list(sys.path)
    net = build_net(python_network())
    assert net.net.head.in_channels == 4  # type: ignore[union-attr]
    assert sys.path == before


def test_an_installed_module_is_taken_by_its_name(here: Path) -> None:
    options = {"spatial_dims": 2, "in_channels": 2, "out_channels": 3, "features": [4, 4, 4, 4, 8, 4]}
    network = {
        "python": {
            "module": "monai.networks.nets.basic_unet",
            "build": "BasicUNet",
            "args": options,
            "classes": 3,
            "in_channels": 2,
        }
    }
    net = build_net(network).eval()
    save_net(net, Description(network=net.description), here / "net.safetensors")  # type: ignore[arg-type]
    same(load_net(here / "net.safetensors"), net)


def test_a_description_holds_the_name_and_the_hash_of_a_file_and_no_path(here: Path) -> None:
    net = build_net(python_network(path=str(here / "my_nets.py")))
    described = net.description["python"]  # type: ignore[index]
    assert described["path"] == "my_nets.py"
    assert len(described["sha256"]) == 64
    assert str(here) not in json.dumps(described)


def test_a_saved_network_is_loaded_from_another_folder_where_its_file_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    net = built("python")
    saved = here / "net.safetensors"
    save_net(net, Description(network=net.description), saved)  # type: ignore[arg-type]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    same(load_net(saved), net)
    monkeypatch.setenv(python.NAMED, "")
    with pytest.raises(WeightsError, match=r"net\.json: the network is built by my_nets\.py .* set SEGPRESS_CODE to"):
        load_net(saved)
    (elsewhere / "my_nets.py").write_text(FILE)
    monkeypatch.setenv(python.NAMED, str(elsewhere / "my_nets.py"))
    same(load_net(saved), net)
    (elsewhere / "my_nets.py").write_text(FILE + "\n# changed\n")
    with pytest.raises(WeightsError, match=r"my_nets\.py: the file has changed since the network was described"):
        load_net(saved)


@pytest.mark.parametrize(
    "network",
    [
        {"python": {"path": "trap.py", "build": "make", "classes": 2}},
        {"python": {"path": "trap.py", "build": "make", "classes": 2, "sha256": "0" * 64}},
        {"python": {"path": "{here}/trap.py", "build": "make", "classes": 2, "sha256": "0" * 64}},
        {"python": {"module": "os", "build": "mkdir", "args": {"path": "trapped"}, "classes": 2, "sha256": "0" * 64}},
        {"python": {"module": "os", "build": "mkdir", "args": {"path": "trapped"}, "classes": 2}},
        {"changed": {"net": {"python": {"path": "trap.py", "build": "make", "classes": 2}}, "layers": {}}},
        {"int8": {"net": {"changed": {"net": {"python": {"path": "trap.py", "build": "make", "classes": 2}}}}}},
    ],
)
def test_a_description_alone_never_runs_anything(network: dict[str, Any], here: Path) -> None:
    (here / "trap.py").write_text("import os\nos.mkdir('trapped')\n")
    save_net(nn.Conv2d(1, 1, 1), Description(network={"unet": {"classes": 2}}), here / "net.safetensors")
    text = json.dumps({"network": network}).replace("{here}", str(here))
    (here / "net.json").write_text(text)
    with pytest.raises(WeightsError):
        load_net(here / "net.safetensors")
    assert not (here / "trapped").exists()


def test_weights_of_a_file_that_has_changed_are_not_mixed_up(here: Path) -> None:
    net = built("python")
    save_net(net, Description(network=net.description), here / "net.safetensors")  # type: ignore[arg-type]
    (here / "my_nets.py").write_text(FILE + "\n# changed\n")
    recipe = {"network": python_network(args={"width": 16}, weights="net.safetensors"), "data": "synthetic"}
    with pytest.raises(WeightsError, match="the file has changed since the network was described"):
        load(write_recipe(here, recipe)).task()
    (here / "net.json").unlink()
    load_weights(build_net(python_network(args={"width": 16})), here / "net.safetensors")


def test_probabilities_are_refused_before_anything_is_measured(here: Path, folder: Path) -> None:
    text = FILE.replace('return {"out": self.head(self.body(x)), "aux": self.aux(x)}', "return self.head(x).softmax(1)")
    (here / "my_nets.py").write_text(text.replace("Conv2d(2,", "Conv2d(1,"))
    network = python_network(weights="net.pt", in_channels=1)
    torch.save(
        build_net(
            {"python": {key: each for key, each in network["python"].items() if key != "weights"}}
        ).net.state_dict(),
        "net.pt",
    )  # type: ignore[union-attr]
    data = {"folder": {"root": str(folder), "size": [32, 32]}}
    with pytest.raises(WeightsError, match="answers with probabilities, not logits"):
        load(write_recipe(here, {"network": network, "data": data})).task()
    network["python"]["head"] = {"activation": "softmax"}
    task = load(write_recipe(here, {"network": network, "data": data})).task()
    assert "turned back into logits" in " ".join(notes_of(task.net))
    assert notes_of(task.net)[-1].startswith(
        "the weights tell no classes and no normalization: that of the train cases"
    )


TWO = """
import torch
from torch import nn
from compress.networks.unet import UNet

class Two(nn.Module):
    def __init__(self, alike=False):
        super().__init__()
        self.net, self.alike = UNet(classes=3, width=8, depth=2)(), alike

    def forward(self, x):
        y = self.net(x)
        return [y if self.alike else y.roll(1, 1), y]
"""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"weights": "two.pt"}, r"mean Dice on 4 cases: '0' 0\.\d+, '1' [01]\.\d+: head: \{output: 1\} fits best"),
        ({"weights": "two.pt", "args": {"alike": True}}, "they fit alike"),
        ({}, "with the weights and the data given too, each would be scored"),
        ({"weights": "none.pt"}, r"could not be scored \(.*none.pt: no such weights file"),
    ],
)
def test_of_several_outputs_the_one_that_fits_the_masks_is_told(
    options: dict[str, Any], told: str, here: Path, folder: Path, weights: Path
) -> None:
    (here / "my_nets.py").write_text(TWO)
    torch.save({f"net.{name}": tensor for name, tensor in load_net(weights).state_dict().items()}, "two.pt")
    network = python_network(build="Two", in_channels=1, **options)
    normalization = {"mean": [0.45], "std": [0.2]}
    data = {"folder": {"root": str(folder), "size": [32, 32], "normalization": normalization}}
    with pytest.raises(RecipeError, match=told):
        load(write_recipe(here, {"network": network, "data": data}))


# The example of the README.


def my_net() -> ModuleType:
    spec = importlib.util.spec_from_file_location("my_net", OWN / "my_net.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("passes", [WHOLE[-1:], pytest.param(WHOLE, marks=pytest.mark.slow)], ids=["int8", "whole"])
def test_a_file_and_a_checkpoint_of_ones_own_go_through_a_run(passes: list[Any], here: Path) -> None:
    main: Callable[..., None] = my_net().main
    main(here / "runs" / "own", {"train": 16, "calibration": 4, "val": 2, "test": 3}, 32, 30)
    recipe = yaml.safe_load((OWN / "my_net.yaml").read_text())
    recipe["network"]["python"]["path"] = str(OWN / "my_net.py")
    recipe["data"]["folder"]["size"] = [32, 32]
    recipe["passes"] = passes
    recipe["latency"] = {"samples": 10, "seconds": 0.1, "warm_up": 0, "threads": 1}
    report = run(load(write_recipe(here, recipe)), here / "out", say=lambda _: None)
    measured = {(row.step, row.backend) for row in report.rows if row.status == "measured"}
    assert ("baseline", "torch") in measured
    last = f"{len(passes):02d}-int8"
    assert {(last, "onnxruntime"), (last, "openvino")} <= measured
    notes = report.steps[0]["notes"]
    assert any("the logits are 'out'" in note for note in notes)
    assert any("that of the recipe is used" in note for note in notes)


def test_a_checkpoint_of_another_library_tells_its_network(tmp_path: Path) -> None:
    known = {"arch": "FPN", "encoder": "mobilenet_v2", "classes": 2, "in_channels": 1}
    net = shape_of({"smp": known}).unwrapped()
    torch.save(
        {"state_dict": {f"model.{name}": tensor for name, tensor in net.state_dict().items()}}, tmp_path / "a.pth"
    )
    assert recognized(tmp_path / "a.pth").network == {"smp": known}
