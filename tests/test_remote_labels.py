"""A device elsewhere chooses labels itself where labels say enough: the same ones to the bit, in far fewer bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import ssh_server
import torch
from onnx import TensorProto, helper, numpy_helper
from shared_fixtures import write_folder
from torch import nn

from compress.data.folder import Folder
from compress.errors import NotHere
from compress.postprocess.applying.chain import Postprocess
from compress.postprocess.largest_component import LargestComponent
from compress.postprocess.threshold import Threshold
from compress.task import Task, needs_logits
from export.artifact import Artifact, Infer, Port
from export.reach import Reach
from export.registry import find_backend, find_device
from export.remote.conversation import Conversation
from export.remote.runner.packing import packed, unpacked
from export.remote.target import RemoteTarget

pytestmark = pytest.mark.skipif(not ssh_server.IS_THERE, reason=ssh_server.MISSING)

CLASSES = ("background", "square", "disc")
SIZES = (1, 1, 32, 32)


def net_of(logits: int, padding: int = 1, *, broken: bool = False) -> nn.Conv2d:
    """A convolution whose coarse weights, of which two classes share theirs, make many logits equal to others."""
    torch.manual_seed(logits)
    net = nn.Conv2d(1, logits, 3, padding=padding)
    with torch.no_grad():
        net.weight.copy_(torch.randint(-1, 2, net.weight.shape).float())
        net.weight[-1] = net.weight[0]
        net.bias.fill_(float("inf") if broken else 0.0)
    return net


def artifact_of(net: nn.Conv2d, path: Path) -> Artifact:
    """The same as a file for images of any size."""
    weights = [numpy_helper.from_array(each.detach().numpy(), name) for name, each in net.named_parameters()]
    pads = [int(net.padding[0])] * 4
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"], pads=pads)],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, net.out_channels, None, None])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    ports = (Port(name="image", shape=(1, 1, -1, -1), dtype="float32"),)
    output = Port(name="logits", shape=(1, net.out_channels, -1, -1), dtype="float32")
    return Artifact(path=path, format="onnx", input=ports[0], output=output).sealed()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "few", {"train": 2, "val": 1, "test": 2})


def task_of(root: Path, net: nn.Module, *steps: tuple[str, Any], **options: Any) -> Task:
    made: Any = Folder(root=root, calibration=0, **options)
    logits = net(torch.zeros(SIZES)).shape[1]
    data = made(channels=1, classes=max(2, logits) if logits > 1 else 3)
    return Task(data=data, net=net, seed=0, postprocess=Postprocess(steps=steps, class_names=CLASSES))


@contextmanager
def both(artifact: Artifact) -> Iterator[tuple[Infer, Infer]]:
    """The artifact at the host and here."""
    remote = RemoteTarget(device=find_device("cpu").reached(Reach(at="tower", python=sys.executable)), given_threads=1)
    here = find_backend("onnxruntime")(device=find_device("cpu"), threads=1)  # type: ignore[call-arg]
    with remote.open("onnxruntime").open(artifact) as there, here.open(artifact) as near:
        yield there, near


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What runners are asked to do."""
    every: list[str] = []
    ask = Conversation.ask

    def noted(self: Conversation, kind: Any, request: dict[str, Any], payload: bytes = b"") -> Any:
        every.append(request["do"])
        return ask(self, kind, request, payload)

    monkeypatch.setattr(Conversation, "ask", noted)
    return every


WAYS: dict[str, tuple[int, int, tuple[tuple[str, Any], ...], dict[str, Any], str]] = {
    "at their own size": (3, 1, (), {"size": (32, 32)}, "choose"),
    "of one logit": (1, 1, (), {"size": (32, 32)}, "choose"),
    "cleaned": (3, 1, (("largest_component", LargestComponent()),), {"size": (32, 32)}, "choose"),
    "restored by labels": (3, 1, (), {"size": (24, 16), "restore": "labels"}, "choose"),
    "restored by labels behind padding": (
        3,
        1,
        (),
        {"size": (24, 40), "fit": "pad", "restore": "labels"},
        "choose",
    ),
    "of an unpadded network": (3, 0, (), {"size": (24, 24)}, "choose"),
    "restored by probabilities": (3, 1, (), {"size": (24, 24)}, "infer"),
    "behind a threshold": (3, 1, (("threshold", Threshold(at=0.6)),), {"size": (32, 32)}, "infer"),
    "of tiles": (3, 1, (), {"size": (24, 24), "fit": "tile"}, "infer"),
}


@pytest.mark.parametrize("way", WAYS)
def test_labels_are_those_of_this_host_to_the_bit(
    host: None, root: Path, tmp_path: Path, asked: list[str], way: str
) -> None:
    logits, padding, steps, options, expected = WAYS[way]
    net = net_of(logits, padding)
    task = task_of(root, net, *steps, **options)
    with both(artifact_of(net, tmp_path / "net.onnx")) as (there, here):
        for case in task.data.cases["test"]:
            ours, theirs = task.labels(here, case), task.labels(there, case)
            assert theirs.dtype == np.uint8 and np.array_equal(ours, theirs)
            assert np.array_equal(task.fitted_labels(here, case), task.fitted_labels(there, case))
            assert np.array_equal(task.score(here, case)[0], task.score(there, case)[0], equal_nan=True)
            assert (needs_logits(task, case) is None) == (expected == "choose")
    assert {each for each in asked if each in ("choose", "infer")} == {expected}


def test_equal_logits_are_common_and_the_first_class_wins(host: None, root: Path, tmp_path: Path) -> None:
    net = net_of(3)
    image = task_of(root, net, size=(32, 32)).data.images(task_of(root, net).data.cases["test"])
    with both(artifact_of(net, tmp_path / "net.onnx")) as (there, here):
        given = np.round(next(image))
        logits, labels = here(given), there.labels(given)  # type: ignore[attr-defined]
    assert (logits[:, 0] == logits[:, 2]).all() and not (labels == 2).any() and (labels == 0).any()


def test_logits_that_are_not_finite_choose_nothing(host: None, root: Path, tmp_path: Path) -> None:
    net = net_of(3, broken=True)
    task = task_of(root, net, size=(32, 32))
    with (
        both(artifact_of(net, tmp_path / "net.onnx")) as (there, _),
        pytest.raises(NotHere, match="not finite"),
    ):
        task.labels(there, task.data.cases["test"][0])


def test_labels_are_a_hundredth_of_what_logits_are(host: None, root: Path, tmp_path: Path) -> None:
    net = net_of(3)
    case = task_of(root, net, size=(256, 256), restore="labels").data.cases["test"][0]
    bytes_of = {}
    for restore in ("labels", "probabilities"):
        task = task_of(root, net, size=(256, 256), restore=restore)
        with both(artifact_of(net, tmp_path / "net.onnx")) as (there, _):
            conversation: Any = there._conversation  # type: ignore[attr-defined]
            before = conversation.answered_bytes
            task.labels(there, case)
            bytes_of[restore] = conversation.answered_bytes - before
    assert bytes_of["labels"] <= 256 * 256
    assert bytes_of["labels"] * 12 <= bytes_of["probabilities"] <= 4 * 3 * 256 * 256


@pytest.mark.parametrize("data", [b"", b"x", b"ab" * 100_000, np.random.default_rng(0).bytes(300_000)])
@pytest.mark.parametrize("width", [1, 4])
def test_what_is_packed_is_unpacked_to_the_bit(data: bytes, width: int) -> None:
    data = data[: len(data) // width * width]
    payload, is_packed = packed(data, width)
    assert len(payload) <= len(data) and is_packed == (len(payload) < len(data))
    assert (unpacked(payload, len(data), width) if is_packed else payload) == data


@pytest.mark.parametrize("payload", [b"", b"no", packed(b"a" * 1000)[0][:-1], packed(b"a" * 1000)[0] + b"x"])
def test_what_is_cut_or_has_more_behind_it_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="packed"):
        unpacked(payload, 1000)
