"""Print how the code is shaped beside what CONVENTIONS aim at, and fail on what nobody wants.

Fails on: a module over 400 lines, a function over 50 code lines, a module without the word that says which kind it is,
a decision that imports what only services and adapters may. The median and the 95th percentile are printed.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "ondol"
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50
KINDS = ("decision:", "service:", "adapter:", "facade:")
EFFECTS = {"asyncio", "os", "time", "random", "logging", "threading", "socket", "subprocess"}


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef, source: list[str]) -> int:
    """Count the lines of a function that hold code: no blank lines, comments or docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body:
        return 1
    lines = source[body[0].lineno - 1 : node.end_lineno]
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))


def runtime_imports(tree: ast.Module) -> set[str]:
    """Return the names of the modules imported at module level at run time (not under TYPE_CHECKING)."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def kind_of(path: Path) -> str:
    """Return the word that begins the module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split(" ", 1)[0]


def file_of(module: str, root: Path) -> Path | None:
    """Return the file of an ondol module below ``root`` (the package's folder), if it is one."""
    parts = module.split(".")
    if parts[0] != "ondol":
        return None
    base = root.joinpath(*parts[1:])
    candidates = (base.with_suffix(".py"), base / "__init__.py") if len(parts) > 1 else (root / "__init__.py",)
    return next((path for path in candidates if path.is_file()), None)


def decision_faults(where: Path, imports: set[str], root: Path) -> list[str]:
    """Say what a decision imports that it must not: effects, and modules that are no decisions."""
    faults = []
    if effects := {name.split(".")[0] for name in imports} & EFFECTS:
        faults.append(f"{where}: a decision imports {', '.join(sorted(effects))}; decisions have no effects")
    for name in sorted(imports):
        path = file_of(name, root)
        if path is not None and kind_of(path) != "decision:":
            faults.append(f"{where}: a decision imports {name}, which is no decision")
    return faults


def check(path: Path, root: Path) -> tuple[list[str], list[int]]:
    """Return the faults of one module and the lengths of its functions."""
    text = path.read_text(encoding="utf-8")
    tree, source, where = ast.parse(text), text.splitlines(), path.relative_to(root.parent)
    faults: list[str] = []
    if len(source) > MAX_MODULE_LINES:
        faults.append(f"{where}: {len(source)} lines, at most {MAX_MODULE_LINES}; split it by responsibility")
    kind = (ast.get_docstring(tree) or "").split(" ", 1)[0]
    if kind not in KINDS:
        faults.append(f"{where}: the docstring must begin with one of {', '.join(KINDS)}")
    if kind == "decision:":
        faults += decision_faults(where, runtime_imports(tree), root)
    lengths = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lengths.append(length := code_lines(node, source))
            if length > MAX_FUNCTION_LINES:
                faults.append(
                    f"{where}:{node.lineno}: {node.name} has {length} code lines, at most {MAX_FUNCTION_LINES}"
                )
    return faults, lengths


def main(root: Path = SOURCES) -> int:
    """Check every module below ``root``; return the exit status."""
    faults: list[str] = []
    lengths: list[int] = []
    modules = sorted(root.rglob("*.py"))
    for path in modules:
        module_faults, module_lengths = check(path, root)
        faults += module_faults
        lengths += module_lengths
    p95 = quantiles(lengths, n=20)[-1] if len(lengths) > 1 else 0
    print(f"shape: {len(modules)} modules, {len(lengths)} functions")
    print(f"shape: code lines a function: median {median(lengths):.0f}, p95 {p95:.0f} (aim ≤ 30)")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES))
