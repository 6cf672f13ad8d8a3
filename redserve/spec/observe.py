"""`spec.slos` and `spec.monitoring`: what is promised and how it is watched."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from redserve.spec.base import AutoSwitch, Rule, Spec
from redserve.spec.mapping import Keys
from redserve.spec.patterns import HTTP_ORIGIN, LABEL_NAME, LABEL_VALUE, QUALIFIED_NAME

_PERCENT = r"^([1-9][0-9]?(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9]))$"  # above 0


def _as_text(raw: object) -> object:
    if isinstance(raw, float):
        raise PydanticCustomError("percent", f'quote fractions: write "{raw}"')
    return str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else raw


def _percent(text: str) -> str:
    if re.fullmatch(_PERCENT, text) is None:
        raise PydanticCustomError("percent", 'must be above 0 and below 100, such as 99 or "99.9"')
    return text


Percent = Annotated[
    str,
    AfterValidator(_percent),
    BeforeValidator(_as_text),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 1,
            "maximum": 99,
            "maxLength": 6,
            "pattern": _PERCENT,
        }
    ),
]
"""A share below one hundred, kept as text so that 99.9 stays 99.9."""


class ServiceLevelObjective(Spec):
    """A promise: this share of events is good over the window."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "thresholdMilliseconds is required for latency indicators",
            lambda self: (
                self.indicator == "Availability" or self.threshold_milliseconds is not None
            ),
            cel="self.indicator == 'Availability' || has(self.thresholdMilliseconds)",
            field="thresholdMilliseconds",
        ),
        Rule(
            "thresholdMilliseconds must not be given for Availability, which knows no late "
            "answers; RequestLatency does",
            lambda self: self.indicator != "Availability" or self.threshold_milliseconds is None,
            cel="self.indicator != 'Availability' || !has(self.thresholdMilliseconds)",
            field="thresholdMilliseconds",
        ),
    )

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=LABEL_NAME,
        description="Name in metrics and alerts.",
    )
    indicator: Literal[
        "TimeToFirstToken",
        "TimePerOutputToken",
        "EncodeLatency",
        "RequestLatency",
        "Availability",
    ] = Field(description="What is measured.")
    threshold_milliseconds: int | None = Field(
        default=None,
        ge=1,
        le=86_400_000,
        description="An event at or below it is good, milliseconds; not for Availability.",
    )
    objective_percent: Percent = Field(
        default="99", description='Share of good events, percent; quote fractions ("99.9").'
    )
    window_days: int = Field(default=28, ge=1, le=90, description="Length of the window, days.")
    window_minutes: int | None = Field(
        default=None,
        ge=5,
        le=1440,
        description="The same in minutes, in place of windowDays: for trying a service.",
    )


class Tracing(Spec):
    """Where spans go, and of how many requests."""

    otlp_endpoint: str = Field(
        min_length=1,
        max_length=512,
        pattern=HTTP_ORIGIN,
        description="OTLP receiver that speaks gRPC, http(s)://host:port; port 4317 by default.",
    )
    sampling_percent: int = Field(
        default=1,
        ge=0,
        le=100,
        description="Share of requests that are traced, percent, of those whose client does not "
        "trace; else the client's own choice counts.",
    )


class Monitoring(Spec):
    """What the operator sets up for Prometheus, and how processes trace and log."""

    pod_monitor: AutoSwitch = Field(
        default="Auto", description="PodMonitor; Auto makes one where the kind is served."
    )
    rules: AutoSwitch = Field(
        default="Auto",
        description="Recording rules and alerts made from the SLOs, as a PrometheusRule; Auto "
        "makes a ConfigMap with a rule file where that kind is not served.",
    )
    labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]],
        Field(max_length=16),
        Keys(QUALIFIED_NAME),
    ] = Field(
        default_factory=dict,
        description="Labels of the PodMonitor and of the rules, for a Prometheus that chooses by "
        "them, such as release: NAME.",
    )
    tracing: Tracing | None = Field(
        default=None, description="Where spans go; no tracing without it."
    )
    log_level: Literal["Debug", "Info", "Warning", "Error"] = Field(
        default="Info", description="Least important log lines that are written."
    )
    log_format: Literal["Auto", "Text", "JSON"] = Field(
        default="Auto", description="Auto is Text under `redserve up` and JSON in a cluster."
    )
