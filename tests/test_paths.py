"""Directories by the system's custom."""

from pathlib import Path

from lovecraft import paths


def test_directories_follow_the_xdg_variables(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    assert paths.data() == tmp_path / "data" / "lovecraft"
    assert paths.cache() == tmp_path / "cache" / "lovecraft"
