"""Which sentences of a prompt made the answer: leave spans out together, and fit how much each of them adds.

Every subset of the spans is a prompt of its own. The number asked for, as a function of which spans are there, is
approached by a sum of one score a span; how well the sum predicts subsets that it was not fitted to is reported too.

Source: Cohen-Wang et al. (2024), ContextCite, arXiv:2409.00729: Eq. 1 (uniform subsets, log-odds of the answer, Lasso)
and the rank correlation on held-out subsets (their LDS).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai_utils import check
from xai_utils.metrics.agreement import spearman
from xai_utils.models import memory, removal
from xai_utils.models.answers import Answer, logits_at, question
from xai_utils.models.kinds import Model
from xai_utils.result import Attribution
from xai_utils.samples.spans import Groups, named, owners, parts

SURE = 1e-12  #: a probability nearer to 1 counts as this far from it, so that its log-odds are finite
KINDS = {"log_odds": "log-odds", "log_probability": "log-probability", "logit": "logit", "difference": "logit"}


def attributed(
    model: Model,
    answer: Answer,
    groups: Groups = "sentences",
    kind: str = "log_odds",
    against: str | int | None = None,
    fitted: int = 64,
    held_out: int = 32,
    seed: int = 0,
) -> Attribution:
    """Score spans of a prompt by what they add to an answer.

    If there are no more subsets than ``fitted + held_out``, all are asked and the scores are exact: the coefficients of
    the best sum over all subsets, which are the Banzhaf values (mean change when a span is added to a random subset of
    the others). Else random subsets are drawn, each once, and the sum is fitted by a Lasso whose strength is chosen by
    cross-validation; it has never seen the held-out subsets.

    Args:
        model: a causal language model.
        answer: prompt and answer, from :func:`answers.given` or :func:`answers.generated`.
        groups: spans of the prompt that are left out, see :func:`spans.named`. A name such as ``"sentences"`` takes all
            of the prompt but the last one, which asks.
        kind: ``"log_odds"`` or ``"log_probability"`` of the whole answer; of an answer of one token also ``"logit"``.
        against: another word; then the difference of the two logits is followed, of an answer of one token.
        fitted: subsets to fit to.
        held_out: subsets to test on.
        seed: of the subsets and folds.

    Returns:
        An attribution whose labels are the names of the groups. Details: ``exact``; ``fitted`` and ``held_out``, how
        many subsets; ``r2`` and ``rank_correlation`` of the sum with the number asked for, on the held-out subsets, or,
        where all were asked, on all of them; ``intercept``; ``whole``, the number with every span there, and
        ``nothing``, with none.

    Raises:
        ValueError: spans outside the prompt, less than two, one without a token, or all of the prompt; another kind; a
            number that no subset changes, or a fit in which no span is left.
    """
    check.at_least_one("held_out", held_out)
    if fitted < 10:
        raise ValueError(f"fitted is {fitted}; expected 10 subsets at least, so that the Lasso can be cross-validated.")
    chosen = "difference" if against is not None else kind
    check.one_of("kind", chosen, tuple(KINDS))
    if len(answer) > 1 and chosen in ("logit", "difference"):
        raise ValueError(f"the answer has {len(answer)} tokens; there is one {chosen} for one only. Take log_odds.")
    known = _groups(answer, groups)
    exact = 2 ** len(known) <= fitted + held_out
    keeps = _all(len(known)) if exact else _drawn(len(known), fitted + held_out, seed)
    values = _values(model, answer, known, torch.from_numpy(keeps), chosen, against).numpy()
    if np.ptp(values) <= 1e-9 * max(np.abs(values).max(), 1.0):
        raise ValueError("the number asked for is the same whichever spans are left out, so no span has a share in it.")
    cut = len(keeps) if exact else fitted + 2
    scores, intercept = _exact(keeps, values) if exact else _lasso(keeps[:cut], values[:cut], seed)
    test = slice(None) if exact else slice(cut, None)
    fit = _fit(keeps[test] @ scores + intercept, values[test])
    if not scores.any():
        raise ValueError(
            f"the Lasso leaves no span (R² {fit['r2']:.2f} on held-out subsets): their effects do not add up, or "
            "fitted is too small."
        )
    ends = {"whole": float(values[keeps.all(1)][0]), "nothing": float(values[~keeps.any(1)][0])}
    numbers = {"exact": exact, "fitted": cut, "held_out": 0 if exact else len(keeps) - cut, "intercept": intercept}
    return Attribution(
        torch.from_numpy(scores), tuple(known), "context_attribution", model.name, None, answer.said.strip(),
        KINDS[chosen], True, details={**numbers, **fit, **ends},
    )  # fmt: skip


def _groups(answer: Answer, groups: Groups) -> dict[str, list[int]]:
    """Return the tokens of every group, by its name."""
    spans: Groups = parts(answer.prompt, groups)[:-1] if isinstance(groups, str) else groups
    known = named(answer.prompt, spans)
    owner = owners(answer.text, answer.spans[: answer.first], list(known.values()))
    found = {name: [i for i, one in enumerate(owner) if one == number] for number, name in enumerate(known)}
    if len(found) < 2:
        raise ValueError(f"the prompt {answer.prompt!r} is {len(found)} span; expected 2 to compare, and what asks.")
    if bare := [name for name, tokens in found.items() if not tokens]:
        raise ValueError(f"the span {bare[0]!r} holds no token of its own; take larger spans.")
    if sum(map(len, found.values())) == answer.first:
        raise ValueError("the spans are the whole prompt, so that nothing is left without them; leave out what asks.")
    return found


def _all(count: int) -> np.ndarray:
    return np.array(list(product((True, False), repeat=count)))


def _drawn(count: int, number: int, seed: int) -> np.ndarray:
    """Draw subsets, each once and each as likely: all spans first, none next, then so many random ones."""
    noise = np.random.default_rng(seed)
    found = dict.fromkeys([(True,) * count, (False,) * count])
    while len(found) < min(number + 2, 2**count):
        found[tuple(noise.random(count) < 0.5)] = None
    return np.array(list(found))


def _values(
    model: Model, answer: Answer, groups: Mapping[str, list[int]], keeps: Tensor, kind: str, against: str | int | None
) -> Tensor:
    """Return the number asked for with some spans there only, ``(subset,)`` float64."""
    batch, steps = answer.batch(model, -1), len(answer)
    replace = removal.replacer(model, batch, "delete")
    asked = question(model, answer, "log_probability" if kind == "log_odds" else kind, against)
    reading = torch.tensor(answer.explained) - 1
    tokens = torch.ones(len(keeps), batch.length(0), dtype=torch.bool)
    for number, own in enumerate(groups.values()):
        tokens[:, own] = keeps[:, number, None]

    @torch.inference_mode()
    def ask(rows: Tensor) -> Tensor:
        places = reading - (~rows).sum(1, keepdim=True)  # all that goes stands before what is read
        logits = logits_at(model, replace(rows.to(model.device)), places.to(model.device)).double()
        return asked.of(list(range(steps)) * len(rows)).score(logits.flatten(0, 1)).view(-1, steps).sum(1).cpu()

    found = memory.in_chunks(ask, tokens, min(64, memory.chunk_size(ask, tokens)))
    if kind != "log_odds":
        return found
    found = found.clamp(max=-SURE)
    return found - torch.log(-torch.expm1(found))


def _exact(keeps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the coefficients of the best sum over all subsets, and its intercept."""
    scores = np.array([values[own].mean() - values[~own].mean() for own in keeps.T])
    return scores, float(values.mean() - scores.sum() / 2)


def _lasso(keeps: np.ndarray, values: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LassoCV
    from sklearn.model_selection import KFold

    folds = KFold(5, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that is perfect
        found = LassoCV(cv=folds, max_iter=10_000).fit(keeps.astype(float), values)
    return found.coef_, float(found.intercept_)


def _fit(predicted: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    spread = ((values - values.mean()) ** 2).sum()
    r2 = 1 - ((values - predicted) ** 2).sum() / spread if spread else np.nan
    flat = np.ptp(predicted) == 0 or np.ptp(values) == 0
    rank = np.nan if flat else float(spearman(torch.from_numpy(predicted), torch.from_numpy(values)))
    return {"r2": float(r2), "rank_correlation": rank}
