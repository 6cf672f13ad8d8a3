"""From a model URI to a local folder of safetensors, and its fingerprint. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from redserve.errors import ConfigError, ModelNotFound, Unavailable, UnsupportedModel

_WEIGHTS = "*.safetensors"
ALLOW_PATTERNS = (_WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model")
"""What is fetched from a hub: weights as safetensors, configs and tokenizer files."""

_FINGERPRINTED = ("config.json", "model.safetensors.index.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def resolve(
    uri: str,
    revision: str | None = None,
    cache_dir: Path | None = None,
    *,
    base_dir: Path | None = None,
    weights: bool = True,
) -> Path:
    """Local folder of the checkpoint that `uri` names, downloaded if need be.

    Args:
        uri: `file:///absolute`, `file://relative/to/base_dir`, or `hf://organisation/name`.
        revision: Branch, tag or commit of a hub repository; None for its main branch.
        cache_dir: Where downloads are kept; None for the hub client's own cache.
        base_dir: What relative file URIs start from (the manifest's folder).
        weights: Whether weights are needed: the router reads none and fetches none.

    Returns:
        A folder with config.json and, if wanted, at least one safetensors file. Code of the
        repository is neither fetched nor run.

    Raises:
        ConfigError: The URI has another form.
        ModelNotFound: No such folder or repository, or it has no config.json.
        UnsupportedModel: There are no safetensors, though weights are wanted.
        Unavailable: The hub cannot be reached and the cache does not hold the files.
    """
    if uri.startswith("file://"):
        path = _local_path(uri, base_dir)
        if not path.is_dir():
            raise ModelNotFound(f"{uri}: there is no folder {path}")
    elif uri.startswith("hf://"):
        path = _download(uri, revision, cache_dir, weights)
    else:
        raise ConfigError(
            f"{uri!r} is no model URI: write file:///path/to/folder or hf://organisation/name"
        )
    if not (path / "config.json").is_file():
        raise ModelNotFound(f"{uri}: {path} has no config.json: it is no checkpoint folder")
    if weights:
        _check_weights(uri, path)
    return path


def fingerprint(path: Path) -> str:
    """sha256 (hex) over names and sizes of the weights, the config and the weight index.

    Two folders with the same fingerprint hold the same architecture, shard layout and sizes; the
    weights themselves are not read, so it costs milliseconds for any size of model.
    """
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
    for name in _FINGERPRINTED:
        file = path / name
        if file.is_file():
            digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _local_path(uri: str, base_dir: Path | None) -> Path:
    path = Path(unquote(uri.removeprefix("file://")))
    if path.is_absolute():
        return path
    if base_dir is None:
        raise ConfigError(f"{uri!r} is relative and there is no folder to start from")
    return (base_dir / path).resolve()


def _download(uri: str, revision: str | None, cache_dir: Path | None, weights: bool) -> Path:
    # Imported late: the hub client costs a tenth of a second and file URIs do not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    parts = urlsplit(uri)
    repository = f"{parts.netloc}{parts.path}"
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            cache_dir=cache_dir,
            allow_patterns=[name for name in ALLOW_PATTERNS if weights or name != _WEIGHTS],
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        wanted = f"{repository} at revision {revision}" if revision else repository
        raise ModelNotFound(f"{uri}: the hub has no {wanted}, or it needs a token") from error
    except HFValidationError as error:
        raise ConfigError(f"{uri!r} is no hub name: write hf://organisation/name") from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise Unavailable(
            f"{uri}: the hub cannot be reached and the model is not in the cache; "
            "fetch it beforehand or name a folder with file://"
        ) from error
    return Path(folder)


def _check_weights(uri: str, path: Path) -> None:
    if not any(path.glob(_WEIGHTS)):
        if any(file for pattern in _PICKLES for file in path.glob(pattern)):
            raise UnsupportedModel(f"{uri}: pickle checkpoints are refused: convert to safetensors")
        raise UnsupportedModel(f"{uri}: {path} has no *.safetensors weights")
