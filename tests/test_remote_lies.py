"""No answer of a device that cannot be right becomes a measurement."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from over_ssh import LIAR, images, script, target

from compress.errors import NotHere, SurroundingsError
from export.artifact import Artifact
from export.clock import Turn
from export.remote.conversation import close_all
from export.remote.target import RemoteTarget


def lied_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> RemoteTarget:
    """A host whose runner tells this lie."""
    program = tmp_path / "liar.py"
    program.write_text(LIAR.replace("LIE", lie.replace("\n", "\n        ")))
    monkeypatch.setenv("SEGPRESS_SSH", script(tmp_path / "ssh", f"exec {sys.executable} -u {program}"))
    return target()


LIES = {
    "forged": 'say(right, floats, nonce="0" * 32)',
    "stale": 'say({**right, "to": asked["number"] - 1}, floats)',
    "unasked": 'say({key: value for key, value in right.items() if key != "to"}, floats)',
    "huge": 'sys.stdout.buffer.write(json.dumps({**right, "bytes": 1 << 40, "nonce": nonce}).encode() + b"\\n"); '
    "sys.stdout.buffer.flush()",
    "long": 'sys.stdout.buffer.write(b"x" * (1 << 21)); sys.stdout.buffer.flush()',
    "of another input": 'say({**right, "input": "0" * 64}, floats)',
    "of another artifact": 'say({**right, "handle": 2}, floats)',
    "too short": "say(right, floats[:8])",
    "of another shape": 'say({**right, "shape": [1, 1, 2, 3]}, floats)',
    "of no shape": 'say({**right, "shape": []}, floats)',
    "of a shape below zero": 'say({**right, "shape": [1, 1, -2, -2]}, floats)',
    "no object": 'sys.stdout.buffer.write(b"[1, 2]\\n"); sys.stdout.buffer.flush()',
    "more than asked": 'say({**right, "note": "believe me"}, floats)',
    "packed and is not": 'say({**right, "packed": True}, floats)',
    "packed and is more": 'import zlib; say({**right, "packed": True}, zlib.compress(bytes(1 << 24)))',
    "packed and is less": 'import zlib; say({**right, "packed": True}, zlib.compress(bytes(8)))',
    "of a shape beyond all": 'say({**right, "packed": True, "shape": [1 << 20] * 3}, floats)',
}


@pytest.mark.parametrize("lie", LIES)
def test_no_answer_that_cannot_be_is_taken_for_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, lie: str
) -> None:
    remote = lied_to(tmp_path, monkeypatch, LIES[lie])
    with (
        pytest.raises(SurroundingsError, match="tower: ") as told,
        remote.open("onnxruntime").open(artifact) as infer,
    ):
        infer(images(artifact)[0])
    assert told.value.exit_code == 4 and "\n" not in str(told.value)
    close_all()


LABELS = {
    "of a third class": 'say({**right, "shape": [1, 2, 2]}, bytes([0, 1, 2, 0]))',
    "of two images": 'say({**right, "shape": [2, 1, 2]}, bytes(4))',
    "too short": 'say({**right, "shape": [1, 2, 2]}, bytes(3))',
    "floats": 'say({**right, "shape": [1, 2, 2]}, floats)',
}


@pytest.mark.parametrize("lie", LABELS)
def test_no_answer_that_cannot_be_is_taken_for_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, lie: str
) -> None:
    remote = lied_to(tmp_path, monkeypatch, LABELS[lie])
    with (
        pytest.raises(SurroundingsError, match="tower: "),
        remote.open("onnxruntime").open(artifact) as infer,
    ):
        infer.labels(images(artifact)[0])  # type: ignore[attr-defined]
    close_all()


TIMES = [
    "[NaN]",
    "[Infinity]",
    "[-1.0]",
    "[0.0]",
    "[1e300]",
    '["1"]',
    "[1.0] * 9",
    "[60000.0]",
    "None",
    "1.0",
    "[True]",
]


@pytest.mark.parametrize("times", TIMES)
def test_no_answer_that_cannot_be_is_taken_for_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, times: str
) -> None:
    lie = f'NaN, Infinity = float("nan"), float("inf")\nsay({{"handle": 1, "ms": {times}, **to}})'
    remote = lied_to(tmp_path, monkeypatch, lie)
    with pytest.raises(SurroundingsError, match="tower: "), remote.open("onnxruntime").open(artifact) as infer:
        remote.time(infer, images(artifact), Turn(first=0, count=3))
    close_all()


def test_logits_that_are_not_finite_are_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact
) -> None:
    from export.choice import finite

    remote = lied_to(tmp_path, monkeypatch, 'say(right, struct.pack("<4f", 1, float("nan"), 3, 4))')
    with remote.open("onnxruntime").open(artifact) as infer, pytest.raises(NotHere, match="not finite"):
        finite(infer(images(artifact)[0]))
    close_all()
