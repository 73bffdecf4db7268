"""Imports point down only. The table below is the picture: every module of leanmark has its place in it."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Layer:
    """``modules`` may import one another, the layers ``below``, the standard library and ``outside``.

    Names are relative to leanmark; a folder stands for everything in it. Imports for annotations only
    (``if TYPE_CHECKING``) load nothing and are free here, but may close no circle; imports inside functions
    count.
    """

    modules: str
    below: str = ""
    outside: str = ""


# fmt: off
LAYERS = {
    "top":     Layer("cli cli_options pytest_plugin pytest_options fixture confirmation __main__",
                     below="parent child reading numbers disk status shared facts", outside="click pytest"),
    # measuring: the parent plans and waits without torch, the child runs, the parts are what it runs
    "parent":  Layer("measuring",
                     below="parts numbers disk status shared facts"),
    "child":   Layer("worker",
                     below="parts shared facts", outside="torch numpy"),
    "parts":   Layer("workloads techniques backends devices meters models",
                     below="shared facts",
                     outside="numpy torch torch_pruning onnx onnxruntime onnxscript sklearn codecarbon "
                             "openvino pynvml torchao leanmark_kernels"),
    "kit":     Layer("testing", below="parts facts", outside="pynvml"),
    # reading: without torch, and without anything of measuring
    "reading": Layer("report reading",
                     below="numbers disk status shared facts", outside="numpy scipy rich jinja2"),
    # where the two sides meet: the record on disk, and how sure a number is
    "numbers": Layer("statistics",
                     below="facts", outside="numpy scipy"),
    "disk":    Layer("store", below="facts", outside="msgspec"),
    "status":  Layer("catalogue doctor progress", below="shared facts", outside="pynvml"),
    "shared":  Layer("chain operations plan suite protocol machine",
                     below="facts"),
    "facts":   Layer("errors record finding reference sampling thresholds intensity rival units registry "
                     "__init__"),
}
# fmt: on

KERNELS_OUTSIDE = "torch triton"  # and leanmark_kernels itself, never leanmark
BANNED_NAMES = {"utils", "helpers", "common"}
LONGEST_FILE = 400

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Tree:
    """One import package: ``name`` and the folder it lies in."""

    name: str
    parent: Path

    def files(self) -> dict[str, Path]:
        """Dotted module name to file."""
        found = {}
        for path in sorted((self.parent / self.name).rglob("*.py")):
            parts = path.relative_to(self.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return found


@dataclass(frozen=True, slots=True)
class Import:
    """``line`` of module ``importer`` imports module ``target``."""

    importer: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


Statements = Callable[[ast.AST], Iterator[ast.Import | ast.ImportFrom]]


def executed(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement under ``node`` that is ever run, functions included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from executed(ast.Module([other], []))
        else:
            yield from executed(child)


def written(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement under ``node``, those for annotations included."""
    return (child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom))


def imports(tree: Tree, statements: Statements = executed) -> list[Import]:
    """All imports but those of the standard library; ``from package import module`` is resolved."""
    files = tree.files()
    found = []
    for importer, path in files.items():
        for node in statements(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                base = "." * node.level + (node.module or "")
                names = [f"{base}.{alias.name}" for alias in node.names]
                targets = [name if name in files else base for name in names]
            found += [Import(importer, target, node.lineno) for target in dict.fromkeys(targets)]
    return [each for each in found if each.target.split(".")[0] not in sys.stdlib_module_names]


def layer_of(module: str) -> str | None:
    """The layer of ``leanmark.<module>...``, ``None`` where the table has no place for it."""
    name = module.split(".")[1] if "." in module else "__init__"
    return next((layer for layer, row in LAYERS.items() if name in row.modules.split()), None)


def allowed(each: Import) -> bool:
    layer = layer_of(each.importer)
    if layer is None:
        return True  # reported as homeless
    row = LAYERS[layer]
    if each.target.split(".")[0] == "leanmark":
        return layer_of(each.target) in {layer, *row.below.split()}
    return each.target.split(".")[0] in row.outside.split()


def violations(tree: Tree) -> list[str]:
    """Everything in ``tree`` that breaks the table, in words."""
    found = [
        f"{module} has no layer: add it to LAYERS in {Path(__file__).name}"
        for module in tree.files()
        if layer_of(module) is None
    ]
    for each in imports(tree):
        if not allowed(each):
            found.append(f"{each}, which is not below the layer '{layer_of(each.importer)}'")
    return found


def cycle(tree: Tree) -> list[str]:
    """The modules of one import cycle, empty where there is none. To read one file of a cycle is to read all,
    so imports for annotations count."""
    graph: dict[str, set[str]] = {module: set() for module in tree.files()}
    for each in imports(tree, written):
        if each.target in graph and each.target != tree.name:
            graph[each.importer].add(each.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


LEANMARK = Tree("leanmark", ROOT / "bench")
KERNELS = Tree("leanmark_kernels", ROOT / "kernels")


def test_imports_point_down() -> None:
    found = violations(LEANMARK)
    assert not found, "\n".join(found)


def test_kernels_import_torch_only() -> None:
    legal = {"leanmark_kernels", *KERNELS_OUTSIDE.split()}
    assert [str(each) for each in imports(KERNELS) if each.target.split(".")[0] not in legal] == []


@pytest.mark.parametrize("tree", [LEANMARK, KERNELS], ids=lambda tree: tree.name)
def test_no_import_cycles(tree: Tree) -> None:
    assert cycle(tree) == []


@pytest.mark.parametrize("tree", [LEANMARK, KERNELS], ids=lambda tree: tree.name)
def test_files_are_short_and_named_for_what_is_in_them(tree: Tree) -> None:
    files = tree.files()
    assert [module for module in files if module.split(".")[-1] in BANNED_NAMES] == []
    assert [
        module for module, path in files.items() if len(path.read_text().splitlines()) > LONGEST_FILE
    ] == []


def test_the_table_has_no_dead_rows() -> None:
    homes = {module.split(".")[1] for module in LEANMARK.files() if "." in module} | {"__init__"}
    assert {name for row in LAYERS.values() for name in row.modules.split()} - homes == set()


READING = [
    m for m in LEANMARK.files() if layer_of(m) in ("top", "reading", "disk", "status", "shared", "facts")
]


def test_a_laptop_without_torch_reads_and_reports() -> None:
    """Importing what a reader needs loads no torch, whatever it imports in turn."""
    modules = [module for module in READING if not module.endswith("__main__")]
    script = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        (
            "statistics/stats",
            "import torch",
            "leanmark.statistics.stats:{} imports torch, which is not below the layer 'numbers'",
        ),
        (
            "reading/compare",
            "def f():\n    from leanmark.worker import serve",
            "imports leanmark.worker.serve, which is not below",
        ),
        ("record", "import numpy as np", "imports numpy, which is not below the layer 'facts'"),
        (
            "worker/runner",
            "from leanmark.report.terminal import render",
            "leanmark.report.terminal, which is not below",
        ),
        ("units", "from . import stats", "imports ., which is not below"),
        ("shiny", "import json", "leanmark.shiny has no layer: add it to LAYERS"),
    ],
)
def test_planted_import_is_caught(tmp_path: Path, module: str, line: str, complaint: str) -> None:
    shutil.copytree(
        LEANMARK.parent / "leanmark", tmp_path / "leanmark", ignore=shutil.ignore_patterns("*.pyc")
    )
    before = violations(Tree("leanmark", tmp_path))
    path = tmp_path / "leanmark" / f"{module}.py"
    text = path.read_text() if path.exists() else ""
    path.write_text(f"{text}\n{line}\n")
    new = [each for each in violations(Tree("leanmark", tmp_path)) if each not in before]
    assert len(new) == 1
    assert complaint.format(text.count("\n") + 2) in new[0]


def test_planted_cycle_is_caught(tmp_path: Path) -> None:
    (tmp_path / "leanmark").mkdir()
    (tmp_path / "leanmark" / "one.py").write_text("from leanmark.two import x\n")
    (tmp_path / "leanmark" / "two.py").write_text("def f():\n    import leanmark.one\n")
    assert set(cycle(Tree("leanmark", tmp_path))) == {"leanmark.one", "leanmark.two"}
