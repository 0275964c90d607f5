"""Writes docs/operators.md out of the tests: which operator is tested how, forward and backward, and on which targets.

`python -m tests.test_operator_matrix` rewrites it; a test holds the file against this script.
"""

from __future__ import annotations

import re
from pathlib import Path

from device_runtime import inspect
from tests.architectures import ARCHITECTURES
from tests.device_runtime.test_operators import BATCHES, CASES, TOLERANCE
from tests.device_runtime.tkt_writer import artifact
from tests.export.architecture_tickets import architecture_ticket
from tests.golden.make_operators import FILES
from tests.targets.builds import MICROCONTROLLERS, SYSTEMS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/operators.md"

HEAD = """# Operators, and how each is tested

Made from the tests by `python -m tests.test_operator_matrix`; do not edit.

- **cases**: small networks around the operator (`tests/device_runtime/test_operators.py`), each at batches of {batches}. Forward:
  predictions against plain float64 numpy. Backward: every gradient against the same, to {tolerance:g} of the parameter's largest. The numpy formulas
  are held against PyTorch's autograd and finite differences.
- **networks**: whole networks out of {count}, lowered from an `nn.Module`; gradients and training against PyTorch
  (`tests/test_architectures_on_device.py`).
- **targets**: the same bits by every set of kernels (plain C, AVX2, AVX-512, NEON) on {targets}
  (`tests/device_runtime/kernels_test.c` with `tests/golden`, run by `tests/targets`).

| operator | cases | forward | backward | networks | targets |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole file. The columns say yes only where there is something to say it by."""
    spec = (ROOT / "export/FORMAT.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| \d+ \| (\w+) \| .* \| .* \| .* \| .* \|$", spec, re.MULTILINE)
    cases = {name: set(inspect(artifact(net()))["operators"]) for name, net in CASES.items()}
    networks = {name: {node.op for node in architecture_ticket(name).network.nodes} for name in ARCHITECTURES}
    golden = {name: set(inspect(ROOT / "tests/golden" / name)["operators"]) for name in FILES}
    targets = ", ".join([*SYSTEMS, *MICROCONTROLLERS])
    text = HEAD.format(
        batches=", ".join(map(str, BATCHES)), tolerance=TOLERANCE, count=len(ARCHITECTURES), targets=targets
    )
    for name in names:
        own = [case for case, used in cases.items() if name in used]
        inside = [network for network, used in networks.items() if name in used]
        files = [file for file, used in golden.items() if name in used]
        tested = "yes" if own else "no"
        row = [name, str(len(own)), tested, tested, ", ".join(inside) or "-", "yes" if files else "no"]
        text += f"| {' | '.join(row)} |\n"
    return text


def test_the_page_is_what_the_tests_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.test_operator_matrix"
    assert "| no |" not in page()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
