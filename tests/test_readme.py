"""What README files say: their numbers are those of stored tables, their links lead somewhere, the first is short."""

import re

import pandas as pd
import pytest
import timm
import torch
from places import ROOT

from xai_utils.sweep import standings

READMES = [
    path
    for folder in (".", "data", "data/models", "figures", "figures/*", "notebooks", "sweeps", "tests", "xai_utils")
    for path in sorted(ROOT.glob(f"{folder}/README.md"))
]
NUMBERED = ("README.md", "notebooks/README.md")
MEAN = "{mean:.2f} [{low:.2f}, {high:.2f}]"
TIMES = "{mean:.1f} [{low:.1f}, {high:.1f}]"
TEXT, VISION = {"model": "minilm-sst2", "measure": "precision"}, {"model": "vit-scenes", "measure": "lift"}
PREFERS = "pairs: {} prefers what was asked about".format

#: file, sentence with the numbers' format, table in figures/, and the row that holds them by its columns
AGREES = {"task": "agreement", "measure": "hit"}
SAID = [
    ("README.md", f"{MEAN} for attention rollout", "01_known_truth", TEXT | {"map": "rollout"}),
    ("README.md", f"{MEAN} for gradient rollout", "01_known_truth", TEXT | {"map": "gradient_rollout"}),
    ("README.md", f"gradient rollout puts {TIMES} times", "01_known_truth", VISION | {"map": "gradient_rollout"}),
    ("README.md", f"rollout {TIMES}, and a bell", "01_known_truth", VISION | {"map": "rollout"}),
    ("README.md", f"AttnLRP does in {MEAN} of", "language-full/11_known_truth", AGREES | {"map": "AttnLRP"}),
    ("README.md", f"same word does in {MEAN};", "language-full/11_known_truth", AGREES | {"map": "same word"}),
    ("README.md", f"for the truth, does in {MEAN}.", "language-full/11_known_truth", AGREES | {"map": "leave one out"}),
    ("README.md", f"that sees no picture {TIMES}", "01_known_truth", VISION | {"map": "centre"}),
    ("notebooks/README.md", f"skip share of 0.5 gains {MEAN}", "01_skip", TEXT | {"map": "rollout 0.5"}),
    ("notebooks/README.md", f"the gain is {MEAN}", "01_punctuation",
     {"map": "rollout", "measure": "precision with punctuation"}),
    ("notebooks/README.md", f"than plain rollout: {MEAN}", "01_tests",
     {"claim": "minilm-sst2, precision: gradient rollout above rollout, at equal effective skip"}),
    ("notebooks/README.md", "rule reaches {sums:.2f} (MiniLM)", "02_published",
     {"model": "minilm-sst2", "map": "ratio"}),
    ("notebooks/README.md", " to {sums:.2f} (24 layers)", "02_published",
     {"model": "bert24-sst2", "map": "ratio"}),
    ("notebooks/README.md", f"in MiniLM, by {MEAN}", "02_rule",
     {"model": "minilm-sst2", "what": "curve", "against": "random layers"}),
    ("notebooks/README.md", f"below as many last layers: {MEAN}", "02_rule",
     {"model": "minilm-sst2", "what": "curve", "against": "last layers"}),
    ("notebooks/README.md", f"against as many last layers {MEAN}", "02_rule",
     {"model": "smollm2", "what": "curve", "against": "last layers"}),
    ("notebooks/README.md", f"for reviews differs from it by {MEAN}", "03_tests",
     TEXT | {"skip": "tuned", "map": "pagerank"}),
    ("notebooks/README.md", f"off the object: {MEAN} in the vision transformer", "03_tests",
     {"model": "vit-scenes", "measure": "mass", "skip": "tuned", "map": "spectral"}),
    ("notebooks/README.md", f"asked about: {MEAN} before correction", "04_tests",
     {"claim": PREFERS("full relevance")}),
    ("notebooks/README.md", f"on pairs: {MEAN}.", "04_tests", {"claim": PREFERS("gradient_x_input")}),
    ("notebooks/README.md", f"attribution does: {MEAN}.", "04_tests", {"claim": PREFERS("transformer_attribution")}),
    ("notebooks/README.md", f"prefers nothing: {MEAN}.", "04_tests", {"claim": PREFERS("gradcam layer2")}),
    ("notebooks/README.md", f"effective skip {MEAN} is left", "05_tests",
     {"test": "FAF, vit-scenes: gradient_rollout above rollout of the same skip"}),
    ("notebooks/README.md", f"of a gain of {MEAN}", "05_tests",
     {"test": "FAF, vit-scenes: gradient_rollout above rollout"}),
    ("notebooks/README.md", f"lie the gain is {MEAN}", "05_tests",
     {"test": "FAF, vit-scenes-plain: gradient_rollout above rollout"}),
    ("notebooks/README.md", f"plain rollout, by {MEAN}", "05_tests",
     {"test": "average precision, vit-scenes: gradient_rollout above rollout"}),
    ("notebooks/README.md", f"photographs it is above, by {MEAN}", "coco/05_tests",
     {"test": "average precision, deit_tiny: gradient_rollout above rollout of the same skip"}),
    ("notebooks/README.md", f"rollout included: {MEAN}", "05_tests",
     {"test": "average precision, vit-scenes: rollout above contrast"}),
    ("notebooks/README.md", f"above it by {MEAN}", "05_tests",
     {"test": "average precision on 4 × 4, Grad-CAM: transformer above CNN"}),
]  # fmt: skip
#: numbers that are no result of ours: file and sentence
PUBLISHED = [("notebooks/README.md", "6.5 and 3.1 are claimed for larger models")]


def flat(name):
    """Return a file as one line, without code."""
    text = (ROOT / name).read_text()
    return re.sub(r"\s+", " ", re.sub(r"```.*?```|`[^`\n]+`", "", text, flags=re.DOTALL))


def row_of(table, where):
    """Return the one row of ``figures/TABLE.csv`` whose columns have these values."""
    found = pd.read_csv(ROOT / f"figures/{table}.csv")
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1, f"{len(found)} rows of {table}.csv have {where}"
    return found.iloc[0].to_dict()


@pytest.mark.parametrize(("name", "sentence", "table", "where"), SAID, ids=lambda value: str(value)[:40])
def test_a_number_is_that_of_its_table(name, sentence, table, where):
    told = sentence.format(**row_of(table, where))
    assert told in flat(name), f"{name} should say: {told}"


def uncovered(text, sentences):
    """Return the decimal numbers of a text that stand in none of the sentences."""
    for sentence in sentences:
        text = text.replace(sentence, "")
    return re.findall(r"-?\d+\.\d+", text)


@pytest.mark.parametrize("name", NUMBERED)
def test_every_decimal_number_has_its_table(name):
    told = [sentence.format(**row_of(table, where)) for file, sentence, table, where in SAID if file == name]
    told += [sentence for file, sentence in PUBLISHED if file == name]
    assert not (left := uncovered(flat(name), told)), f"add {left} of {name} to SAID, with the table that holds them"


def test_a_number_without_a_table_is_seen():
    assert uncovered("gains 0.19 [0.15, 0.23] and 0.4", ["gains 0.19 [0.15, 0.23]"]) == ["0.4"]


def test_the_first_page_is_short_and_names_every_notebook():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    named = re.findall(r"^\| \[\d\d [^]]+\]\((notebooks/[^)]+)\)", text, re.MULTILINE)
    assert named == [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


def test_the_lines_of_python_print_what_stands_beside_them(capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", num_classes=10).eval()
    exec(code, {"my_module": module, "my_pixels": torch.rand(1, 3, 224, 224)})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print.*?  # (.*)$", code, re.MULTILINE)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10


def links(path):
    """Return the relative addresses of a page, without code and without fragments."""
    text = re.sub(r"```.*?```|`[^`\n]+`", "", path.read_text(), flags=re.DOTALL)
    found = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    return sorted({link.partition("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)})


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_a_readme_lead_somewhere(path):
    assert not [link for link in links(path) if link.startswith("/") or not (path.parent / link).exists()]


def test_there_are_as_many_readmes_as_the_first_one_names():
    first = {(ROOT / link).resolve() for link in links(ROOT / "README.md") if link.endswith("README.md")}
    assert len(first) == 8 and first < {path.resolve() for path in READMES}


REAL = {
    "DeiT-tiny": ("deit_tiny", ("coco", "average_precision", ""), ("coco", "delta_af", "mean"),
                  ("imagenet", "delta_af", "mean")),
    "minilm-sst2": ("minilm-sst2", ("eraser", "average_precision", ""), ("eraser", "delta_af", "mask"),
                    ("sst2", "delta_af", "mask")),
}  # fmt: skip


def rows_of(head):
    """Return the cells of the table whose first heading is ``head``, that heading's row first."""
    text = (ROOT / "figures/real/README.md").read_text()
    lines = re.search(rf"^\| {re.escape(head)} \|.*?\n\n", text, re.DOTALL | re.MULTILINE)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    return [rows[0], *rows[2:]]


@pytest.mark.parametrize("head", REAL)
def test_results_on_real_models_are_those_of_the_stored_table(head):
    found = standings.read(ROOT / "figures/real/real.csv")
    model, *columns = REAL[head]
    heads, *rows = rows_of(head)
    for place, (label, metric, operator) in enumerate(columns, 1):
        own = standings.chosen(found[found.set == label], model, metric, operator).set_index("method")
        told = {method: f"{one['mean']:.2f} [{one.low:.2f}, {one.high:.2f}]" for method, one in own.iterrows()}
        assert {row[0]: row[place] for row in rows} == told
        numbers = re.findall(r"\d+", heads[place]) or re.findall(r"\d+", heads[place - 1])  # "there": as before
        assert own.n.unique().tolist() == [int(numbers[0])]
