"""`compress init`: from a trained network and a folder of images to a recipe that can be checked and run.

What can be seen is looked at: the network in the names and shapes of its tensors, the classes in the masks, and the
input's size and normalization in what the network answers. What cannot be seen is asked.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compress.data.dataset.dicom import Window
from compress.data.dataset.pairs import SUFFIXES
from compress.errors import SegpressError
from compress.recipe.entries import Entries
from compress.recognition import nnunet
from compress.recognition.cases import Cases, cases_in
from compress.recognition.found import Input, Meaning, input_of, meaning_of
from compress.recognition.network import Recognized, given, recognized, told
from compress.recognition.recipe_text import Draft
from compress.storage.description import shape_of
from export.files import check_folder, make_folder, write_together
from export.registry import named, words

Say = Callable[[str], None]
Ask = Callable[[str, str, str], str]
"""answer = ask(question, what is proposed, the flag that answers it); without a terminal it refuses."""
SPLIT, NETWORKS = "split.csv", "compress.networks"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a person said beforehand; None is to be found out."""

    network: str | None = None
    """A word and its options, as YAML."""
    size: tuple[int, int] | None = None
    normalization: str | None = None
    """`imagenet`, `unit`, or as many numbers of mean and of deviation as there are channels."""
    window: str | None = None
    """The values that become black and white, as `LOW,HIGH`."""
    masks: str | None = None
    """The class of each stored value, as YAML."""
    classes: tuple[str, ...] | None = None
    patients: str | None = None
    seed: int = 7
    force: bool = False


def init(weights: Path, data: Path, out: Path, answers: Answers, ask: Ask, say: Say) -> list[Path]:
    """Write a recipe for this network and this data, and the split that it needs; returns the files written.

    Raises:
        SegpressError: if a file is there already, the network is not known, the data cannot be read, or what must be
            asked is not answered.
    """
    _check_place(out, data, answers, ask)
    if weights.is_dir():
        return _of_training(weights, data, out, answers, say)
    known = _network(weights, answers)
    shape = shape_of(known.network)
    say(f"network: {told(known.network)}, {shape.in_channels} channels in, {shape.classes} out ({known.how})")
    if shape.dims != 2:
        raise SegpressError(
            f"{weights}: the network takes volumes, and init reads images; docs/volumes.md has a recipe for volumes"
        )
    cases = cases_in(data, answers.patients, answers.seed)
    counts = ", ".join(f"{len(some)} {role}" for role, some in cases.by_role.items() if some)
    say(f"data: {counts} ({cases.how})")
    for sentence in cases.odd:
        say(f"data: {sentence}")
    masks = None if answers.masks is None else _mapping("--masks", answers.masks)
    meaning = meaning_of(cases.seen(), shape.classes, masks, answers.classes)
    found = input_of(
        known, weights, cases.seen(), meaning, answers.size, answers.normalization, _window(answers.window), ask
    )
    meaning = meaning.in_order(found.order)
    if answers.classes is None and answers.masks is None and found.classes is None:
        meaning = _named(meaning, ask)
    for sentence in (*meaning.sentences, *found.sentences):
        say(sentence)
    return _written(_draft(weights, data, out, answers, known, cases, meaning, found), cases, out)


def _of_training(results: Path, data: Path, out: Path, answers: Answers, say: Say) -> list[Path]:
    """The recipe of a results folder of nnU-Net, whose plans tell what is looked for elsewhere."""
    training = nnunet.training_in(results, data)
    for sentence in nnunet.told(training):
        say(sentence)
    text = training.as_yaml(_place(training.results.path, out), _place(data, out), answers.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_together({out: text.replace("THIS FILE", str(out)).encode()})
    return [out]


def _check_place(out: Path, data: Path, answers: Answers, ask: Ask) -> None:
    """Nothing is written over, and nothing beside somebody's images."""
    if out.suffix not in (".yaml", ".yml"):
        raise SegpressError(f"--out: {out}: a recipe is a YAML file, such as {out.with_suffix('.yaml')}")
    check_folder(out.parent)
    for path in (out, *([out.parent / SPLIT] if not (data / SPLIT).is_file() else [])):
        if path.is_dir():
            raise SegpressError(f"{path}: is a folder, where a file is to be written; give another --out")
        if path.exists() and not answers.force:
            raise SegpressError(f"{path}: is there already; give another --out, or --force to write over it")
    if answers.force:
        return
    folder = out.parent.resolve()
    inside = folder.is_relative_to(data.resolve())
    beside = folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
    if inside or beside:
        question = f"{folder} holds data; write the recipe there all the same? (yes, no)"
        if not ask(question, "no", "--out elsewhere, or --force").lower().startswith("y"):
            raise SegpressError(f"{out}: nothing was written; give a place with --out")


def _network(weights: Path, answers: Answers) -> Recognized:
    if answers.network is None:
        return recognized(weights)
    entries = Entries(Path("--network"))
    chosen = entries.word(_mapping("--network", answers.network), words(NETWORKS), "--network", "network")
    if chosen is None or entries.options(named(NETWORKS, chosen[0]), chosen[1], f"--network ({chosen[0]})") is None:
        raise SegpressError("; ".join(entries.mistakes))
    return given(dict([chosen]), weights)


def _mapping(flag: str, text: str) -> dict[Any, Any]:
    try:
        read = yaml.safe_load(text if text.lstrip().startswith("{") or "{" in text else f"{{{text}}}")
    except yaml.YAMLError:
        read = None
    if not isinstance(read, dict):
        raise SegpressError(f"{flag}: '{text}' is not a mapping, such as '0: background, 255: polyp'")
    return read


def _window(text: str | None) -> Window | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.strip("[] ").split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise SegpressError(f"--window: '{text}' is not a smaller and a larger value, such as -160,240")
    return low, high


def _named(meaning: Meaning, ask: Ask) -> Meaning:
    """The names of the classes, which no file tells: asked where somebody can answer, else plain ones."""
    proposed = ", ".join(meaning.names)
    try:
        answer = ask("names of the classes, background first", proposed, "--classes")
    except SegpressError:
        return meaning
    return meaning.named(tuple(name.strip() for name in answer.split(",")))


def _draft(
    weights: Path,
    data: Path,
    out: Path,
    answers: Answers,
    known: Recognized,
    cases: Cases,
    meaning: Meaning,
    found: Input,
) -> Draft:
    ((word, options),) = known.network.items()
    name = re.sub(r"[^\w.]+", "-", f"{data.resolve().name}-{options.get('arch', word)}-int8".lower()).strip("-.")
    files = {"path": _place(weights, out)} if word == "onnx" else {**options, "weights": _place(weights, out)}
    if word == "python":
        files = {**files, "path": _place(Path(options["path"]), out)}
    return Draft(
        name=name,
        seed=answers.seed,
        network={word: files},
        root=_place(data, out),
        table=None if cases.table is None else SPLIT,
        classes=found.classes or meaning.names,
        size=found.size,
        masks=meaning.written(),
        ignore=meaning.ignore,
        normalization=found.normalization.told,
        window=_window(answers.window),
        calibration=cases.calibration(data),
        comments={
            "network": [f"{told(known.network)}: {known.how}."],
            "data": [f"Roles: {cases.how}.", *_trained_on(cases)],
            "size": [found.of_size],
            "masks": [f"Stored values found in {meaning.stored.looked_at} masks: {meaning.stored}."],
            "normalization": [found.of_normalization],
        },
    )


def _trained_on(cases: Cases) -> list[str]:
    if cases.table is None:
        return []
    return [
        "A network that was trained on some of the test cases looks better than it is: in split.csv beside this file,",
        "put those that it has seen under train, and those that were held out under test.",
    ]


def _place(path: Path, out: Path) -> str:
    """A path as the recipe finds it: relative where both lie near each other."""
    there, here = path.resolve(), out.parent.resolve()
    relative = os.path.relpath(there, here)
    return relative if relative.count("..") <= 1 else str(there)


def _written(draft: Draft, cases: Cases, out: Path) -> list[Path]:
    text = draft.as_yaml().replace("THIS FILE", shlex.quote(str(out)))
    make_folder(out.parent)
    # The split first: a recipe is there only if what it names is.
    files = {**({} if cases.table is None else {out.parent / SPLIT: cases.table}), out: text}
    write_together({path: content.encode() for path, content in files.items()})
    return [out, *(path for path in files if path != out)]
