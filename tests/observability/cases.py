"""A service that is well but for something, and what is told of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.observability.healthy import healthy, service
from tests.observability.promtool import Scenario, run_scenario

if TYPE_CHECKING:
    from pathlib import Path


class Case(NamedTuple):
    """What is different from a service that is well, and which alerts that gives."""

    changes: dict[str, str]
    firing: dict[str, set[str]]
    spec: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it

    def check(self, folder: Path) -> None:
        """Fail with promtool's words unless these alerts fire at these times, and no others."""
        scenario = Scenario({**healthy(), **self.changes}, self.firing)
        verdict = run_scenario(folder, service(**self.spec), scenario)
        assert verdict.ok, verdict.said
