"""`lc show --python`: a flat module that resolves to the same fingerprint."""

import json
from pathlib import Path

import pytest

OVERRIDES = [
    [],
    ["--optimizer", "SGD", "--optimizer.momentum", "0.9", "--save", "none", "--dataset.validation", "a.txt,c.txt"],
    ["--dataset.block-size", "16", "--eval.prompts", 'He said "no",It was dark', "--model.path", "/elsewhere"],
]


@pytest.mark.parametrize("words", OVERRIDES)
def test_the_flat_module_resolves_to_the_same_values(lc, workspace: Path, words: list[str]):
    text = lc("show", "tiny", "--python", *words).out
    (workspace / "projects" / "flat").mkdir()
    (workspace / "projects" / "flat" / "default.py").write_text(text, encoding="utf-8")

    before, after = (json.loads(lc("show", *which, "--json").out) for which in (["tiny", *words], ["flat"]))

    assert after["fingerprint"] == before["fingerprint"]
    assert [(r["path"], r["value"]) for r in after["options"]] == [(r["path"], r["value"]) for r in before["options"]]
    assert lc("diff", "tiny", "flat").code == (1 if words else 0)


def test_the_flat_module_imports_what_it_names_and_no_other_project(lc, workspace: Path):
    text = lc("show", "tiny", "--python").out

    assert "projects" not in text
    assert "class SaveOptions(Save):" in text
    assert 'source = ROOT / "texts"' in text
