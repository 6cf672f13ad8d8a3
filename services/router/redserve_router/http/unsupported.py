"""Fields of OpenAI's API that are known here: harmless ones are dropped, others refused.

A field that would change the meaning of the answer must not be swallowed: a client that asks for
tools or JSON and gets prose is worse off than one that hears why.
"""

from __future__ import annotations

from typing import Any

from redserve.errors import InvalidArgument

HARMLESS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""They name, bill or file a request and do not change its answer."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
}
"""Values that ask for nothing special."""

_MENDS = {
    "n": "send the request n times",
    "best_of": "send the request several times",
    "response_format": 'only {"type": "text"} is served',
    "modalities": 'only ["text"] is served',
}

REFUSED = frozenset(
    {
        *_NEUTRAL,
        "audio",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "moderation",
        "prediction",
        "reasoning_effort",
        "structured_outputs",
        "verbosity",
        "web_search_options",
    }
)
"""They would change the answer, and are not served."""


def without_unsupported(body: dict[str, Any]) -> dict[str, Any]:
    """The body without fields that ask for nothing.

    Raises:
        InvalidArgument: A field asks for something that is not served; names it.
    """
    kept = {}
    for name, value in body.items():
        if name in HARMLESS:
            continue
        if name not in REFUSED:
            kept[name] = value
        elif value is not None and value not in _NEUTRAL.get(name, ()):
            mend = _MENDS.get(name, "leave it out")
            raise InvalidArgument(f"{name} is not supported here: {mend}", field=name)
    return kept
