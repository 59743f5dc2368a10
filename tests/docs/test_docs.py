"""The documentation tells the truth: settings, options, types, tests and files it names are there."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from regraft.artifacts import RunFolder
from regraft.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Markdown without its code blocks."""
    return re.sub(r"^```.*?^```|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)


def options() -> dict[str, set[str]]:
    """The options of each verb of the command line, short ones too."""
    group = typer.main.get_command(app)
    return {
        name: {text for parameter in command.params for text in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


def made(name: str) -> str:
    """What a script of docs/ that makes a page would write now."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.page())


@pytest.mark.parametrize("page", ["recipe", "options"])
def test_a_page_that_is_made_is_up_to_date(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert text == made(f"make_{page}"), f"run: python docs/make_{page}.py"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"index.md"} <= set(
        re.findall(r"\]\((\w+\.md)\)", index)
    )


def test_pictures_are_small_and_shown() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").glob("*"))
    assert {place.name for place in pictures} == {"report.png", "page.png"}
    for place in pictures:
        assert place.stat().st_size < 120_000
        assert f"](docs/pictures/{place.name})" in README


def test_python_for_users_compiles_and_names_what_there_is() -> None:
    import regraft

    blocks = PYTHON.findall(README + "\n" + (ROOT / "docs" / "using.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "for users", "exec")
        for name in re.findall(r"\bregraft\.(\w+)\(", block):
            assert hasattr(regraft, name), name


def test_what_is_told_of_extending_regraft_runs_from_top_to_bottom(tmp_path: Path) -> None:
    program = "\n".join(PYTHON.findall((ROOT / "docs" / "extending.md").read_text(encoding="utf-8")))
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    headline, answer = done.stdout.splitlines()[-2:]
    assert headline.startswith("test places off ")
    assert answer in ("a small", "b middle", "c large")
    run = RunFolder(tmp_path / "run").read_state()
    assert run["missing"] == {}
    assert (run["data"]["modality"], run["data"]["kind"]) == ("vector", "ordinal")
    assert run["provenance"]["id"] == "toy:tiny"


def test_what_is_told_of_data_runs_from_top_to_bottom(
    head_only: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import regraft

    def fit(data: str, out: str, recipe: dict[str, Any]) -> regraft.Run:
        """With a tiny network, and its head alone."""
        return regraft.api.fit(data, out, recipe={**head_only, **recipe}, cache=None)

    monkeypatch.setattr(regraft, "fit", fit, raising=False)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(PYTHON.findall((ROOT / "docs" / "data.md").read_text(encoding="utf-8"))), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["0.png", "1.png"] * 2
    assert "'height': " in lines[0]
    assert "'tall': " in lines[2]
    assert lines[4].startswith("{'train': ")


def test_the_commands_for_several_labels_and_numbers_run_as_they_stand_in_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(80):
        light = np.random.default_rng(number).integers(0, 200)
        Image.fromarray(np.full((32, 32, 3), light, np.uint8)).save(f"{number}.png")
    header, rows = "path,sunny,indoors,cells", [f"{n}.png,{n % 2},{n // 2 % 2},{n}" for n in range(80)]
    commands = re.findall(r"^    regraft (fit (\S+) --(?:labels|targets) \S+)$", README, re.MULTILINE)
    assert len(commands) == 2
    for words, table in commands:
        Path(table).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        app([*shlex.split(words), "--dry-run"], standalone_mode=False)
        assert "would take about" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page", [name for name in NAMES if name != "docs/benchmarks.md"]
)  # whose scripts have options
def test_verbs_and_options_exist(page: str) -> None:
    known = options()
    text = (ROOT / page).read_text(encoding="utf-8")
    others = r"(?:\bdocker |\bbenchmarks/)"  # commands with options of their own
    ours = re.sub(rf"^.*{others}.*$|`[^`]*{others}[^`]*`", "", text, flags=re.MULTILINE)
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours):
        assert option in ("--help", "--install-completion", "--show-completion") or any(
            option in found for found in known.values()
        ), option
    calls = re.findall(r"^    regraft +(.+)$|`regraft +([a-z][^`]*)`", text, re.MULTILINE)
    for call in map("".join, calls):
        verb, *words = shlex.split(call, comments=True)
        if verb == "--install-completion":
            continue
        assert verb in known, call
        for word in words:
            assert not word.startswith("--") or word in known[verb], call


def test_no_verb_is_left_out_of_the_readme() -> None:
    assert set(re.findall(r"regraft (\w+)", README)) >= set(options())


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose((ROOT / page).read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (ROOT / page).parent / file if file else ROOT / page
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


@pytest.mark.parametrize("page", NAMES)
def test_files_and_tests_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py(?:::\w+)?)`", text):
        file, _, test = name.partition("::")
        places = (ROOT, ROOT / "src" / "regraft", ROOT / "tests" / "backbones")
        found = [place / file for place in places if (place / file).is_file()]
        assert found, name
        assert not test or f"def {test}(" in found[0].read_text(encoding="utf-8"), name


def told_in(rooms: str) -> Callable[[str], Any]:
    """Finds a type by its name in the first of some rooms that has it."""
    modules = [importlib.import_module(f"regraft.{room}") for room in rooms.split()]

    def find(name: str) -> Any:
        kind = next((getattr(module, name) for module in modules if hasattr(module, name)), None)
        assert kind is not None, name
        return kind

    return find


def test_core_types_have_the_fields_that_are_told() -> None:
    blocks = PYTHON.findall(ARCHITECTURE)
    told = dict(re.findall(r"^([A-Z]\w+)\(([^)]*)\)", "\n".join(blocks), re.MULTILINE))
    assert len(told) > 35
    find = told_in(
        "backbones data data.examples evaluation inference modalities model ready run.session steps.context "
        "steps.decisions steps.finetune.step steps.finetune.tune steps.train tasks training training.ranks"
    )
    for name, fields in told.items():
        assert [field.name for field in dataclasses.fields(find(name))] == fields.split(", "), name


def test_seams_ask_for_what_is_told() -> None:
    lines = "\n".join(PYTHON.findall(ARCHITECTURE)).replace(",\n ", ", ")
    told = dict(re.findall(r"^([A-Z]\w+): ([a-z_, ]+)", lines, re.MULTILINE))
    assert set(told) == {"Kind", "Modality", "Preprocess", "Task", "Calibration", "WeightSource"}
    find = told_in("backbones data.kind modalities tasks")
    for name, members in told.items():
        kind = find(name)
        asked = {found for found in (*vars(kind), *kind.__annotations__) if not found.startswith("_")}
        assert asked == {member.strip() for member in members.split(",")}, name


def test_rooms_stand_in_the_order_that_is_checked() -> None:
    contract = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("layers = [")[2].partition("]")[0]
    )
    layers = re.findall(r'"regraft\.(\w+)"', contract)
    assert re.findall(r"^\| `(\w+)(?:\.py|/)` \|", ARCHITECTURE, re.MULTILINE) == layers
