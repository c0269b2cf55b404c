"""`compress pack`: a finished run's artifact with all that its device must do before and after it, proven."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from compress.errors import SegpressError
from compress.packing.about import about
from compress.packing.proof import check, drawn, expected
from compress.packing.source import source_of
from compress.pipeline.finished import finished
from compress.storage.weights import load_net
from export.files import check_folder, make_folder
from export.registry import find_device, named, words
from export.target import target_of

KINDS = "compress.packing.kinds"


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What was written, and what was seen of it."""

    folder: Path
    use: str
    """How it is run, in a sentence."""
    same: float
    """Share of the pixels to which the pack gives the class that the run gives them."""
    images: int


def pack(
    folder: Path,
    kind: str,
    out: Path,
    *,
    step: str | None = None,
    backend: str | None = None,
    images: Sequence[Path] = (),
    licence: str = "not stated",
    say: Callable[[str], None] = print,
) -> Packed:
    """Write a pack of the run in `folder`, which is only read, into the folder `out`, which must not be there.

    Args:
        kind: a word of compress/packing/kinds.
        step: None takes the last.
        backend: None takes the first that this kind knows and the step was built for.
        images: files on which the pack's masks are compared with the run's; () draws some.
        licence: of the weights, for segpress.json.

    Raises:
        SegpressError: if there is no such artifact, a pack cannot hold what it needs, or the masks differ.
    """
    _check_given(kind, out, images)
    packing = named(KINDS, kind)
    source = source_of(finished(folder), step, packing.backends, backend)
    refused = list(source.refusals())
    if refused:
        raise SegpressError(f"{source.run.path}: {source.row.step} cannot be packed: {'; '.join(refused)}")
    told = about(source, source.row.backend, licence)
    beside = _beside(out)
    try:
        use = packing.write(source, told, beside)
        with TemporaryDirectory() as place:
            paths = list(images) or drawn(make_folder(Path(place) / "drawn"), deep=packing.deep)
            say(f"comparing its masks with the run's on {len(paths)} images ...")
            with target_of(find_device("cpu"), None, load_net).open(source.row.backend).open(source.artifact) as infer:
                wanted = [expected(source, infer, path) for path in paths]
            same = check(
                wanted, packing.masks(beside, paths, make_folder(Path(place) / "masks")), [p.name for p in paths]
            )
        beside.replace(out)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(beside)
        raise
    use = use.replace(beside.name, shlex.quote(out.name))
    return Packed(folder=out, use=use, same=same, images=len(paths))


def _check_given(kind: str, out: Path, images: Sequence[Path]) -> None:
    """Whether there is such a pack, its place is free, and files that are named have masks of their own names."""
    if kind not in words(KINDS):
        raise SegpressError(f"--for {kind}: there is no such pack; there are {', '.join(words(KINDS))}")
    if out.exists():
        raise SegpressError(f"{out}: is there already; name another folder with --out, or take it away")
    check_folder(out.parent)
    known: dict[str, Path] = {}
    for path in images:
        if not path.is_file():
            raise SegpressError(f"--image: {path}: {'a folder; give files' if path.is_dir() else 'no such file'}")
        if path.stem in known:
            raise SegpressError(f"--image: {known[path.stem]} and {path} have one name, and so would their masks")
        known[path.stem] = path


def _beside(out: Path) -> Path:
    """An empty folder in which a pack is written before it gets its name."""
    beside = out.with_name(f".{out.name}.part")
    if beside.is_dir():
        # One that was killed left it.
        shutil.rmtree(beside)
    return make_folder(beside)
