"""The model loader: what it reports, and how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from redserve.errors import ConfigError, Unavailable
from redserve.fetch import fetch
from redserve.spec.settings import FetchSettings

DEMO = Path(__file__).resolve().parents[1] / "examples/demo-model"
COMMIT = "0cfaf48183f594c314753d30a4c4974bc75f3ccb"


def run(**env: str) -> subprocess.CompletedProcess[str]:
    settings = {f"REDSERVE_FETCH_{name}": value for name, value in env.items()}
    return subprocess.run(
        [sys.executable, "-m", "redserve.fetch"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_commit_is_the_snapshots_name(tmp_path):
    asked = []

    def resolver(*arguments, **options):
        asked.append((arguments, options))
        return tmp_path / "models--org--name" / "snapshots" / COMMIT

    settings = FetchSettings(model_uri="hf://org/name", cache_dir="/models/hub", weights=False)
    assert fetch(settings, resolver) == COMMIT
    arguments, options = asked[0]
    assert arguments == ("hf://org/name", None, Path("/models/hub"))
    assert options["weights"] is False


def test_a_folder_has_no_commit():
    assert fetch(FetchSettings(model_uri=DEMO.as_uri())) == ""


def test_nothing_to_fetch_names_the_setting():
    with pytest.raises(ConfigError, match="REDSERVE_FETCH_MODEL_URI"):
        fetch(FetchSettings())


def test_failures_reach_whoever_retries():
    def away(*_arguments, **_options):
        raise Unavailable("the hub cannot be reached")

    with pytest.raises(Unavailable):
        fetch(FetchSettings(model_uri="hf://org/name"), away)


def test_process_reports_success(tmp_path):
    report = tmp_path / "report"
    done = run(MODEL_URI=DEMO.as_uri(), REPORT_FILE=str(report))
    assert done.returncode == 0, done.stderr
    assert report.read_text() == ""


def test_process_reports_what_may_be_tried_again(tmp_path):
    report = tmp_path / "report"
    done = run(MODEL_URI="hf://org/name", CACHE_DIR=str(tmp_path), REPORT_FILE=str(report))
    assert done.returncode == 1
    assert "cannot be reached" in report.read_text()


def test_process_reports_what_can_never_work(tmp_path):
    report = tmp_path / "report"
    done = run(MODEL_URI="ftp://elsewhere", REPORT_FILE=str(report))
    assert done.returncode == 2
    assert "no model URI" in report.read_text()


def test_process_survives_bad_settings_and_a_report_that_cannot_be_written(tmp_path):
    bad = run(MODEL_URI=DEMO.as_uri(), WEIGHTS="perhaps")
    assert bad.returncode == 2
    assert "REDSERVE_FETCH_WEIGHTS" in bad.stderr
    unwritable = run(MODEL_URI=DEMO.as_uri(), REPORT_FILE=str(tmp_path / "no" / "report"))
    assert unwritable.returncode == 0
    assert "cannot be written" in unwritable.stderr
