"""The program trtexec, as its versions differ: its command lines, and what it prints and writes.

Source: NVIDIA/TensorRT, samples/common/sampleOptions.cpp and sampleReporting.cpp at the tags from v8.6.1 to v11.1.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Sequence

from export.engines.wanted import Ranges, Wanted, is_strongly_typed, weak_precisions

Version = Sequence[int]


def version_in(text: str) -> tuple[int, ...] | None:
    """The version that trtexec's output or a library's name tells: (8, 6, 2), (10, 3, 0).

    Three forms: "[TensorRT v8602]" and "[TensorRT v100300]", which is 10000 or, before 10, 1000 times the first number
    and 100 times the second; "TensorRT version: 10.3.0"; "libnvinfer.so.8.6.2".
    """
    plain = re.search(r"TensorRT version: (\d+)\.(\d+)\.(\d+)|libnvinfer\.so\.(\d+)\.(\d+)\.(\d+)", text)
    if plain:
        return tuple(int(part) for part in plain.groups() if part is not None)
    banner = re.search(r"\[TensorRT v(\d{4,6})\]", text)
    if banner is None:
        return None
    number = int(banner.group(1))
    first = 10000 if number >= 100000 else 1000
    return number // first, number % first // 100, number % 100


def build_command(
    program: str, version: Version, onnx: Path, engine: Path, wanted: Wanted, timing_cache: Path | None, layers: Path
) -> list[str]:
    """The command that builds an engine and measures nothing.

    Args:
        timing_cache: read where it is there, and written; None keeps none.
        layers: where what the engine's layers are is written, as JSON.
    """
    return [
        program,
        f"--onnx={onnx}",
        f"--saveEngine={engine}",
        *_precisions(version, wanted),
        *(_shapes(wanted.input, wanted.ranges)),
        *(["--sparsity=enable"] if wanted.sparse_layers else []),
        *([] if wanted.dla is None else [f"--useDLACore={wanted.dla}", "--allowGPUFallback"]),
        *([] if wanted.workspace_mb is None else [f"--memPoolSize=workspace:{wanted.workspace_mb}"]),
        *([] if timing_cache is None else [f"--timingCacheFile={timing_cache}"]),
        "--profilingVerbosity=detailed",
        f"--exportLayerInfo={layers}",
        # The same under another name: the new one is not known before 10, the old one is not from then on.
        "--skipInference" if version[0] >= 10 else "--buildOnly",
    ]


def time_command(
    program: str,
    version: Version,
    engine: Path,
    times: Path,
    profile: Path,
    wanted: Wanted,
    *,
    data_transfers: bool = True,
    seconds: int = 3,
) -> list[str]:
    """The command that times an engine, set alike in every version.

    What is the default changed with 11: there data transfers are off, the CPU spins while it waits, and a CUDA graph is
    launched. Here the CPU spins and a graph is launched in all of them, and transfers are as is asked for.
    """
    if version[0] >= 11:
        explicit = ["--includeDataTransfers"] if data_transfers else []
    else:
        explicit = ["--useSpinWait", "--useCudaGraph", "--separateProfileRun"]
        explicit += [] if data_transfers else ["--noDataTransfers"]
    return [
        program,
        f"--loadEngine={engine}",
        *([f"--shapes={wanted.input}:{_sides(wanted.ranges['opt'])}"] if wanted.ranges else []),
        *([] if wanted.dla is None else [f"--useDLACore={wanted.dla}"]),
        *explicit,
        "--warmUp=500",
        f"--duration={seconds}",
        "--iterations=50",
        f"--exportTimes={times}",
        f"--exportProfile={profile}",
    ]


@dataclass(frozen=True)
class Times:
    """The inferences that trtexec timed, warming up left out, in milliseconds."""

    latency: Sequence[float]
    """With the copies to and from the GPU, where they were not left out."""
    compute: Sequence[float]
    """On the GPU alone."""


def times_in(text: str) -> Times:
    """What `--exportTimes` wrote.

    Raises:
        ValueError: if that is something else.
    """
    told = json.loads(text)
    if not isinstance(told, list) or not told:
        raise ValueError("no inference was timed")
    try:
        found = [(float(each["latencyMs"]), float(each["computeMs"])) for each in told]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it has no {error}") from None
    return Times(latency=[latency for latency, _ in found], compute=[compute for _, compute in found])


def profile_in(text: str) -> list[tuple[str, float]]:
    """The name and the median milliseconds of each layer, as `--exportProfile` wrote them, or the mean.

    Names are written as they are: one with a quotation mark in it makes what is no JSON.
    """
    number = r"([0-9.eE+-]+)"
    entry = rf'"name"\s*:\s*"(.*?)"\s*,\s*"timeMs"\s*:\s*{number}\s*,\s*"averageMs"\s*:\s*{number}'
    # Before 8.4 there was no median.
    median = rf'(?:\s*,\s*"medianMs"\s*:\s*{number})?'
    found = re.findall(entry + median, text, re.DOTALL)
    return [(name, float(median or mean)) for name, _, mean, median in found]


def warnings_in(log: Iterable[str]) -> list[str]:
    """What its summary says against the times: that they are unstable, or bound by the CPU that launches kernels."""
    known = ("is unstable", "may be bound by")
    plain = (_said(line) for line in log)
    return list(dict.fromkeys(line for line in plain if any(word in line for word in known)))


def refusal_in(log: Iterable[str]) -> str:
    """Why it built nothing, in a sentence: the node that it names, and the first reason that is no consequence."""
    lines = list(log)
    errors = [_said(line) for line in lines if re.search(r"\[[EF]\]|^ERROR:", line)]
    memory = [_said(line) for line in lines if _MEMORY.search(line)]
    # An error of several lines has its own reason on the lines behind it, which have no time and no severity.
    details = [_said(line) for line in lines if not re.match(r"\[\d+/|\[[A-Z]\] ", line) and _DETAIL.search(line)]
    reasons = [line for line in [*memory, *details, *errors] if not _CONSEQUENCE.search(line)]
    node = next((f"node {found}: " for found in _node(lines)), "")
    return f"{node}{reasons[0] if reasons else 'no reason given'}"[:400]


_MEMORY = re.compile(r"out of memory|OutOfMemory|cudaError: ?2\b|bad_alloc", re.IGNORECASE)
_DETAIL = re.compile(r"^\[\d+\] |Error Code|Assertion|unsupported", re.IGNORECASE)
_CONSEQUENCE = re.compile(
    r"While parsing node|Invalid Node - |Begin node|End node|^(input|output|name|op_type): |^ERROR: |"
    r"Failed to parse onnx|Parsing model failed|Failed to create engine|Engine set ?up failed|Building engine failed|"
    r"Engine could not be created|ModelImporter\.cpp:\d+: *$"
)


def _node(lines: Sequence[str]) -> list[str]:
    """The node that the parser was at: its name and operator, if it wrote them."""
    text = "\n".join(lines)
    at = re.search(r"While parsing node number (\d+) \[(\w+)(?: -> \"([^\"]*)\")?\]", text)
    invalid = re.search(r"Invalid Node - (\S+)", text)
    if at is None:
        return [] if invalid is None else [invalid.group(1)]
    name = re.search(r'^name: "([^"]*)"', text[at.start() :], re.MULTILINE)
    known = (found.group(1) for found in (name, invalid) if found and found.group(1))
    return [f"{next(known, at.group(3) or at.group(1))} ({at.group(2)})"]


def _precisions(version: Version, wanted: Wanted) -> list[str]:
    if version[0] >= 11:
        return []
    if is_strongly_typed(version, wanted.dla):
        return ["--stronglyTyped"]
    return [f"--{word}" for word in weak_precisions(wanted)]


def _shapes(name: str, ranges: Ranges) -> list[str]:
    return [f"--{which}Shapes={name}:{_sides(ranges[which])}" for which in ("min", "opt", "max") if which in ranges]


def _sides(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _said(line: str) -> str:
    """A line without its time, its severity and where in TensorRT it comes from."""
    plain = re.sub(r"^(?:\[[^\]]*\]\s*)*(?:\w+\.cpp:\d+: |[\w/.]+\.cpp:\d+: )?", "", line.strip())
    return re.sub(r"^(?:ERROR|WARNING): ", "", plain)
