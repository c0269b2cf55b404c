"""`compress doctor`: what this machine is and can, and what is to be installed."""

from __future__ import annotations

import json

import pytest
from test_cli import compress

from compress.commands import doctor as command
from compress.commands.doctor import doctor, precisions
from compress.errors import MissingExtra
from compress.report.checkup import lines
from export.backends.openvino import OpenVino
from export.devices.cpu import CPU
from export.devices.cuda import CUDA
from export.instruction_set import X86
from export.registry import words

AMX, AVX2 = X86[0], X86[-1]


def test_every_runtime_is_told_of() -> None:
    done = compress("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {each["backend"] for each in found["abilities"]} == set(words("export.backends"))
    (ours,) = (each for each in found["abilities"] if (each["backend"], each["device"]) == ("onnxruntime", "cpu"))
    assert ours["builds"] and ours["runs"] and ours["precisions"][0] == "float32"
    assert found["host"]["cpus"] >= 1 and found["python"].count(".") == 2


def test_in_lines_it_says_what_is_missing_and_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise MissingExtra("openvino", "openvino")

    monkeypatch.setattr(OpenVino, "check_installed", staticmethod(absent))
    monkeypatch.setattr(command, "_lacking", lambda: {"cluster": ("ray",)})
    told = list(lines(doctor().as_dict()))
    assert "  openvino: pip install 'segpress[openvino]'" in told
    assert "  ray: pip install 'segpress[cluster]'" in told
    (row,) = (line for line in told if line.startswith("openvino"))
    assert "(openvino is not installed)" in row and row.split()[3:5] == ["no", "no"]


def test_without_a_gpu_what_runs_on_one_is_told_once_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "cuda_capabilities", list)
    monkeypatch.setattr("export.device.cuda_capabilities", list)
    found = doctor()
    assert (
        not found.gpus and [each.why for each in found.abilities if each.device == "cuda"] == ["no NVIDIA driver"] * 2
    )


def test_with_a_gpu_every_runtime_that_computes_on_it_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "cuda_capabilities", lambda: ["8.9"])
    monkeypatch.setattr("export.device.cuda_capabilities", lambda: ["8.9"])
    monkeypatch.setattr(command, "gpu_name", lambda: "NVIDIA L4")
    found = doctor()
    assert found.gpus == ("NVIDIA L4 (8.9)",) and "GPU: NVIDIA L4 (8.9)" in "\n".join(lines(found.as_dict()))
    assert {each.backend for each in found.abilities if each.device == "cuda"} >= {"torch", "onnxruntime", "tensorrt"}


def test_what_a_processor_lacks_is_not_promised() -> None:
    none = frozenset[str]()
    assert precisions("openvino", CPU, none, [], AVX2) == ("float32", "int8 (AVX2 without VNNI)")
    assert "bfloat16" in precisions("openvino", CPU, frozenset({"amx_bf16"}), [], AMX)
    assert "bfloat16" not in precisions("tensorrt", CUDA, none, ["7.5"], AVX2)
    assert "bfloat16" in precisions("tensorrt", CUDA, none, ["8.6"], AVX2)
