"""A real Prometheus that watches a service of this machine, in quick motion."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import yaml

from redserve.local.ports import free_ports
from tools.kubernetes.processes import BackgroundProcess
from tools.kubernetes.programs import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

QUICKER: Final = 30
"""An hour of the rules is two minutes."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_START_S: Final = 60.0
_POLL_S: Final = 0.5


def in_quick_motion(text: str) -> str:
    """A rule file whose windows and patience are `QUICKER` times as short; names stay."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[2]) * _SECONDS[found[3]] / QUICKER
        return f"{found[1]}{max(2, round(seconds))}s"

    return re.sub(r"(\[|for: |offset )(\d+)([smhd])\b", shorter, text)


class Prometheus:
    """Runs until `close`.

    Args:
        folder: For its files.
        config: A configuration, as `redserve rules --scrape-config` prints it.
        rules: A rule file, as `redserve rules` prints it.
        more: Scrape configurations of what else there is.
    """

    def __init__(
        self, folder: Path, config: str, rules: str, more: Sequence[dict[str, Any]] = ()
    ) -> None:
        (folder / "demo.rules.yaml").write_text(in_quick_motion(rules))
        made = yaml.safe_load(config)
        made["scrape_configs"] += more
        made["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), "1s")
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(made))
        address = f"127.0.0.1:{next(free_ports())}"
        self._url = f"http://{address}"
        command: list[str | Path] = [
            locate("prometheus"),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--enable-feature=exemplar-storage",
        ]
        self._process = BackgroundProcess("prometheus", command, folder / "prometheus.log")
        try:
            self._process.wait_until(self._is_ready, _START_S, "ready")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it."""
        self._process.stop()

    def targets(self) -> dict[str, str]:
        """Pod of each target -> its health."""
        found = self._get("targets")["activeTargets"]
        return {one["labels"]["pod"]: one["health"] for one in found}

    def query(self, expr: str, at_s: float | None = None) -> list[dict[str, Any]]:
        """The samples of an expression, now or at a Unix time; it must be one."""
        when = {} if at_s is None else {"time": f"{at_s:.3f}"}
        made: list[dict[str, Any]] = self._get("query", query=expr, **when)["result"]
        return made

    def query_range(
        self, expr: str, begin_s: float, end_s: float, step_s: float
    ) -> list[dict[str, Any]]:
        """What an expression was from one Unix time to another; nothing may be wrong with it."""
        times = {"start": f"{begin_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:g}"}
        made: list[dict[str, Any]] = self._get("query_range", query=expr, **times)["result"]
        return made

    def exemplars(self, expr: str, begin_s: float, end_s: float) -> list[dict[str, str]]:
        """Labels of the exemplars of the series that an expression looks at."""
        times = {"start": f"{begin_s:.3f}", "end": f"{end_s:.3f}"}
        found = self._get("query_exemplars", query=expr, **times)
        return [one["labels"] for series in found for one in series["exemplars"]]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as Prometheus knows it, with what became of its last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> list[dict[str, Any]]:
        """Alerts that fire now."""
        alerts: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return [alert for alert in alerts if alert["state"] == "firing"]

    def until(self, condition: Callable[[], bool], limit_s: float) -> None:
        """Wait for something that is to come."""
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, (self.firing(), self._process.tail())
            time.sleep(_POLL_S)

    def _get(self, what: str, **query: str) -> Any:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            told = json.load(answer)
        assert not told.get("warnings"), (query, told["warnings"])
        return told["data"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
