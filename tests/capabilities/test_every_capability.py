"""Every capability has a test that is named after its id."""

import re
from pathlib import Path

GROUPS = {"W": 54, "P": 34, "T": 33, "C": 12}
OUT_OF_SCOPE = {"T32"}  # text classifiers and generators


def test_every_capability_has_a_test_of_its_name():
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    names = " ".join(re.findall(r"^def test_(\w+)", source, re.MULTILINE)).replace("_", " ")
    ids = {f"{group}{k:02}" for group, size in GROUPS.items() for k in range(1, size + 1)}
    assert set(re.findall(r"\b[WPTC]\d\d\b", names)) == ids - OUT_OF_SCOPE
