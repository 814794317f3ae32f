from pathlib import Path

import pytest

from lovecraft.errors import ServeError
from lovecraft.serve.keys import read_keys


def test_comments_and_blank_lines_are_no_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# the clients' keys\n\n  sesame \n#old\nöffne\n", encoding="utf-8")
    assert read_keys(tmp_path / "keys") == ["sesame", "öffne"]


def test_key_file_must_hold_a_key(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n# none yet\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, said in (("empty", "holds no key"), ("binary", "not UTF-8"), ("missing", "read: No such file")):
        with pytest.raises(ServeError, match=f"{name}.*{said}") as caught:
            read_keys(tmp_path / name)
        assert "one key a line" in caught.value.hint
