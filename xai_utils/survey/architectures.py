"""Every method on a tiny model of every family: what works, what is refused and why, and how that was checked.

Models have random weights and compute in float64, so that a difference is an error and not noise. For each method a
batch of a short and a long sample, from tokenizers that pad on the right and on the left, is compared with the samples
alone; the model's answers before with those after; attention with what the library itself returns; and sums with what
they have to add up to. What a model without a head is asked is how far it points the way of another sample.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xai_utils import check, files, methods, models, runtime
from xai_utils.models import Model
from xai_utils.result import Attribution
from xai_utils.samples import Picture, Text
from xai_utils.survey.families import FAMILIES, SENTENCES, Family, save

COLUMNS = ("kind", "family", "architecture", "method", "way", "result", "reason", "batch gap", "sum gap",
           "attention gap", "answer change")  #: of the table; gaps are shares of the greatest score  # fmt: skip
NEAR = 1e-5  #: the greatest gap between a batch and a loop, and of a sum; some softmaxes are always in float32
ADDS_UP = ("attention", "rollout", "diffusion_rollout", "selective_rollout", "flow")  #: to 1, over the tokens of a text
WAYS = ("attention", "gradient", "relevance", "hidden", "removal")  #: families of methods that are tried
SUBSET = ("BERT", "Llama", "BART", "Mamba, classes", "ViT", "Swin")  #: of families, for a quick look
OTHER = "the dull film is slow"  #: what texts of a model without a head are compared with
NOTHING = ("every score is zero", "would be empty")  #: what is said of a sample, not of a model


def survey(names: Sequence[str] = ()) -> pd.DataFrame:
    """Try families, all by default; one row for each family and method, see :data:`COLUMNS`."""
    for name in names:
        check.one_of("family", name, tuple(FAMILIES))
    rows = [row for name in names or FAMILIES for row in tried(name)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def tried(name: str) -> list[dict[str, Any]]:
    """Return the rows of one family; a model that is refused as a whole has one."""
    family = FAMILIES[name]
    told = {"kind": family.kind, "family": name, "architecture": family.name}
    with TemporaryDirectory() as folder:
        try:
            model, left = (_loaded(family, Path(folder) / side, side) for side in ("right", "left"))
        except ValueError as error:
            return [told | {"method": "all", "result": "refused", "reason": _plain(str(error), folder)}]
        told["architecture"] = type(model.module).__name__
        return [told | row for row in _rows(model, left, _samples(model))]


def _plain(reason: str, folder: str) -> str:
    """Leave the folder out, which is another one every time."""
    return re.sub(rf"(?:\w+:)*{re.escape(folder)}/\w+", "it", reason)


def _loaded(family: Family, folder: Path, side: str) -> Model:
    folder.mkdir()
    model = models.load(save(family, folder, side=side), dtype="float64")
    if model.classes:
        return model
    other = Text(OTHER) if model.kind == "text" else _noise(2)
    return models.compared(model, {"another": other}, "projection")


def _rows(model: Model, left: Model, some: Sequence[Text | Picture]) -> list[dict[str, Any]]:
    before = _answers(model, some)
    rows = [
        {"method": name, "way": method.family, **_one(name, model, left, some)}
        for name, method in methods.METHODS.items()
        if method.family in WAYS and not (method.family == "hidden" and model.blocks is None and _no_scan(name, model))
    ]
    about = {"attention gap": _own_gap(model, some), "answer change": _change(before, _answers(model, some))}
    return [row | about for row in rows]


def _no_scan(name: str, model: Model) -> bool:
    return "selective scan" in methods.METHODS[name].suits(model)


def _one(name: str, model: Model, left: Model, some: Sequence[Text | Picture]) -> dict[str, Any]:
    """Explain by one method, alone, in a batch, and padded on the other side."""
    try:
        alone = [methods.explain(name, model, one) for one in some]
        batches = [methods.explain(name, each, some) for each in (model, left)]
    except TypeError as error:
        return {"result": "refused", "reason": str(error).partition(": ")[2] or str(error)}
    except ValueError as error:
        said = "no map of these samples" if any(word in str(error) for word in NOTHING) else "refused"
        return {"result": said, "reason": str(error).replace(model.name, "the model")}
    except (RuntimeError, AttributeError, IndexError) as error:  # of a library, which said nothing to a person
        return {"result": "wrong", "reason": f"{type(error).__name__}: {error}"}
    gap = max(_gap(one, own) for batch in batches for one, own in zip(batch, alone, strict=True))
    sums = max(_sum_gap(name, model, one) for one in alone)
    told = {"batch gap": gap, "sum gap": sums, "reason": ""}
    if name == "integrated_gradients" and gap <= NEAR and not all(one.details["converged"] for one in alone):
        return {**told, "result": "not complete", "reason": "it misses the sum after its last step, and says so."}
    right = gap <= NEAR and (name == "integrated_gradients" or not sums > NEAR)
    return {**told, "result": "works" if right else "wrong"}


def _gap(one: Attribution, own: Attribution) -> float:
    if one.labels != own.labels or one.scores.shape != own.scores.shape:
        return float("inf")
    return float((one.scores - own.scores).abs().max() / own.scores.abs().max())


def _sum_gap(name: str, model: Model, found: Attribution) -> float:
    """Return by how much a sum is missed; NaN where nothing has to add up."""
    if name == "integrated_gradients":
        return float(found.details["relative_gap"])
    return abs(float(found.scores.sum()) - 1) if name in ADDS_UP and model.kind == "text" else float("nan")


def _samples(model: Model) -> list[Text] | list[Picture]:
    if model.kind == "vision":
        return [_noise(0), _noise(1)]
    told = [one.replace(" plot", " [MASK]").replace(" slow", " [MASK]") for one in SENTENCES]
    return [Text(one, one) for one in (told if model.head == "mask" else SENTENCES)]


def _noise(seed: int) -> Picture:
    return Picture(np.random.default_rng(seed).random((3, 40, 48), dtype=np.float32), f"noise {seed}", {})


def _answers(model: Model, some: Sequence[Text | Picture]) -> list[Tensor]:
    with torch.inference_mode():
        return [model.run(models.encode(model, [one]).inputs) for one in some]


def _change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(before, after, strict=True))


def _own_gap(model: Model, some: Sequence[Text | Picture]) -> float:
    """Compare attention with what transformers itself returns from a copy; NaN where it returns none that is read."""
    if not hasattr(model.module, "set_attn_implementation") or methods.METHODS["attention"].suits(model):
        return float("nan")
    plain: Any = deepcopy(model.module)
    plain.set_attn_implementation("eager")
    gaps = [float("nan")]
    for one in some:
        with torch.inference_mode():
            own = getattr(plain(**models.encode(model, [one]).inputs, output_attentions=True), "attentions", None)
        if own:
            gaps.append(float((methods.observe(model, [one], gradient=False).attention - torch.stack(own)).abs().max()))
    return max(gaps[1:], default=float("nan"))


def written(found: pd.DataFrame, out: Path, command: str) -> None:
    """Write the table as ``OUT.csv``, and for readers as ``OUT.md``, with the command and the versions."""
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out.with_suffix(".csv"), found.to_csv(index=False, float_format="%.1e", lineterminator="\n"))
    files.write(out.with_name("ARCHITECTURES.md"), _page(found, command))


def _page(found: pd.DataFrame, command: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in runtime.versions().items() if name in SHOWN)
    lines = [_line(rows) for _, rows in found.groupby("family", sort=False)]
    head = "| " + " | ".join(("family", "class", *WAYS, "batch gap", "attention gap", "refused, because")) + " |"
    rule = "|" + "---|" * (len(WAYS) + 5)
    return "\n".join([TITLE.format(command=command, versions=versions, families=len(lines)), head, rule, *lines, ""])


def _line(rows: pd.DataFrame) -> str:
    """Return one family: how many methods of each way work, of how many."""
    first = rows.iloc[0]
    counts = [_count(rows[rows["way"] == way]) if "way" in rows else "–" for way in WAYS]
    refused = rows[rows["result"] == "refused"]["reason"].drop_duplicates()
    because = "<br>".join(reason.replace("|", "/").split(". ")[0].rstrip(".") for reason in refused)
    gaps = [f"{rows[name].max():.0e}" if rows[name].notna().any() else "–" for name in ("batch gap", "attention gap")]
    return "| " + " | ".join((first["family"], first["architecture"], *counts, *gaps, because)) + " |"


def _count(rows: pd.DataFrame) -> str:
    return f"{(rows['result'] == 'works').sum()} of {len(rows)}" if len(rows) else "–"


SHOWN = ("python", "torch", "transformers", "timm", "captum")
TITLE = """# Which architectures can be explained

{families} families as tiny models with random weights, in float64; written by `{command}` with {versions}.

"Works" means: a short and a long sample in one batch, padded on either side, give what each gives alone, up to 1e-5 of
the greatest score ("batch gap" is the greatest difference); shares of a text add up to 1; integrated gradients add up,
within 2 %, to the difference of the scores; and the model's answers are the same afterwards. "Attention gap" is the
greatest difference to the attention that transformers itself returns. Everything else is refused, with the reason. A
method that has nothing to say about these two samples (a map of zeros), or integrated gradients that do not get there
and say so, are not counted. A model without a head is asked how far its embedding points the way of another sample's
(`models.compared`, "projection"). Every method is a row of `architectures.csv`.
"""
