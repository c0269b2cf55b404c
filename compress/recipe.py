"""YAML -> Recipe, or a plain sentence for each mistake: where it is, what is wrong, what would be right."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from torch import nn

from compress.contracts import Pass
from compress.data.dataset.cases import Dataset, Normalization
from compress.data.dataset.tiles import by
from compress.errors import RecipeError, SegpressError, WeightsError
from compress.gates.judging.judge import TAKES, Gate, Name
from compress.measure.latency import Timing
from compress.measure.segmentation import Scoring
from compress.networks.foreign.head import SeveralOutputs, check_logits, note_on
from compress.networks.foreign.outputs import which_fits
from compress.postprocess.applying.chain import Postprocess, faults, out_of_order
from compress.postprocess.applying.step import Setting, Step
from compress.storage.description import build_net, read_description, shape_of
from compress.storage.weights import load_weights
from compress.task import Task
from compress.train.training import Training
from export.graph import Dynamic
from export.registry import named, words

Value = TypeVar("Value")

KEYS = (
    "name",
    "seed",
    "network",
    "data",
    "passes",
    "compare",
    "postprocess",
    "opset",
    "dynamic",
    "devices",
    "gates",
    "scoring",
    "latency",
    "train",
)
OPSETS = range(18, 24)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to do with one network; nothing in it has been done yet."""

    name: str
    seed: int = 7
    network: Mapping[str, Mapping[str, Any]]
    """One word and its options, without `weights`."""
    weights: Path | None = None
    data: Any
    """A configured file of compress/data/, called to give the `Dataset`."""
    postprocess: Sequence[tuple[str, Step]] = ()
    """What is done to the answers of the baseline and of every artifact alike, before they are scored."""
    passes: Sequence[tuple[str, Pass]] = ()
    compare: Mapping[str, Sequence[tuple[str, Pass]]] = field(default_factory=dict)
    """Other chains of passes from the same baseline, each with a title: built, scored and timed in the same
    run, judged by no gate, there for gates to say `over: int8_alone`."""
    opset: int = 20
    dynamic: tuple[Dynamic, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    gates: Sequence[tuple[Name, Gate]] = ()
    scoring: Scoring = field(default_factory=Scoring)
    latency: Timing = field(default_factory=Timing)
    train: Training | None = None
    text: Mapping[str, Any] = field(default_factory=dict)
    """The recipe as run, overrides included, for the report."""
    source: Path | None = None
    """The file it was read from."""

    def task(self) -> Task:
        """The data and the trained network, checked against each other.

        Raises:
            WeightsError: if the weights are missing, damaged, or of another network.
            DataError: if the data is not what the network needs.
            RecipeError: if the post-processing is for other data or another network.
        """
        net, data = self.trained(), self.named().dataset(stored=self.stored_normalization())
        wrong = self.postprocess_faults(data)
        if wrong:
            raise RecipeError(self.name, wrong)
        return self.task_of(net, data)

    def postprocess_faults(self, data: Dataset) -> list[str]:
        """What keeps the post-processing from being applied to the network's answers on this data."""
        setting = Setting(
            class_names=data.class_names,
            logits=shape_of(self.network).classes,
            dims=self.data.dims,
            spacing_known=data.reader.unit == "mm",
        )
        return faults(self.postprocess, setting)

    def trained(self) -> nn.Module:
        """The network with its weights, in evaluation mode.

        Raises:
            WeightsError: if the weights are missing, damaged, or of another network.
        """
        if self.weights is None:
            raise WeightsError(f"{self.name}: the network has no weights; train it (compress train), then give weights")
        described = read_description(self.weights)
        if described is not None:
            _check_described(self.network, described.network, self.weights)
        net = build_net(self.network)
        load_weights(net, self.weights)
        return net.eval()

    def stored_normalization(self) -> Normalization | None:
        """The one stored with the weights, if any."""
        described = None if self.weights is None else read_description(self.weights)
        return described.normalization if described else None

    def task_of(self, net: nn.Module, data: Dataset) -> Task:
        """The task of this trained network on this data.

        Raises:
            WeightsError: if what the network answers cannot be logits.
        """
        postprocess = Postprocess(steps=tuple(self.postprocess), class_names=data.class_names)
        task = Task(data=data, net=net, seed=self.seed, dynamic=self.dynamic, postprocess=postprocess)
        if self.weights is None or read_description(self.weights) is None:
            note_on(
                net, f"the weights tell no classes and no normalization: that of {self.normalization_from()} is used"
            )
            head = getattr(shape_of(self.network), "head", None)
            if head is not None:
                check_logits(net, task.probes(most=2), head)
        return task

    def named(self) -> Recipe:
        """The recipe with the class names stored with the weights, where its data gives none."""
        described = None if self.weights is None else read_description(self.weights)
        if described is None or not described.classes or getattr(self.data, "classes", ()) is not None:
            return self
        return dataclasses.replace(self, data=dataclasses.replace(self.data, classes=tuple(described.classes)))

    def normalization_from(self) -> str:
        """Whose normalization the network gets: a wrong one costs more than any compression."""
        if self.data.normalization is not None:
            return "the recipe"
        described = None if self.weights is None else read_description(self.weights)
        return "the weights" if described is not None and described.normalization else "the train cases, measured"

    def dataset(self, stored: Normalization | None = None) -> Dataset:
        """The data as this network needs it; its normalization is the recipe's, else the weights', else measured."""
        shape = shape_of(self.network)
        if shape.dims != self.data.dims:
            raise RecipeError(self.name, [_other_dims(self.network, shape.dims)])
        data: Dataset = self.data(channels=shape.in_channels, classes=shape.classes)
        fault = shape.check_size(data.fit.size)
        if fault:
            raise RecipeError(self.name, [f"data: input is {by(data.fit.size)}; {fault}"])
        return self.normalized(data, stored)

    def normalized(self, data: Dataset, stored: Normalization | None) -> Dataset:
        """The data under the recipe's normalization, else the one stored with the weights, else the one measured."""
        if self.data.normalization is not None:
            return data
        if stored is None and not data.cases["train"]:
            raise RecipeError(
                self.name,
                ["data: no normalization: the weights store none and there are no train cases to measure; set it"],
            )
        return data.normalized_by(stored or data.measured_normalization())


def _which_fits(
    places: Sequence[str], network: Mapping[str, Mapping[str, Any]], weights: Path | None, data: Any
) -> str:
    """Which of several outputs is the final one, by its Dice, where weights and data are given."""
    if weights is None or data is None:
        return "with the weights and the data given too, each would be scored"
    ((word, options),) = network.items()

    def task_of(place: str) -> Task:
        head = {**options["head"], "output": place}
        return Recipe(name=word, network={word: {**options, "head": head}}, weights=weights, data=data).task()

    return which_fits(places, task_of)


def _other_dims(network: Mapping[str, Any], dims: int) -> str:
    takes, gives = ("volumes", "images") if dims == 3 else ("images", "volumes")
    return f"data: gives {gives}, but the network ({next(iter(network))}) takes {takes}; set other data or network"


def load(path: Path, data_root: Path | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        data_root: replaces the root of the recipe's data folder (`--data`).

    Raises:
        RecipeError: with every mistake found, each with its place.
    """
    recipe, mistakes = read(path, data_root)
    if mistakes or recipe is None:
        raise RecipeError(str(path), mistakes)
    return recipe


def read(path: Path, data_root: Path | None = None) -> tuple[Recipe | None, list[str]]:
    """A recipe without what is wrong in it, and its mistakes; None where its network or its data is wrong.

    Raises:
        RecipeError: if it cannot be read at all.
    """
    given = _read_yaml(path)
    text = {key: value for key, value in given.items() if value is not None}
    if data_root is not None:
        text = _with_root(path, text, data_root)
    form = _Form(path)
    recipe = form.recipe(text)
    return recipe, form.mistakes


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        read = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise RecipeError(str(path), ["no such recipe"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [f"cannot be read ({error})"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A date such as 2024-13-01 is a ValueError.
        raise RecipeError(str(path), [f"not YAML: {_yaml_fault(error)}"]) from None
    if not isinstance(read, dict):
        raise RecipeError(str(path), [f"a recipe is a list of keys ({', '.join(KEYS[:5])}, ...), each with its value"])
    return read


def _yaml_fault(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}: {', '.join(part for part in (error.context, error.problem) if part)}"


class _Loader(yaml.SafeLoader):
    """Safe YAML whose keys are words, none given twice, and that reads 3e-4 as the number it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: list[Any] = []
        node.value = [(self._as_text(place), value) for place, value in node.value]
        for place, _ in node.value:
            if place.tag == "tag:yaml.org,2002:merge":
                fault = "a recipe repeats what it needs: '<<' is not taken"
                raise yaml.constructor.ConstructorError(None, None, fault, place.start_mark)
            key = self.construct_object(place, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", place.start_mark)
            keys.append(key)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}

    def _as_text(self, key: yaml.Node) -> yaml.Node:
        """A key that is a list, such as the colour [255, 0, 0], as its text; Python's keys cannot be lists."""
        if not isinstance(key, yaml.SequenceNode):
            return key
        text = str(self.construct_object(key, deep=True))
        return yaml.ScalarNode("tag:yaml.org,2002:str", text, key.start_mark, key.end_mark)


# YAML 1.1 wants a dot in a float's mantissa and a sign in its exponent; people write 3e-4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _with_root(path: Path, text: dict[str, Any], root: Path) -> dict[str, Any]:
    data = text.get("data")
    data = {data: None} if isinstance(data, str) else data
    known = [word for word in ("folder", "nifti") if isinstance(data, dict) and word in data]
    if not isinstance(data, dict) or not known:
        raise RecipeError(str(path), ["--data gives a folder, but the recipe's data is not a folder"])
    options = data[known[0]] or {}
    if not isinstance(options, dict):
        return text
    return {**text, "data": {**data, known[0]: {**options, "root": str(root.absolute())}}}


class _Form:
    """A recipe being filled in; mistakes are collected, not raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mistakes: list[str] = []

    def recipe(self, text: dict[str, Any]) -> Recipe | None:
        for key in text:
            if key not in KEYS:
                self.mistakes.append(f"no key '{key}'{_nearest(key, KEYS)}")
        for key in ("network", "data"):
            if key not in text:
                self.mistakes.append(f"lacks the key '{key}'")
        given: dict[str, Any] = {
            "name": self._name(text),
            "seed": self._seed(text),
            "opset": self._opset(text),
            "dynamic": self._dynamic(text),
            "devices": self._devices(text),
            "scoring": self._options(Scoring, text.get("scoring", {}), "scoring") or Scoring(),
            "latency": self._options(Timing, text.get("latency", {}), "latency") or Timing(),
            "postprocess": self._postprocess(self._list("postprocess", text)),
            "passes": self._passes(self._list("passes", text), "passes"),
            "compare": self._compare(text),
            "gates": self._gates(text),
            "data": self._data(text),
            "train": self._options(Training, text["train"], "train") if "train" in text else None,
        }
        network = self._network(text, given["data"])
        if network is None or given["data"] is None:
            return None
        dims = shape_of(network[0]).dims
        if dims != given["data"].dims:
            self.mistakes.append(_other_dims(network[0], dims))
            return None
        return Recipe(**given, network=network[0], weights=network[1], text=text, source=self.path)

    def _name(self, text: dict[str, Any]) -> str:
        name = text.get("name", self.path.stem)
        if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.\- ]*", name):
            self.mistakes.append(f"name: {name!r} cannot name a folder; use letters, digits, '-', '_' and '.'")
        return str(name)

    def _seed(self, text: dict[str, Any]) -> int:
        seed = text.get("seed", 7)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            self.mistakes.append(f"seed: {seed!r} is not a whole number from 0 to 2^63 - 1")
            return 7
        return seed

    def _opset(self, text: dict[str, Any]) -> int:
        opset = text.get("opset", 20)
        if not isinstance(opset, int) or opset not in OPSETS:
            self.mistakes.append(f"opset: {opset!r} is not one of {OPSETS[0]} to {OPSETS[-1]}")
            return 20
        return opset

    def _dynamic(self, text: dict[str, Any]) -> tuple[Any, ...]:
        axes = text.get("dynamic", [])
        if not isinstance(axes, list):
            self.mistakes.append("dynamic: a list of the axes left open: [batch], [size] or [batch, size]")
            return ()
        for axis in axes:
            if axis not in ("batch", "size"):
                self.mistakes.append(f"dynamic: no axis '{axis}'{_nearest(str(axis), ('batch', 'size'))}")
        return tuple(axes)

    def _devices(self, text: dict[str, Any]) -> tuple[str, ...]:
        devices = text.get("devices", ["cpu"])
        if not isinstance(devices, list) or not devices:
            self.mistakes.append("devices: a list of words, such as [cpu]")
            return ()
        known = words("export.devices")
        for place, device in enumerate(devices):
            if device not in known:
                self.mistakes.append(f"devices[{place}]: no device '{device}'{_nearest(str(device), known)}")
            elif device in devices[:place]:
                self.mistakes.append(f"devices[{place}]: '{device}' is given twice")
        return tuple(str(device) for device in devices)

    def _passes(self, steps: Sequence[Any], where: str) -> list[tuple[str, Any]]:
        return list(self._made(steps, where, "compress.passes", "pass").values())

    def _postprocess(self, steps: Sequence[Any]) -> list[tuple[str, Any]]:
        made = self._made(steps, "postprocess", "compress.postprocess", "step")
        self.mistakes += out_of_order(made)
        return list(made.values())

    def _made(self, steps: Sequence[Any], where: str, package: str, what: str) -> dict[int, tuple[str, Any]]:
        """Each word with its configured step, by its place in the list; without those that are wrong."""
        found = {}
        for place, step in enumerate(steps):
            chosen = self._word(step, words(package), f"{where}[{place}]", what)
            if chosen is not None:
                word, options = chosen
                made = self._options(named(package, word), options, f"{where}[{place}] ({word})")
                if made is not None:
                    found[place] = (word, made)
        return found

    def _compare(self, text: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
        chains = text.get("compare", {})
        if not isinstance(chains, dict):
            self.mistakes.append("compare: titles, each with its passes, such as 'int8_alone: [int8]'")
            return {}
        if chains and not text.get("passes"):
            self.mistakes.append("compare: the recipe has no passes of its own to compare; give passes")
        found = {}
        for title, steps in chains.items():
            where = f"compare.{title}"
            if not re.fullmatch(r"[a-z][a-z0-9_]*", title) or title in (*words("export.backends"), "baseline"):
                self.mistakes.append(f"{where}: cannot be a title; use small letters, digits and '_', and no backend")
            if not isinstance(steps, list) or not steps:
                self.mistakes.append(f"{where}: a list of passes, each one word and its options")
                continue
            found[title] = self._passes(steps, where)
        return found

    def _gates(self, text: dict[str, Any]) -> list[tuple[Any, Gate]]:
        gates = []
        for place, limit in enumerate(self._list("gates", text)):
            chosen = self._word(limit, list(TAKES), f"gates[{place}]", "gate")
            if chosen is None:
                continue
            name, options = chosen
            where = f"gates[{place}] ({name})"
            wrong = [key for key in options if key not in TAKES[name]]
            for key in wrong:
                self.mistakes.append(f"{where}: no option '{key}'{_nearest(key, TAKES[name])}")
            bound = next(key for key in ("at_least", "at_most", "dice") if key in TAKES[name])
            if bound not in options and not wrong:
                self.mistakes.append(f"{where}: lacks the option '{bound}'")
            # The limit that is missing or misspelt has been told of; the other options are still checked.
            taken = {
                bound: {"at_least": 0} if bound == "dice" else 0,
                **{key: value for key, value in options.items() if key not in wrong},
            }
            gate = self._options(Gate, taken, where)
            if gate is not None:
                self._known(gate.device, words("export.devices"), f"{where}: no device")
                self._known(gate.backend, words("export.backends"), f"{where}: no backend")
                self._known(gate.over, [*words("export.backends"), *_steps(text)], f"{where}: no backend or step")
                gates.append((name, gate))
        return gates

    def _known(self, word: str | None, known: Sequence[str], what: str) -> None:
        if word is not None and word not in known:
            self.mistakes.append(f"{what} '{word}'{_nearest(word, known)}")

    def _data(self, text: dict[str, Any]) -> Any:
        if "data" not in text:
            return None
        chosen = self._word(text["data"], words("compress.data"), "data", "data")
        if chosen is None:
            return None
        word, options = chosen
        if isinstance(options.get("root"), str):
            options = {**options, "root": str(self._found(options["root"]))}
        return self._options(named("compress.data", word), options, f"data ({word})")

    def _network(self, text: dict[str, Any], data: Any) -> tuple[dict[str, dict[str, Any]], Path | None] | None:
        if "network" not in text:
            return None
        chosen = self._word(text["network"], words("compress.networks"), "network", "network")
        if chosen is None:
            return None
        word, options = chosen
        weights = options.pop("weights", None)
        if weights is not None and not isinstance(weights, str):
            self.mistakes.append(f"network ({word}): weights: {weights!r} is not a path")
            weights = None
        if word in ("python", "onnx") and isinstance(options.get("path"), str):
            options = {**options, "path": str(self._found(options["path"]).absolute())}
            # An ONNX file brings its weights.
            weights = options["path"] if word == "onnx" and weights is None else weights
        made = self._options(named("compress.networks", word), options, f"network ({word})")
        place = None if weights is None else self._found(weights)
        if made is None or not self._knows(made, word, place, data):
            return None
        return {word: dataclasses.asdict(made)}, place

    def _knows(self, network: Any, word: str, weights: Path | None, data: Any) -> bool:
        """Whether another library, or a user's file, has the network that is asked of it."""
        check, where = getattr(network, "check", None), f"network ({word})"
        try:
            if check is not None:
                check()
        except SeveralOutputs as error:
            best = _which_fits(error.places, {word: dataclasses.asdict(network)}, weights, data)
            self.mistakes.append(f"{where}: {error}; {best}")
            return False
        except SegpressError as error:
            self.mistakes.append(f"{where}: {error}")
            return False
        return True

    def _found(self, path: str) -> Path:
        """A path in a recipe is relative to the recipe's folder, or, if nothing is there, to where we are."""
        beside = self.path.parent / path
        return beside if beside.exists() or not Path(path).exists() else Path(path)

    def _list(self, key: str, text: dict[str, Any]) -> list[Any]:
        steps = text.get(key, [])
        if not isinstance(steps, list):
            self.mistakes.append(f"{key}: a list, each entry one word and its options")
            return []
        return steps

    def _word(self, entry: Any, known: Sequence[str], where: str, what: str) -> tuple[str, dict[str, Any]] | None:
        """One word and its options, or a mistake."""
        if isinstance(entry, str):
            entry = {entry: {}}
        if not isinstance(entry, dict) or len(entry) != 1:
            self.mistakes.append(f"{where}: one word and its options, such as '{known[0]}: {{...}}', not {entry!r}")
            return None
        ((word, options),) = entry.items()
        if word not in known:
            self.mistakes.append(f"{where} ({word}): no such {what}{_nearest(str(word), known)}")
            return None
        options = {} if options is None else options
        if not isinstance(options, dict):
            self.mistakes.append(f"{where} ({word}): its options are names with values, not {options!r}")
            return None
        return word, dict(options)

    def _options(self, kind: type[Value], options: Any, where: str) -> Value | None:
        if not isinstance(options, dict):
            self.mistakes.append(f"{where}: its options are names with values, not {options!r}")
            return None
        names = [option.name for option in dataclasses.fields(kind)]  # type: ignore[arg-type]
        flags = [key for key in names if _holds_bool(options.get(key)) and not _takes_bool(kind, key)]
        self.mistakes += [f"{where}: {key}: {options[key]} is not a number or a word" for key in flags]
        try:
            return TypeAdapter(kind).validate_python(options)
        except ValidationError as error:
            faults = [fault for fault in error.errors() if not set(fault["loc"][:1]) & set(flags)]
            self.mistakes += [_sentence(dict(fault), where, _names_at(kind, fault["loc"][:-1])) for fault in faults]
            return None


def _steps(text: Mapping[str, Any]) -> list[str]:
    """The names of the steps that a recipe's text will make, those it compares with included."""
    passes, chains = text.get("passes"), text.get("compare")
    given = passes if isinstance(passes, list) else []
    steps = [next(iter(step), "") if isinstance(step, dict) else step for step in given]
    numbered = [f"{number:02d}-{word}" for number, word in enumerate(steps, start=1)]
    return ["baseline", *numbered, *(chains if isinstance(chains, dict) else ())]


def _takes_bool(kind: type, key: str) -> bool:
    # Options that are passed on to another library's network may be of any kind.
    return any(
        option.name == key and re.search(r"bool|dict\[str, typing.Any\]", str(option.type))
        for option in dataclasses.fields(kind)
    )


def _holds_bool(value: Any) -> bool:
    """Whether yes or no is in a value: pydantic would take it for 1 or 0."""
    if isinstance(value, list | dict):
        return any(map(_holds_bool, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool)


def _names_at(kind: Any, path: Sequence[Any]) -> list[str]:
    """The options of a dataclass, or of one that a `path` of options leads to inside it."""
    for part in path:
        option = get_type_hints(kind).get(part) if kind is not None else None
        kind = next((each for each in (option, *get_args(option)) if dataclasses.is_dataclass(each)), None)
    return [option.name for option in dataclasses.fields(kind)] if kind is not None else []


def _sentence(fault: dict[str, Any], where: str, names: Sequence[str]) -> str:
    """A pydantic error in our own words."""
    path = ".".join(str(part) for part in fault["loc"])
    kind, value = fault["type"], fault.get("input")
    if kind == "unexpected_keyword_argument":
        return f"{where}: no option '{path}'{_nearest(str(fault['loc'][-1]), names)}"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{where}: lacks the option '{path}'"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'|(\d+)", fault["ctx"]["expected"])
        allowed = [word or number for word, number in choices]
        near = "" if str(value) in allowed else _nearest(str(value), allowed, listed=True)
        return f"{where}: {path}: {value!r} is not one of {', '.join(allowed)}{near}"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{where}: {path}: {value!r}: {message}" if path else f"{where}: {message}"


def _nearest(word: str, known: Sequence[str] | frozenset[str], *, listed: bool = False) -> str:
    """What was probably meant, or what there is to choose from."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return "" if listed else f"; there are {', '.join(sorted(known))}"


def _check_described(
    ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    """Whether a weights file's own description is the recipe's network."""
    ((word, options),), (their_word,) = ours.items(), theirs
    if word != their_word:
        raise WeightsError(f"{path}: the weights are of a {their_word}, but the recipe's network is a {word}")
    defaults = dataclasses.asdict(shape_of(theirs))
    # How an answer is read is no part of the weights.
    wrong = [key for key in options if key not in ("head", "input") and options[key] != defaults[key]]
    if wrong:
        key = wrong[0]
        raise WeightsError(
            f"{path}: weights of another {key}: they have {key} {defaults[key]}, the recipe's network has "
            f"{options[key]}; set {key}: {defaults[key]} or give other weights"
        )


def schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors that complete and check YAML."""
    shared: dict[str, Any] = {}

    def options(kind: type, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        made = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
        shared.update(made.pop("$defs", {}))
        made["properties"] = {**made.get("properties", {}), **(extra or {})}
        return made

    def one_word(choices: Mapping[str, dict[str, Any]], bare: bool) -> dict[str, Any]:
        mappings = [
            {"type": "object", "properties": {word: made}, "required": [word], "additionalProperties": False}
            for word, made in choices.items()
        ]
        return {"anyOf": [*mappings, *([{"enum": list(choices)}] if bare else [])]}

    def gate(name: str) -> dict[str, Any]:
        made = options(Gate)
        return {**made, "properties": {key: made["properties"][key] for key in sorted(TAKES[name])}}

    weights = {"weights": {"type": "string", "description": "Trained weights: .safetensors, or a torch state dict."}}
    networks = {word: options(named("compress.networks", word), weights) for word in words("compress.networks")}
    kinds = {word: options(named("compress.data", word)) for word in words("compress.data")}
    steps = {word: options(named("compress.postprocess", word)) for word in words("compress.postprocess")}
    passes = {word: options(named("compress.passes", word)) for word in words("compress.passes")}
    properties = {
        "name": {"type": "string", "description": "Names the run's folder."},
        "seed": {"type": "integer", "minimum": 0},
        "network": one_word(networks, bare=False),
        "data": one_word(kinds, bare=True),
        "postprocess": {
            "type": "array",
            "items": one_word(steps, bare=True),
            "description": "What is done to the answers of the baseline and of every artifact alike.",
        },
        "passes": {"type": "array", "items": one_word(passes, bare=True)},
        "compare": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": one_word(passes, bare=True), "minItems": 1},
            "description": "Other chains of passes from the same baseline, each with a title, for gates to name.",
        },
        "opset": {"enum": list(OPSETS)},
        "dynamic": {"type": "array", "items": {"enum": ["batch", "size"]}},
        "devices": {"type": "array", "items": {"enum": words("export.devices")}, "minItems": 1},
        "gates": {"type": "array", "items": one_word({name: gate(name) for name in TAKES}, bare=False)},
        "scoring": options(Scoring),
        "latency": options(Timing),
        "train": options(Training),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "segpress recipe",
        "type": "object",
        "properties": properties,
        "required": ["network", "data"],
        "additionalProperties": False,
        "$defs": shared,
    }
