"""A device over SSH, by itself: what it says of itself, and leaving nothing of ours on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from compress.errors import SegpressError
from export.reach import Reach
from export.remote import answers
from export.remote.conversation import Conversation, with_runner


def facts(host: str, python: str) -> dict[str, Any]:
    """Board, system, processor, memory, Python and runtimes.

    Raises:
        SurroundingsError: if the host is not reached.
    """
    conversation = _conversation(host, python)
    told = conversation.ask(answers.ToldFacts, {"do": "facts"})[0].facts
    now = conversation.ask(answers.Conditions, {"do": "conditions"})[0].conditions
    conversation.close()
    return {**told.model_dump(exclude={"flags", "process", "threads", "boot_id"}), "now": now}


def lacks(host: str, told: Mapping[str, Any]) -> str | None:
    """Why nothing can be measured by the Python that told these facts; None where it has a runtime."""
    if told["runtimes"]:
        return None
    return (
        f"{host}: {told['executable']} has no runtime, so that nothing is measured by it; name another: --python PATH"
    )


def clean(host: str, python: str) -> int:
    """Remove all that was sent to a host; returns the bytes that were freed.

    Raises:
        SurroundingsError: if the host is not reached, or another run measures there.
    """
    conversation = _conversation(host, python)
    freed = conversation.ask(answers.Cleaned, {"do": "clean"})[0].freed
    conversation.close()
    return freed


def _conversation(host: str, python: str) -> Conversation:
    try:
        Reach(at=host, python=python)
    except pydantic.ValidationError as error:
        raise SegpressError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    return with_runner(host, python)
