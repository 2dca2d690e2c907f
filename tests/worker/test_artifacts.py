"""Where do weights lie? In a folder, or behind any fsspec URI, and they come back as they were."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from app import config
from app.tables import Run, Step
from worker import artifacts as place
from worker.learning.checkpoints import hash_folder

RUN = Run(id=7, project_id=3, step=Step.IMPROVE_POLICY)


def write(folder: Path) -> None:
    (folder / "deeper").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "deeper" / "weights").write_bytes(b"\x00\x01")


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A file system that is not the local one, with the cache in this test's folder."""
    uri = f"memory://{tmp_path.name}"
    monkeypatch.setenv("PREFLOOP_ARTIFACTS", uri)
    monkeypatch.setenv("PREFLOOP_HOME", str(tmp_path))
    config.settings.cache_clear()
    yield uri
    config.settings.cache_clear()


def test_a_local_folder_is_used_as_it_is(artifacts: Path) -> None:
    stored = place.store(RUN, 2, "policy", write)
    assert stored.uri == str(artifacts / "project-3" / "improve_policy-7-2" / "policy")
    assert stored.content_hash == hash_folder(Path(stored.uri))
    assert place.local(stored.uri, stored.content_hash) == stored.uri
    assert place.local("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


def test_what_lies_elsewhere_is_copied_once_and_checked(remote: str, tmp_path: Path) -> None:
    stored = place.store(RUN, 1, "policy", write)
    assert stored.uri == f"{remote}/project-3/improve_policy-7-1/policy"
    copy = Path(place.local(stored.uri, stored.content_hash))
    assert copy.is_relative_to(tmp_path.resolve() / "cache")
    assert hash_folder(copy) == stored.content_hash
    files, _ = fsspec.core.url_to_fs(stored.uri)
    files.rm(stored.uri, recursive=True)
    assert place.local(stored.uri, stored.content_hash) == str(copy)
    (copy / "config.json").write_text('{"changed": true}')
    with pytest.raises(ValueError, match="are not those that were stored"):
        place.local(stored.uri, stored.content_hash)


def test_what_earlier_attempts_left_is_removed(remote: str) -> None:
    kept = place.store(RUN, 2, "policy", write)
    left = place.store(RUN, 1, "policy", write)
    place.discard_earlier(RUN, 2)
    files, _ = fsspec.core.url_to_fs(remote)
    assert files.exists(kept.uri)
    assert not files.exists(left.uri)
