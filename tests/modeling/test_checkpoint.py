from __future__ import annotations

import fnmatch
import shutil
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest

from redserve.errors import ConfigError, ModelNotFound, Unavailable, UnsupportedModel
from redserve.modeling.checkpoint import fingerprint, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_absolute_and_relative_file_uris(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("llava")
    assert resolve(f"file://{folder}") == folder
    assert resolve(f"file://{folder.name}", base_dir=folder.parent) == folder
    assert resolve(f"file://./{folder.name}", base_dir=folder.parent) == folder


def test_percent_encoded_folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    target = tmp_path / "my model"
    shutil.copytree(checkpoint("llava"), target)
    assert resolve(f"file://{tmp_path}/my%20model") == target


@pytest.mark.parametrize("uri", ["llava", "s3://bucket/model", "http://host/model", ""])
def test_other_schemes_are_refused_with_the_form(uri: str) -> None:
    with pytest.raises(ConfigError, match="hf://organisation/name"):
        resolve(uri)


def test_relative_uri_without_a_base() -> None:
    with pytest.raises(ConfigError, match="relative"):
        resolve("file://models/llava")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no folder"):
        resolve(f"file://{tmp_path}/nowhere")


def test_folder_without_config(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        resolve(f"file://{tmp_path}")


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsupportedModel, match="pickle checkpoints are refused: convert to"):
        resolve(f"file://{tmp_path}")


def test_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsupportedModel, match=r"no \*\.safetensors"):
        resolve(f"file://{tmp_path}")


def _fill_cache(cache: Path, source: Path, commit: str) -> None:
    repository = cache / "models--acme--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(source, repository / "snapshots" / commit)


def test_hub_model_in_the_cache_needs_no_network(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    _fill_cache(tmp_path, checkpoint("llava"), commit)
    folder = resolve("hf://acme/tiny", cache_dir=tmp_path)
    assert folder.name == commit
    assert (folder / "config.json").is_file()


def test_hub_offline_and_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="the hub cannot be reached"):
        resolve("hf://acme/tiny", cache_dir=tmp_path)


def test_hub_name_of_a_wrong_form(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no hub name"):
        resolve("hf://acme/tiny/deeper", cache_dir=tmp_path)


@pytest.mark.parametrize("weights", [True, False])
def test_weights_are_fetched_only_where_they_are_needed(
    weights: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors")

    def download(_repository: str, *, allow_patterns: list[str], **_: Any) -> str:
        for name in files:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / name).write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve("hf://acme/tiny", weights=weights) == tmp_path
    assert {file.name for file in tmp_path.iterdir()} == set(files if weights else files[:-1])


def test_a_folder_without_weights_does_where_none_are_read(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        resolve(f"file://{tmp_path}", weights=False)
    (tmp_path / "config.json").write_text("{}")
    assert resolve(f"file://{tmp_path}", weights=False) == tmp_path


def test_only_safe_files_are_asked_of_the_hub(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, **kwargs: Any) -> str:
        asked.update(kwargs, repository=repository)
        return str(checkpoint("llava"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    resolve("hf://acme/tiny", revision="v2")
    assert (asked["repository"], asked["revision"]) == ("acme/tiny", "v2")

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in asked["allow_patterns"])

    assert all(
        wanted(name)
        for name in (
            *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"),
            *("tokenizer.model", "merges.txt", "chat_template.jinja", "vocab.json"),
        )
    )
    assert not any(
        wanted(name)
        for name in ("pytorch_model.bin", "modeling_evil.py", "model.pt", "x.gguf", "a.ckpt")
    )


def test_fingerprint_tells_checkpoints_apart(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoint("llava")
    copy = tmp_path / "elsewhere"
    shutil.copytree(source, copy)
    assert fingerprint(copy) == fingerprint(source)
    assert fingerprint(checkpoint("llava_next")) != fingerprint(source)
    (copy / "README.md").write_text("words do not matter")
    assert fingerprint(copy) == fingerprint(source)
    config = copy / "config.json"
    original = config.read_text()
    config.write_text(original.replace("4096", "8192"))
    assert fingerprint(copy) != fingerprint(source)
    config.write_text(original)
    with (copy / "model.safetensors").open("ab") as weights:
        weights.write(b"\0")
    assert fingerprint(copy) != fingerprint(source)
