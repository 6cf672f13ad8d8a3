from __future__ import annotations

from pathlib import Path

import pytest

from redserve.errors import ConfigError, RedServeError, Unavailable
from redserve.spec.manifest import (
    MAX_BYTES,
    ManifestError,
    load_manifest,
    open_manifest,
    parse_manifest,
)
from redserve.spec.yaml_source import YamlError, YamlSource

GOOD = """\
apiVersion: redserve.dev/v1alpha1
kind: RedService
metadata:
  name: demo
spec:
  model:
    uri: file://model
  encoder:
    replicas: 2
  llm:
    tokenBudget: 256
"""

# (replace this, by that) -> line, column, field, words of the message
CASES: list[tuple[str, str, str, int, int, str, str]] = [
    ("unknown field", "    replicas: 2", "    replcas: 2", 9, 5, "spec.encoder.replcas",
     "unknown field; did you mean replicas?"),
    ("unknown field, other case", "    tokenBudget", "    tokenbudget", 11, 5,
     "spec.llm.tokenbudget", "did you mean tokenBudget?"),
    ("unknown field, nothing close", "  llm:", "  zzz: 1\n  llm:", 10, 3, "spec.zzz",
     "choose from encoder, engine, imagePullSecrets, llm, model,"),
    ("unknown field at the top", "kind: RedService", "kind: RedService\nsepc: {}", 3, 1, "sepc",
     "did you mean spec?"),
    ("wrong type", "replicas: 2", "replicas: two", 9, 15, "spec.encoder.replicas",
     "must be a whole number, not 'two'"),
    ("quoted number", "replicas: 2", 'replicas: "2"', 9, 15, "spec.encoder.replicas",
     "must be a whole number, not '2'"),
    ("fraction", "tokenBudget: 256", "tokenBudget: 2.5", 11, 18, "spec.llm.tokenBudget",
     "must be a whole number, not 2.5"),
    ("number for a text", "name: demo", "name: 12", 4, 9, "metadata.name",
     "must be a text: quote it, not 12"),
    ("text for a struct", "  encoder:\n    replicas: 2", "  encoder: two", 8, 12, "spec.encoder",
     "must be a mapping of fields, not 'two'"),
    ("nothing for a struct", "  encoder:\n    replicas: 2", "  encoder:", 8, 11, "spec.encoder",
     "write {} to take the defaults"),
    ("text for a list", "    replicas: 2", "    extraArgs: a", 9, 16, "spec.encoder.extraArgs",
     "must be a list, not 'a'"),
    ("too small", "tokenBudget: 256", "tokenBudget: 0", 11, 18, "spec.llm.tokenBudget",
     "must be at least 1, not 0"),
    ("too large", "replicas: 2", "replicas: 1001", 9, 15, "spec.encoder.replicas",
     "must be at most 1000, not 1001"),
    ("bad choice", "    tokenBudget: 256", "    device: Cuda", 11, 13, "spec.llm.device",
     "'Cuda' is none of its values; did you mean CUDA?"),
    ("YAML's truth", "    tokenBudget: 256", "    prefixCache: on", 11, 18, "spec.llm.prefixCache",
     "write 'Enabled' or 'Disabled'"),
    ("bad quantity", "    tokenBudget: 256", "    arenaSize: 12MB", 11, 16, "spec.llm.arenaSize",
     "'12MB' is no quantity"),
    ("small quantity", "    tokenBudget: 256", "    arenaSize: 1Ki", 11, 16, "spec.llm.arenaSize",
     "must be at least 1Mi, not 1Ki"),
    ("bad name", "name: demo", "name: Demo_1", 4, 9, "metadata.name",
     "must be lower-case letters, digits and '-'"),
    ("long name", "name: demo", "name: " + "a" * 41, 4, 9, "metadata.name",
     "must have at most 40 characters"),
    ("missing field", "    uri: file://model", "    revision: main", 6, 3, "spec.model.uri",
     "is required: hf://organisation/name"),
    ("missing struct", "  llm:\n    tokenBudget: 256\n", "", 5, 1, "spec.llm", "is required"),
    ("rule over fields", "    tokenBudget: 256", "    minChunk: 8\n    tokenBudget: 4", 11, 5,
     "spec.llm.minChunk", "minChunk must not exceed tokenBudget"),
    ("deep in a list", "  llm:", "  slos:\n  - {name: a, indicator: TTFT}\n  llm:", 11, 26,
     "spec.slos[0].indicator", "'TTFT' is none of its values"),
    ("reserved variable", "    replicas: 2", "    env: [{name: REDSERVE_X}]", 9, 12,
     "spec.encoder.env[0].name", "set the manifest's field instead"),
    ("twice", "    replicas: 2", "    replicas: 2\n    replicas: 3", 10, 5, "",
     "'replicas' is there twice"),
    ("bad YAML", "    uri: file://model", "    uri: [", 9, 13, "", "bad YAML: "),
    ("tab", "  encoder:", "\tencoder:", 8, 1, "", "bad YAML: "),
    ("control character", "demo", "de\x07mo", 4, 11, "", "bad YAML: character U+0007"),
    ("several documents", GOOD, GOOD + "---\n" + GOOD, 13, 1, "", "there are 2 documents in it"),
    ("other version", "v1alpha1", "v1", 1, 13, "apiVersion", "did you mean redserve.dev/v1alpha1?"),
    ("other kind", "RedService", "Deployment", 2, 7, "kind", "is 'Deployment'; write RedService"),
    ("kind in other letters", "RedService", "REDService", 2, 7, "kind",
     "did you mean RedService?"),
    ("no kind", "kind: RedService\n", "", 1, 1, "kind", "write 'kind: RedService'"),
    ("misspelt apiVersion", "apiVersion", "apiversion", 1, 1, "apiVersion",
     "write 'apiVersion: redserve.dev/v1alpha1'"),
    ("no mapping", GOOD, "- a\n- b\n", 1, 1, "", "begin with 'apiVersion:"),
    ("empty", GOOD, "# nothing\n", 1, 1, "", "there is no document in it"),
    ("own parent", "    replicas: 2", "    env: &a [*a]", 9, 10, "", "points to its own parent"),
    ("list as a key", "    replicas: 2", "    [a]: 2", 9, 5, "", "a key must be a word"),
]  # fmt: skip


def test_the_text_that_all_cases_break_is_good() -> None:
    assert parse_manifest(GOOD, Path("x.yaml")).name == "demo"


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "field", "words"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_errors_name_place_field_and_mend(
    tmp_path: Path, old: str, new: str, line: int, column: int, field: str, words: str
) -> None:
    assert old in GOOD
    path = tmp_path / "x.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    first = caught.value.problems[0]
    assert (first.position.line, first.position.column) == (line, column)
    assert first.field == field
    assert words in first.message
    assert str(caught.value).startswith(f"{path}:{line}:{column}: {field}")
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_in_the_order_of_the_file() -> None:
    text = GOOD.replace("replicas: 2", "replcas: 2").replace("256", "-1").replace("demo", "Demo")
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, Path("x.yaml"))
    assert [problem.position.line for problem in caught.value.problems] == [4, 9, 11]
    assert len(str(caught.value).splitlines()) == 3


def test_very_many_problems_are_cut() -> None:
    text = GOOD + "".join(f"    unknown{number}: 1\n" for number in range(14))
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, Path("x.yaml"))
    assert len(caught.value.problems) == 14
    assert str(caught.value).splitlines()[-1] == "... and 4 more"


def test_aliases_cannot_blow_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ManifestError, match="too many values"):
        parse_manifest("\n".join(lines), Path("x.yaml"))


def test_aliases_and_merges_are_fine() -> None:
    text = GOOD.replace("  encoder:\n    replicas: 2", "  encoder: &pool\n    replicas: 2")
    text = text.replace("  llm:\n", "  llm:\n    <<: *pool\n")
    assert parse_manifest(text, Path("x.yaml")).spec.llm.replicas == 2


def test_dates_stay_texts() -> None:
    text = GOOD.replace("uri: file://model", "uri: file://model\n    revision: 2026-01-02")
    assert parse_manifest(text, Path("x.yaml")).spec.model.revision == "2026-01-02"


def test_several_documents_where_all_but_one_are_empty_are_one() -> None:
    assert parse_manifest(f"---\n{GOOD}---\n", Path("x.yaml")).name == "demo"


def test_files_that_are_no_manifests(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; name the manifest with -f"):
        load_manifest(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_manifest(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="it is no manifest"):
        load_manifest(large)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("größe: 1".encode("latin-1"))
    with pytest.raises(ConfigError, match="is no UTF-8 text: see byte 2"):
        load_manifest(latin)


@pytest.mark.parametrize(
    ("field", "line", "column"),
    [
        ("spec.encoder.replicas", 9, 15),  # a value that is there
        ("spec.llm", 10, 3),  # a struct that is there: its key
        ("spec.llm.env[1].valueFrom", 10, 3),  # not there: the key of what is
        ("spec.router.http.port", 5, 1),
        ("metadata.name", 4, 9),
    ],
)
def test_later_errors_point_into_the_file(
    tmp_path: Path, field: str, line: int, column: int
) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    manifest = open_manifest(path)
    with pytest.raises(Unavailable) as caught, manifest.pointing():
        raise Unavailable("no luck", field=field, retry_after_s=2.0)
    assert str(caught.value) == f"{path}:{line}:{column}: {field}: no luck"
    assert caught.value.retry_after_s == 2.0


@pytest.mark.parametrize("field", [None, "--http-port"])
def test_errors_about_something_else_stay_as_they_are(tmp_path: Path, field: str | None) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    error = RedServeError("no luck", field=field)
    with pytest.raises(RedServeError) as caught, open_manifest(path).pointing():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("y", True),
        ("No", False),
        ("1e3", 1000),  # a float without a fraction is a whole number in JSON
        ("2.0", 2),
        ("12e4567", "12e4567"),  # as a commit may begin: too large for a number
        ("1:30", "1:30"),  # no sexagesimal number
        ("010", 8),
        ("0o10", 8),
        ("089", 89),
        ("-0x1F", -31),
        ("1_000", 1000),
        ("=", "="),
        ("2026-01-02", "2026-01-02"),
    ],
)
def test_words_mean_what_they_mean_to_kubectl(word: str, value: object) -> None:
    found = YamlSource.parse(f"a: {word}").value["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_texts() -> None:
    assert YamlSource.parse("{1: a, true: b, 2.5: c}").value == {"1": "a", "true": "b", "2.5": "c"}
    with pytest.raises(YamlError, match="a key must be a word"):
        YamlSource.parse("{~: a}")
