"""A finished run's folder as `compress run` leaves it, made of rows alone: no network, nothing measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from judged import row, scores, times

from compress.commands.run import with_drops
from compress.gates.judging.judge import judge
from compress.measure.row import Row
from compress.pipeline.manifest import seal
from compress.report.report import Report
from export.files import make_folder, write_bytes, write_json
from export.registry import named

CASES = 60
HOST = {"cpu": "Some CPU", "cpus": 4, "threads": 2, "os": "Linux", "machine": "x86_64", "isa": ["avx2"]}
VERSIONS = {"segpress": "0.1.0", "torch": "2.13", "onnxruntime": "1.32", "openvino": "2026.4"}
GATES = ({"dice_drop": {"at_most": 0.01}}, {"size_mb": {"at_most": 1}})


def around(p50: float, seed: int = 0, n: int = 460) -> dict[str, Any]:
    """Times with the long tail that they have, of this median, as a record keeps them."""
    noise = np.random.default_rng(seed).lognormal(0, 0.05, n)
    return {**times(list(p50 * noise)), "conditions": {"governor": None}}


def dice(mean: float = 0.9, seed: int = 0, n: int = CASES) -> np.ndarray:
    """Dice of every case (N)."""
    return np.clip(np.random.default_rng(seed).normal(mean, 0.03, n), 0, 1)


def two_steps(dice_after: Any = None, p50: Sequence[float] = (8.0, 4.0, 2.0), seed: int = 0, **more: Any) -> list[Row]:
    """The baseline under torch and ONNX Runtime, and one step under ONNX Runtime; `p50` in ms, in this order."""
    before, after = dice(), dice() if dice_after is None else dice_after
    timed = [around(each, 3 * seed + place) for place, each in enumerate(p50)]
    return [
        row("baseline", "torch", scores=scores(before), latency_ms=timed[0]),
        row("baseline", scores=scores(before), latency_ms=timed[1]),
        row("01-int8", scores=scores(after), latency_ms=timed[2], **more),
    ]


def finish(
    folder: Path,
    rows: Sequence[Row],
    gates: Sequence[Mapping[str, Any]] = GATES,
    content: str = "a",
    **more: Any,
) -> Path:
    """The folder, with its report, what was kept, an artifact a row, a log and the manifest.

    Args:
        content: what the artifacts hold: of one content, two runs have the same files.
    """
    rows = with_drops([_built(folder, each, content) for each in rows], [])
    chosen = [(word, named("compress.gates", word)(**options)) for gate in gates for word, options in gate.items()]
    classes = list((rows[-1].scores or {"per_class": {"nerve": {}}})["per_class"])
    told: dict[str, Any] = {
        "name": "some run",
        "seed": 7,
        "recipe": {
            "network": {"unet": {"width": 8, "weights": "w.safetensors"}},
            "passes": ["int8"],
            "gates": list(gates),
        },
        "versions": VERSIONS,
        "host": HOST,
        "cases": {"test": len((rows[-1].scores or {"per_case": ()})["per_case"])},
        "data": {"classes": ["background", *classes], "test_looks": sum(each.status == "measured" for each in rows)},
        "hashes": {"data": "d" * 64, "weights": "e" * 64},
        "steps": [
            {"step": name, "chain": None, "params": 1, "macs": 1} for name in dict.fromkeys(r.step for r in rows)
        ],
        **more,
    }
    report = Report(rows=rows, gates=judge(chosen, rows), **told)
    names = {f"{each.step}-{each.backend}-{each.device}": each for each in rows}
    timed = {name: {"latency_ms": each.latency_ms, "watch": each.watch} for name, each in names.items()}
    _keep(folder, "latency", timed)
    for name, each in names.items():
        _keep(folder, f"scores-{name}", {"scores": each.scores, "parity": each.parity})
    for name in ("report.md", "report.html", "log.txt"):
        write_bytes(folder / name, f"the {name} of a run\n".encode() * 20)
    write_json(folder / "report.json", report.as_dict())
    seal(folder)
    return folder


def _keep(folder: Path, name: str, value: Any) -> None:
    write_json(make_folder(folder / "kept") / f"{name}.json", {"key": "k" * 64, "value": value})


def _built(folder: Path, of: Row, content: str) -> Row:
    path = make_folder(folder / "artifacts" / of.step) / f"{of.backend}.onnx"
    size = round((of.size_mb or 0.01) * 1e6)
    data = f"{content} {of.step} {of.backend}".encode().ljust(size, b".")
    write_bytes(path, data)
    sha256 = {path.name: hashlib.sha256(data).hexdigest()}
    return replace(of, artifact=str(path.relative_to(folder)), sha256=sha256, size_mb=size / 1e6)
