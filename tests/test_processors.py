"""What a report says of other processors: proven, or emulated, or not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from swaps import task_of

from compress.passes.int8 import Int8
from compress.pipeline.deployment import Deployment, target_on
from compress.pipeline.processors import processors
from compress.task import Task
from export import instruction_set as sets
from export.artifact import Artifact
from export.backends import onnxruntime
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.errors import NotHere
from export.instruction_set import X86, InstructionSet, family
from export.quantization.quantized import Quantized
from export.registry import find_device
from export.to_onnx import to_onnx

AMX, AVX2 = X86[0], X86[-1]


@pytest.fixture(scope="module")
def task(folder: Path, weights: Path) -> Task:
    return task_of(folder, weights)


@pytest.fixture(scope="module")
def quantized(task: Task) -> Quantized:
    net = Int8(method="min_max")(task.net, task)
    assert isinstance(net, Quantized)
    return net


@pytest.fixture(scope="module")
def proven(task: Task, quantized: Quantized, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A file whose sums fit 16 bits."""
    return to_onnx(quantized.placed(onnxruntime.RULES), task.example, tmp_path_factory.mktemp("proven") / "net.onnx")


HERE = target_on(find_device("cpu"), 1)


def on(monkeypatch: pytest.MonkeyPatch, known: InstructionSet) -> None:
    monkeypatch.setattr("export.target.instruction_set", lambda: known)
    monkeypatch.setattr("export.device.instruction_set", lambda: known)


def test_an_artifact_that_is_proven_answers_alike_everywhere(task: Task, proven: Artifact) -> None:
    told = processors(OnnxRuntime(), HERE, proven, task, task.data.cases["test"])
    assert told is not None
    assert told["same_on"] == [each.title for each in family()]
    assert (told["differs_on"], told["unsafe"], told["expected"]) == ([], {}, None)
    assert told["why"].startswith("proven: no sum of two products in its ")


def test_one_that_is_not_says_what_is_expected_elsewhere(
    task: Task, quantized: Quantized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eight_bits = replace(onnxruntime.RULES, pairs_in_16_bits=False)
    artifact = to_onnx(quantized.placed(eight_bits), task.example, tmp_path / "net.onnx")
    on(monkeypatch, AMX)
    monkeypatch.setattr("export.target.family", lambda: X86)
    cases = task.data.cases["test"][:4]
    monkeypatch.setattr("export.target.family", lambda: X86)
    cases = task.data.cases["test"][:1]
    told = processors(OnnxRuntime(), HERE, artifact, task, cases)
    assert told is not None
    assert (told["measured_on"], told["same_on"]) == ("AMX", ["AMX", "AVX-512 with VNNI"])
    assert told["differs_on"] == ["AVX2 with VNNI", "AVX-512 without VNNI", "AVX2 without VNNI"]
    assert told["unsafe"] == artifact.made["pair_sums"]["unsafe"] != {}
    assert told["expected"]["cases"] == 1
    with OnnxRuntime().open_as(artifact, pairs_in_16_bits=True) as infer:
        assert told["expected"]["dice_there"] == pytest.approx(task.measure(infer, cases=cases).mean("dice"), abs=1e-6)
    # OpenVINO's sums are not emulated: nothing is expected rather than something wrong.
    told = processors(OpenVino(), HERE, artifact, task, cases)
    assert told is not None and told["expected"] is None and told["differs_on"]


def test_a_float_artifact_has_no_integers_to_differ(task: Task, proven: Artifact, tmp_path: Path) -> None:
    told = processors(OnnxRuntime(), HERE, to_onnx(task.net, task.example, tmp_path / "net.onnx"), task, ())
    assert (
        told is not None and told["differs_on"] == [] and told["why"].startswith("no layer multiplies 8-bit integers")
    )
    assert processors(OnnxRuntime(device=find_device("rtx_40")), HERE, proven, task, ()) is None


def test_a_cpu_with_vnni_is_not_here_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, AVX2)
    with pytest.raises(NotHere, match="has neither AVX-512 VNNI nor AMX: it is AVX2 without VNNI"):
        find_device("cpu_vnni").check_here()
    find_device("cpu").check_here()
    on(monkeypatch, AMX)
    find_device("cpu_vnni").check_here()


@pytest.mark.parametrize(
    ("flags", "title"),
    [
        ("avx2 avx512bw avx512_vnni avx_vnni amx_int8", "AMX"),
        ("avx2 avx512bw avx512_vnni", "AVX-512 with VNNI"),
        ("avx2 avx_vnni", "AVX2 with VNNI"),
        ("avx2 avx512bw", "AVX-512 without VNNI"),
        ("avx2", "AVX2 without VNNI"),
        ("asimd asimddp", "Arm with dot product"),
        ("asimd", "Arm without dot product"),
        ("", "an unknown instruction set"),
    ],
)
def test_the_widest_instruction_set_that_a_host_has_is_its_own(
    flags: str, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "cpu_flags", lambda: frozenset(flags.split()))
    assert sets.instruction_set.__wrapped__().title == title


def test_weights_keep_eight_bits_for_a_cpu_that_is_known(task: Task, tmp_path: Path) -> None:
    devices = map(find_device, ("cpu_vnni", "cpu"))
    known, any_cpu = (Deployment(backend="onnxruntime", target=target_on(each, 1)) for each in devices)
    assert (known.stem, any_cpu.stem) == ("onnxruntime_8bit", "onnxruntime")
    assert known.rules is not None and any_cpu.rules is not None
    assert (known.rules.pairs_in_16_bits, any_cpu.rules.pairs_in_16_bits) == (False, True)
    assert torch.is_tensor(task.example)
