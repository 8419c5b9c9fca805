"""The README's examples run as they stand, and the first learns what it says. (.ci/run runs its shell commands.)"""

import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_examples_run_and_the_first_learns(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where one saves its model
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        names = {}
        exec(compile(block, str(README), "exec"), names)
        if "accuracy" in names:
            assert names["accuracy"] > 0.93
            assert f"right about {names['accuracy']:.1%}" in capsys.readouterr().out


def test_it_opens_with_the_two_commands():
    first, second = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)[:2]
    assert first.rstrip().endswith("-m numbarnn demo")
    assert second.rstrip().endswith("-m pytest -q")
