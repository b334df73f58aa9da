"""A plugin is found by its file's name, by an entry point or by a path; listing imports none, and errors name both sides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfad_bench import registry
from dfad_bench.errors import DataError, UnknownName, UsageError
from dfad_bench.records.protocol import load_protocol
from dfad_bench.registry import KINDS, Entry
from tests.records.builders import protocol_data, write_protocol

ROOT = Path(__file__).parents[1]

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """A function that installs a package of a third party: its modules' text, and its entry points by group."""
    before = set(sys.modules)

    def install_distribution(
        modules: dict[str, str], points: dict[str, dict[str, str]], distribution: str = "fake-dist"
    ) -> Path:
        site = tmp_path / f"site of {distribution}"
        for name, text in modules.items():
            path = site / f"{name.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(site))
        return site

    yield install_distribution
    for name in set(sys.modules) - before:
        if name.startswith(("fake_", "dfad_bench_plugin_")):
            del sys.modules[name]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of built-in models that is ours to fill."""
    folder = tmp_path / "fake_builtins"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(KINDS, "models", registry.Kind("models", "model", "fake_builtins", "MODEL"))
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    monkeypatch.delitem(sys.modules, "fake_builtins", raising=False)
    yield folder
    for name in [name for name in sys.modules if name.startswith("fake_builtins")]:
        del sys.modules[name]


# --- built-in ------------------------------------------------------------------------------------------------------


def test_a_built_in_is_named_after_its_file(package: Path) -> None:
    (package / "some_model.py").write_text("MODEL = 'the model'\n")
    (package / "another.py").write_text("MODEL = 'another'\n")
    assert list(registry.entries("models")) == ["another", "some_model"]
    assert registry.entries("models")["another"] == Entry("another", "built-in", path=package / "another.py")
    assert registry.get("models", "some_model") == "the model"


@pytest.mark.parametrize("name", ["__init__.py", "_shared.py", "__main__.py", "notes.txt", "model.yaml", "a.pyc"])
def test_a_file_that_is_no_plugin_is_not_listed(package: Path, name: str) -> None:
    (package / name).touch()
    assert registry.entries("models") == {}


def test_listing_imports_no_plugin(package: Path) -> None:
    (package / "explosive.py").write_text("raise SystemExit('imported')\n")
    assert "explosive" in registry.entries("models")


def test_listing_every_kind_imports_neither_torch_nor_a_plugin() -> None:
    script = (
        "import json, sys\n"
        "from dfad_bench import registry\n"
        "listed = {kind: list(registry.entries(kind)) for kind in registry.KINDS}\n"
        "packages = tuple(kind.package + '.' for kind in registry.KINDS.values())\n"
        "imported = [name for name in sys.modules if name.startswith(packages)]\n"
        "print(json.dumps([listed, imported, 'torch' in sys.modules, 'cv2' in sys.modules]))\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    listed, imported, torch, cv2 = json.loads(answer.stdout)
    assert (imported, torch, cv2) == ([], False, False)
    assert "folder" in listed["sources"]
    assert "demo" in listed["protocols"]


def test_getting_one_plugin_imports_no_other(package: Path) -> None:
    (package / "calm.py").write_text("MODEL = 1\n")
    (package / "explosive.py").write_text("raise SystemExit('imported')\n")
    assert registry.get("models", "calm") == 1


def test_every_kind_has_a_built_in_folder_with_at_least_one_plugin_that_exposes_its_object() -> None:
    for kind in ("sources", "face_detectors", "gaze_estimators", "perturbations", "protocols"):
        built_in = [name for name, entry in registry.entries(kind).items() if entry.origin == "built-in"]
        assert built_in, kind
        assert all(registry.get(kind, name) is not None for name in built_in)


def test_a_built_in_protocol_is_the_path_of_its_file() -> None:
    found = registry.get("protocols", "demo")
    assert isinstance(found, Path)
    assert found.name == "demo.yaml"
    assert found.is_file()


# --- unknown names -------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_the_nearest_and_the_command_that_lists(package: Path) -> None:
    (package / "xception.py").touch()
    with pytest.raises(UnknownName) as caught:
        registry.get("models", "exception")
    assert str(caught.value) == (
        "No model is named 'exception'. Did you mean 'xception'? See 'dfad-bench list models'."
    )


def test_an_unknown_name_of_a_kind_of_two_words_is_told_the_command_as_it_is_typed() -> None:
    with pytest.raises(UnknownName, match=r"No face detector is named 'hog'\..*'dfad-bench list face-detectors'"):
        registry.find("face_detectors", "hog")


def test_a_file_that_begins_with_an_underscore_cannot_be_had_by_name(package: Path) -> None:
    (package / "_shared.py").write_text("MODEL = 1\n")
    with pytest.raises(UnknownName):
        registry.get("models", "_shared")


# --- a third party -------------------------------------------------------------------------------------------------


def test_a_third_party_is_listed_with_its_distribution_and_imported_only_by_get(install: Install) -> None:
    install({"fake_pkg.model": "MODEL = 'theirs'\n"}, {"dfad_bench.models": {"their_model": "fake_pkg.model"}})
    entry = registry.entries("models")["their_model"]
    assert (entry.name, entry.origin, entry.path) == ("their_model", "fake-dist", None)
    assert "fake_pkg" not in sys.modules
    assert registry.get("models", "their_model") == "theirs"
    assert "fake_pkg.model" in sys.modules


def test_an_entry_point_may_name_the_object_itself(install: Install) -> None:
    install({"fake_pkg": "class Their:\n    pass\n"}, {"dfad_bench.sources": {"their_faces": "fake_pkg:Their"}})
    assert registry.get("sources", "their_faces").__name__ == "Their"


@pytest.mark.parametrize("target", ["fake_pkg", "fake_pkg:PROTOCOL"])
def test_a_third_party_protocol_is_the_contents_of_a_protocol_file(install: Install, target: str) -> None:
    install({"fake_pkg": f"PROTOCOL = {protocol_data()!r}\n"}, {"dfad_bench.protocols": {"toy": target}})
    assert load_protocol("toy").description == "A toy."


def test_a_third_party_protocol_may_be_the_path_of_a_file(install: Install, tmp_path: Path) -> None:
    path = write_protocol(tmp_path)
    text = f"from pathlib import Path\nPROTOCOL = Path({str(path)!r})\n"
    install({"fake_pkg": text}, {"dfad_bench.protocols": {"toy": "fake_pkg"}})
    assert load_protocol("toy").name == "toy"


def test_other_groups_of_the_same_distribution_are_not_listed(install: Install) -> None:
    install({}, {"dfad_bench.models": {"their_model": "fake_pkg"}, "console_scripts": {"their_script": "fake_pkg:f"}})
    assert "their_script" not in registry.entries("models")
    assert "their_model" not in registry.entries("sources")


def test_a_third_party_that_takes_a_built_in_name_is_told_with_both(install: Install) -> None:
    install({}, {"dfad_bench.sources": {"folder": "fake_pkg"}})
    with pytest.raises(DataError, match=r"Two sources are named 'folder': built-in and fake-dist\."):
        registry.entries("sources")
    assert "folder" not in registry.entries("models")


def test_two_third_parties_that_take_one_name_are_told_with_both(install: Install) -> None:
    install({}, {"dfad_bench.models": {"same": "fake_a"}}, "fake-a")
    install({}, {"dfad_bench.models": {"same": "fake_b"}}, "fake-b")
    with pytest.raises(DataError, match=r"Two models are named 'same': fake-[ab] and fake-[ab]\."):
        registry.entries("models")


def test_a_distribution_found_twice_on_the_path_is_no_clash(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install({"fake_pkg": "MODEL = 1\n"}, {"dfad_bench.models": {"their_model": "fake_pkg"}})
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    assert registry.get("models", "their_model") == 1


def test_a_third_party_module_without_the_object_is_told_what_to_expose(install: Install) -> None:
    install({"fake_pkg": ""}, {"dfad_bench.models": {"their_model": "fake_pkg"}})
    with pytest.raises(UsageError, match="their_model: a model file must expose MODEL"):
        registry.get("models", "their_model")


def test_a_third_party_whose_module_is_gone_fails_when_it_is_used_and_not_when_it_is_listed(install: Install) -> None:
    install({}, {"dfad_bench.models": {"their_model": "fake_gone"}})
    assert "their_model" in registry.entries("models")
    with pytest.raises(ModuleNotFoundError, match="fake_gone"):
        registry.get("models", "their_model")


# --- a file --------------------------------------------------------------------------------------------------------


def test_a_plugin_can_be_the_path_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_model.py").write_text("MODEL = ('mine', __name__)\n")
    monkeypatch.chdir(tmp_path)
    for path in ("my_model.py", "./my_model.py", str(tmp_path / "my_model.py")):
        assert registry.get("models", path)[0] == "mine"
    entry = registry.find("models", "./my_model.py")
    assert (entry.name, entry.origin, entry.path) == ("my_model", "my_model.py", tmp_path / "my_model.py")


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_model.py").write_text("MODEL = 1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry.get("models", "~/my_model.py") == 1


def test_two_files_of_one_name_are_two_plugins(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.py").write_text(f"MODEL = '{folder}'\n")
    assert [registry.get("models", str(tmp_path / folder / "model.py")) for folder in ("a", "b")] == ["a", "b"]


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text("MODEL = object()\n")
    path = str(tmp_path / "my_model.py")
    assert registry.get("models", path) is registry.get("models", path)


def test_a_file_may_define_dataclasses_and_be_pickled_by_name(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nimport dataclasses\n"
    (tmp_path / "a.b.py").write_text(f"{text}@dataclasses.dataclass\nclass MODEL:\n    x: int = 1\n")
    found = registry.get("models", str(tmp_path / "a.b.py"))
    assert found().x == 1
    assert getattr(sys.modules[found.__module__], "MODEL") is found  # noqa: B009


@pytest.mark.parametrize(
    ("kind", "path", "told"),
    [
        ("models", "./gone.py", "There is no model file './gone.py'. Give the path of an existing .py file."),
        ("models", "gone.py", "There is no model file 'gone.py'. Give the path of an existing .py file."),
        ("models", "some/folder", "There is no model file 'some/folder'. Give the path of an existing .py file."),
        ("models", "..\\gone", "There is no model file '..\\\\gone'. Give the path of an existing .py file."),
        ("protocols", "gone.yaml", "There is no protocol file 'gone.yaml'. Give the path of an existing .yaml file."),
    ],
)
def test_a_missing_file_is_told_as_it_was_typed(kind: str, path: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.get(kind, path)
    assert str(caught.value) == told


def test_a_folder_is_no_plugin_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no model file"):
        registry.get("models", str(tmp_path))


def test_a_file_that_is_not_python_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"\x80\x02")
    with pytest.raises(UsageError, match=r"weights\.pt cannot be imported as Python"):
        registry.get("models", str(tmp_path / "weights.pt"))


def test_a_file_without_the_object_is_told_what_to_expose(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text("MODELL = 1\n")
    with pytest.raises(UsageError, match=r"my_model\.py: a model file must expose MODEL\. See CONTRIBUTING\.md\."):
        registry.get("models", str(tmp_path / "my_model.py"))


@pytest.mark.parametrize("fault", ["1 / 0", "raise KeyboardInterrupt", "raise SystemExit(3)", "def broken(:"])
def test_a_file_that_fails_at_import_leaves_no_half_module_behind(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "my_model.py"
    path.write_text(f"MODEL = 'half'\n{fault}\n")
    before = set(sys.modules)
    for _ in range(2):
        with pytest.raises((ZeroDivisionError, KeyboardInterrupt, SystemExit, SyntaxError)):
            registry.get("models", str(path))
        assert not [name for name in set(sys.modules) - before if "my_model" in name]
    path.write_text("MODEL = 'a whole one this time'\n")
    assert registry.get("models", str(path)) == "a whole one this time"


def test_a_third_party_that_fails_at_import_leaves_no_half_module_behind(install: Install) -> None:
    install({"fake_pkg": "MODEL = 1\n1 / 0\n"}, {"dfad_bench.models": {"their_model": "fake_pkg"}})
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            registry.get("models", "their_model")
        assert "fake_pkg" not in sys.modules


def test_a_protocol_by_path_is_that_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_protocol(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert registry.get("protocols", "toy.yaml") == path
    assert registry.get("protocols", str(path)) == path


def test_a_link_goes_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "stored").write_text("MODEL = 1\n")
    (tmp_path / "my_model.py").symlink_to(tmp_path / "stored")
    assert registry.get("models", str(tmp_path / "my_model.py")) == 1
    assert registry.find("models", str(tmp_path / "my_model.py")).name == "my_model"
