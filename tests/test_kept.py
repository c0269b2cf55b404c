"""What a run keeps is found again by its key alone."""

from __future__ import annotations

from pathlib import Path

from compress.kept import Kept


def test_there_is_a_value_once_it_was_made_and_only_for_its_key(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert not kept.has("scores", "a")
    assert kept.value("scores", "a", lambda: 1) == 1
    assert kept.has("scores", "a") and not kept.has("scores", "b") and not kept.has("others", "a")
