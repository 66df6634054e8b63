"""Public docstrings begin with a verb and its object; a word means one thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "patchead"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Not verbs, and what a noun phrase begins with; a sentence in the third person is no command.
_NO_VERB = {"A", "All", "An", "Both", "Each", "Equal", "Every", "For", "From", "How", "If", "In", "Its", "None", "Of"}
_NO_VERB |= {"One", "Several", "That", "The", "These", "This", "To", "Two", "What", "When", "Where", "Whether", "Which"}
_NO_VERB |= {"Who", "Whose", "Why", "Whole", "With", "Without", "Float", "Int", "Bool", "True", "False"}
_VERBS_IN_S = {"Address", "Pass", "Process", "Guess", "Press"}
Documented = ast.FunctionDef | ast.ClassDef


def public(tree: ast.AST) -> Iterator[Documented]:
    """Functions and classes without an underscore, and their public methods; not what is nested in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def is_exempt(node: Documented) -> bool:
    """Errors and sections of settings, whose docstrings are shown as they are, and enumerations of words."""
    bases = {ast.unparse(base) for base in getattr(node, "bases", ())}
    return any(base.endswith("Error") or base in {"Exception", "Section", "BaseModel", "Enum"} for base in bases)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_a_public_docstring_begins_with_a_verb(module: Path) -> None:
    for node in public(ast.parse(module.read_text(encoding="utf-8"))):
        text = ast.get_docstring(node)
        assert text, f"{node.name} has no docstring"
        first = re.split(r"[\s,:;.]", text)[0]
        no_verb = first in _NO_VERB or (first.endswith("s") and first not in _VERBS_IN_S)
        plain = re.fullmatch("[A-Z][a-z]+", first)
        assert is_exempt(node) or (plain and not no_verb), f"{node.name}: {text.splitlines()[0]}"


_LABELLED = ("metrics.py", "logs.py")


def test_a_product_is_a_screw_and_no_multiplication() -> None:
    """In the rooms that multiply, which never say product but for a dot product; of metrics and logs it is a label."""
    for room in ("scoring", "search", "samples", "maps", "runtime"):
        for module in sorted({*(PACKAGE / room).rglob("*.py")} - {PACKAGE / "runtime" / f for f in _LABELLED}):
            assert re.findall(r"(?i)(?<!dot )\b_?products?\b", module.read_text(encoding="utf-8")) == [], module
