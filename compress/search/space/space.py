"""The space of a search: a recipe's text with choices in it, and the texts without that it stands for.

A decision is asked for only where it stands in what was chosen so far, so that the options of a pass are not decided
where the pass is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from compress.recipe.choices import NAMED, ONE_OF, is_choice, misspelt, without_search
from compress.search.space.domain import Domain, OneOf, domain_of

NONE = "none"
"""In a list, no entry."""
Chosen = Mapping[str, int | float]
"""Of each decision that was asked for, by its name: the place of the value chosen, or the number."""
Choose = Callable[["Decision"], int | float]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One value that is left open."""

    name: str
    """Where it stands, such as `passes[0].prune.ratio`; or the name that the recipe gives it."""
    domain: Domain


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A recipe's text in which every value stands, and how it came about."""

    text: Mapping[str, Any]
    chosen: Chosen
    values: Mapping[str, Any]
    """What was chosen, by the name of the decision."""

    @property
    def key(self) -> str:
        """The same for the same recipe, whatever was decided that has no effect."""
        return repr(self.text)


@dataclass(frozen=True, kw_only=True)
class Space:
    """All recipes that a text with choices stands for."""

    text: Mapping[str, Any]
    decisions: Mapping[str, Decision]
    """By where they stand, `|1` behind the second of several choices: two passes may have an option of one name."""

    def choice(self, choose: Choose) -> Choice:
        """The recipe that comes of asking for each decision once, where it stands."""
        walk = _Walk(decisions=self.decisions, choose=choose)
        return Choice(text=walk.plain(self.text, ""), chosen=walk.chosen, values=walk.values)

    def of(self, chosen: Chosen) -> Choice:
        """The recipe of these choices; what is not among them is the first, or least, that there is."""
        return self.choice(lambda decision: chosen.get(decision.name, decision.domain.first))

    def every(self) -> Iterator[Choice]:
        """Every recipe, in the order in which they are written down; without end where a number is not in steps."""
        script: list[int] = []
        while True:
            asked = _Asked(script=script)
            yield self.choice(asked)
            script = asked.next()
            if not script:
                return

    @property
    def endless(self) -> list[str]:
        """The decisions that are numbers without steps."""
        return [each.name for each in self.decisions.values() if each.domain.size is None]

    def count(self, most: int = 10_000) -> int | None:
        """How many recipes there are; None where they are more than `most`, or numbers are not in steps."""
        if self.endless:
            return None
        seen = sum(1 for _ in islice(self.every(), most + 1))
        return None if seen > most else seen


@dataclass(kw_only=True)
class _Asked:
    """Decides by a script of places, and beyond its end for the first; knows which script comes next."""

    script: Sequence[int]
    sizes: list[int] = field(default_factory=list)

    def __call__(self, decision: Decision) -> int | float:
        place = self.script[len(self.sizes)] if len(self.sizes) < len(self.script) else 0
        listed = decision.domain.listed()
        self.sizes.append(len(listed))
        return listed[place]

    def next(self) -> list[int]:
        """The last decision that has another value takes it; empty where none has."""
        places = [*self.script, *[0] * (len(self.sizes) - len(self.script))]
        while places and places[-1] + 1 >= self.sizes[len(places) - 1]:
            places.pop()
        return [*places[:-1], places[-1] + 1] if places else []


def space_of(text: Mapping[str, Any]) -> tuple[Space, list[str]]:
    """The space of a recipe's text, and what is wrong with its choices, each mistake with its place."""
    found = _Found(named=text.get(ONE_OF))
    if ONE_OF in text and not isinstance(text[ONE_OF], Mapping):
        found.mistakes.append(f"{ONE_OF}: names, each with what it may be, such as 'width: [8, 16]'")
    found.mistakes += misspelt(without_search(text))
    found.look(without_search(text), "")
    unused = [name for name in found.names if f"{ONE_OF}.{name}" not in found.decisions]
    found.mistakes += [f"{ONE_OF}.{name}: stands nowhere: write {{choice: {name}}} where it counts" for name in unused]
    plain = without_search(text)
    space = Space(text=plain, decisions=found.decisions)
    if not found.mistakes and not found.decisions:
        found.mistakes.append(
            "has no choices: `compress run` runs it; for a search write {choices: [a, b]} or {between: [0.2, 0.8]} "
            "where a value stands"
        )
    return space, found.mistakes


@dataclass(kw_only=True)
class _Found:
    """Every decision of a text, those inside of choices included."""

    named: Any
    decisions: dict[str, Decision] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(self.named) if isinstance(self.named, Mapping) else []

    def look(self, node: Any, where: str) -> None:
        if is_choice(node) and where:
            self._decision(node, where)
            return
        for key, value in _parts(node):
            self.look(value, f"{where}{key}" if isinstance(node, list) or not where else f"{where}.{key}")

    def _decision(self, node: Mapping[str, Any], where: str) -> None:
        if NAMED in node:
            # A recipe's keys are read as text, also those that are numbers.
            self._named(str(node[NAMED]), where)
            return
        if where in self.decisions:
            return
        domain = domain_of(node, where, self.mistakes)
        if domain is None:
            return
        self.decisions[where] = Decision(name=self._name(where), domain=domain)
        if isinstance(domain, OneOf):
            for index, value in enumerate(domain.values):
                self.look(value, _inside(where, index))

    def _name(self, where: str) -> str:
        """Where it stands without which of several choices it is inside of, unless that is another decision's name."""
        given = next((name for name in self.names if where == f"{ONE_OF}.{name}"), None)
        plain = "".join(part.lstrip("0123456789") if index else part for index, part in enumerate(where.split("|")))
        plain = given or plain.removeprefix(f"{ONE_OF}.")
        taken = {each.name for each in self.decisions.values()}
        return next(name for name in (plain, where, *(f"{where}#{n}" for n in range(99))) if name not in taken)

    def _named(self, name: str, where: str) -> None:
        if name not in self.names:
            there = ", ".join(self.names) or "none: give a mapping 'choices:' of names and choices in the recipe"
            self.mistakes.append(f"{where}: no choice is named {name!r}; there are {there}")
        elif f"{ONE_OF}." in where:
            self.mistakes.append(f"{where}: a choice with a name refers to no other")
        else:
            self._decision(as_choice(self.named[name]), f"{ONE_OF}.{name}")


def as_choice(given: Any) -> Any:
    """A named choice as it stands in `choices`: a list alone is one of its entries."""
    return {ONE_OF: given} if isinstance(given, list) else given if is_choice(given) else {ONE_OF: None}


def _parts(node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return [(str(key), value) for key, value in node.items()]
    return [(f"[{index}]", value) for index, value in enumerate(node)] if isinstance(node, list) else []


def _inside(where: str, place: int | float) -> str:
    return f"{where}|{place}"


@dataclass(kw_only=True)
class _Walk:
    """One way through a text."""

    decisions: Mapping[str, Decision]
    choose: Choose
    chosen: dict[str, int | float] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def plain(self, node: Any, where: str) -> Any:
        """What stands there once all is chosen."""
        if is_choice(node) and where:
            return self._decided(f"{ONE_OF}.{node[NAMED]}" if NAMED in node else where)
        if isinstance(node, Mapping):
            return {key: self.plain(value, f"{where}.{key}" if where else str(key)) for key, value in node.items()}
        if not isinstance(node, list):
            return node
        found: list[Any] = []
        for index, value in enumerate(node):
            made = self.plain(value, f"{where}[{index}]")
            found += _entries(made) if is_choice(value) else [made]
        return found

    def _decided(self, where: str) -> Any:
        decision = self.decisions[where]
        if decision.name not in self.values:
            picked = self.choose(decision)
            self.chosen[decision.name] = picked
            if isinstance(decision.domain, OneOf):
                self.values[decision.name] = None
                picked = self.plain(decision.domain.values[int(picked)], _inside(where, picked))
            self.values[decision.name] = picked
        return self.values[decision.name]


def _entries(made: Any) -> Sequence[Any]:
    """What a choice puts into the list that it stands in."""
    return made if isinstance(made, list) else [] if made == NONE else [made]
