"""Prompts of known cause, many of them: verified, explained by many methods and controls, marked; kept in parts.

The maps that are marked, besides the methods themselves and the rankings that know no model
(:data:`on_prompts.NULLS`):

- ``"…, first last"``: the first token ranked last (:func:`on_prompts.without_first`);
- ``"…, size"``: scores without their sign;
- ``"…, alone"``: the answer explained alone, not against the distractor;
- ``"…, shuffled"``: the same method on the model with all its weights shuffled;
- ``"…, echoed"``: on the prompt with the answer said once more (:func:`prompts.echoed`), where that is verified too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from xai_utils import check, stats
from xai_utils.evaluation import on_prompts, paired, sanity
from xai_utils.evaluation.judged import Maps, Methods
from xai_utils.evaluation.on_prompts import Verified
from xai_utils.models import Model
from xai_utils.samples import prompts
from xai_utils.samples.prompts import Prompt
from xai_utils.sweep import agreement, parts, standings

#: one or two passes a prompt
QUICK: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("attention", {}),
    "rollout": ("rollout", {}),
    "rollout, no sink": ("rollout", {"sink": False}),
    "selective rollout": ("selective_rollout", {}),
    "diffusion rollout": ("diffusion_rollout", {}),
    "gradient rollout": ("gradient_rollout", {}),
    "generic attention": ("generic_attention", {}),
    "AttCAT": ("attcat", {}),
    "gradient norm": ("gradient_norm", {}),
    "gradient × input": ("gradient_x_input", {}),
    "CP-LRP": ("cp_lrp", {}),
    "AttnLRP": ("attnlrp", {}),
}
#: many passes a prompt, for the first prompts only
SLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "leave one out": ("leave_one_out", {"operator": "delete"}),
    "leave one out, the": ("leave_one_out", {"operator": "word"}),
    "integrated gradients": ("integrated_gradients", {"steps": 16, "tolerance": None}),
}
ALONE = ("generic attention", "AttnLRP")
SIGNED = ("AttCAT", "gradient × input", "CP-LRP", "AttnLRP")
SHUFFLED = ("generic attention", "gradient norm", "CP-LRP", "AttnLRP")
ECHOED = ("generic attention", "gradient norm", "CP-LRP", "AttnLRP")
REMOVALS = ("infidelity", "delta_af", "comprehensiveness", "sufficiency", "aopc", "log_odds")  #: that know no cause
PART = 20  #: prompts in one part
RIGHT = "right answers"  #: in :func:`cascade`


def study(
    model: Model, number: int, slow: int, seed: int = 0, folder: str | Path = "", tasks: Sequence[str] = (),
    many: Sequence[str] = tuple(SLOW),
) -> pd.DataFrame:  # fmt: skip
    """Draw prompts of every task, verify them, explain those that are kept, and mark the maps.

    Args:
        model: a language model.
        number: prompts drawn of each task.
        slow: for how many of them the methods of :data:`SLOW` and the echoes are run.
        seed: of the random ranking and of the shuffled weights.
        folder: where the parts are kept, each whole or not at all, and found again; ``""`` keeps nothing.
        tasks: names in :data:`prompts.TASKS`; all by default.
        many: which of :data:`SLOW` are run; all by default.

    Returns:
        A row for each prompt drawn, in rounds of :data:`PART` a task. ``task``, ``prompt``, ``verdict`` and ``echo``
        (why it is dropped, ``""`` if it is kept; ``echo`` of its echoed version, ``"not asked"`` beyond ``slow``),
        then ``"label: measure"`` as in :func:`on_prompts.marks`, NaN where a map was not asked for.

    Raises:
        ValueError: a model that does not say what comes next, an unknown task, or a number below 1.
    """
    check.at_least_one("number", number)
    for name in many:
        check.one_of("many", name, tuple(SLOW))
    tables = []
    for start in tqdm(range(0, number, PART), desc="prompts", disable=None):  # silent unless in a terminal
        count = min(PART, number - start)
        few = min(max(slow - start, 0), count)
        found, files, keys = {}, {}, {}
        for task in tasks or prompts.TASKS:
            about = {"task": task, "from": start, "to": start + count, "slow": few, "seed": seed}
            about |= {} if set(many) == set(SLOW) else {"many": sorted(many)}
            keys[task] = parts.key({"model": model.sha256, **about})
            files[task] = Path(folder) / f"{task}-{start:06d}.parquet"
            found[task] = parts.read(files[task], keys[task]) if folder else None
        missing = {task: prompts.draws(task, count, start) for task, table in found.items() if table is None}
        found |= _marked(model, missing, few, seed, many) if missing else {}
        for task in missing if folder else ():
            parts.write(found[task], files[task], {"key": keys[task]})
        tables += list(found.values())
    return pd.concat(tables, ignore_index=True)


def _marked(
    model: Model, drawn: Mapping[str, Sequence[Prompt]], few: int, seed: int, many: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Mark the prompts of every task; the weights are shuffled once for all of them, which takes seconds."""
    known = {task: on_prompts.verified(model, own) for task, own in drawn.items()}
    with sanity.randomised(model, sanity.layers(model), seed):
        shuffled = {task: _by(model, found.prompts, SHUFFLED) for task, found in known.items() if found.prompts}
    slow = {name: SLOW[name] for name in many}
    return {task: _table(model, found, shuffled.get(task, {}), slow, few, seed) for task, found in known.items()}


def _table(model: Model, found: Verified, shuffled: Maps, slow: Methods, few: int, seed: int) -> pd.DataFrame:
    drawn = found.asked
    echoes = [prompts.echoed(one, behind=i % 2 == 1) for i, one in enumerate(drawn[:few])]
    again = on_prompts.verified(model, echoes).verdicts if echoes else ()
    table = pd.DataFrame({"task": [one.kind for one in drawn], "prompt": [one.name for one in drawn]})
    table["verdict"] = found.verdicts
    table["echo"] = [*again, *["not asked"] * (len(drawn) - few)]
    some = [one for one, verdict in zip(drawn[:few], found.verdicts, strict=False) if not verdict]
    heard = [one for one, verdict in zip(echoes, again, strict=True) if not verdict]
    marks = (found.prompts, partial(_quick, shuffled)), (some, partial(_slow, slow)), (heard, _echoed)
    for explained, mark in marks:
        if explained:
            marked = mark(model, explained, seed)
            marked.columns = [f"{label}: {measure}" for label, measure in marked.columns]
            table = table.join(marked, on="prompt")
    return table


def _by(model: Model, some: Sequence[Prompt], names: Sequence[str], against: bool = True) -> dict[str, Any]:
    return on_prompts.explained(model, some, {name: QUICK[name] for name in names}, against)


def _quick(shuffled: Maps, model: Model, some: Sequence[Prompt], seed: int) -> pd.DataFrame:
    maps = on_prompts.explained(model, some, QUICK)
    alone = _by(model, some, ALONE, against=False)
    everything: Maps = {
        **maps,
        **{f"{name}, first last": on_prompts.without_first(maps[name]) for name in QUICK if "no sink" not in name},
        **_sizes({name: maps[name] for name in SIGNED}),
        **{f"{name}, alone": own for name, own in alone.items()},
        **{f"{name}, shuffled": own for name, own in shuffled.items()},
        "same word": on_prompts.same_word(model, some),
    }
    return on_prompts.marks(model, some, everything, seed)


def _slow(asked: Methods, model: Model, some: Sequence[Prompt], seed: int) -> pd.DataFrame:
    maps = on_prompts.explained(model, some, asked)
    return on_prompts.marks(model, some, {**maps, **_sizes(maps)}, seed).drop(columns=list(on_prompts.NULLS), level=0)


def _echoed(model: Model, some: Sequence[Prompt], seed: int) -> pd.DataFrame:
    maps = _by(model, some, ECHOED)
    table = on_prompts.marks(model, some, {**maps, "same word": on_prompts.same_word(model, some)}, seed)
    table.index = [one.name.removesuffix(":echoed") for one in some]
    return table.rename(columns=lambda label: f"{label}, echoed", level=0)


def _sizes(maps: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {f"{name}, size": [one.scores.abs() for one in own] for name, own in maps.items()}


def marks(study: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the marks of one task's prompts as :func:`on_prompts.marks` does; NaN where none were asked for."""
    check.one_of("task", task, tuple(study.task.unique()))
    chosen = study[study.task == task].set_index("prompt")
    table = chosen[[name for name in chosen if ": " in name]].astype(np.float64)
    table.columns = pd.MultiIndex.from_tuples([tuple(name.rsplit(": ", 1)) for name in table])
    return table


def kept(study: pd.DataFrame) -> pd.DataFrame:
    """Count the prompts of every task that are drawn, kept, and dropped for each reason."""
    said = study.assign(verdict=study.verdict.fillna("").replace("", "kept"))
    counts = said.groupby("task", sort=False).verdict.value_counts().unstack(fill_value=0)
    order = ["kept", *(reason for reason in (*on_prompts.REASONS.values(), on_prompts.UNSAYABLE) if reason in counts)]
    return counts.reindex(columns=order, fill_value=0).assign(drawn=counts.sum(axis=1))[["drawn", *order]]


def summary(
    study: pd.DataFrame, labels: Iterable[str], measure: str, seed: int
) -> dict[str, dict[str, stats.Interval]]:
    """Return the mean of a measure with its interval by task and map; a map that nowhere was asked for is left out."""
    found = {}
    for task in study.task.unique():
        table = marks(study, task)
        there = [
            (label, measure) for label in labels if (label, measure) in table and table[label, measure].notna().any()
        ]
        columns = {key: table[[key]].dropna() for key in there}
        found[task] = {key[0]: on_prompts.intervals(one, seed)[key] for key, one in columns.items()}
    return found


def columns(study: pd.DataFrame) -> list[str]:
    """Return the labels of all maps that a study marks, in its order."""
    return list(dict.fromkeys(name.rsplit(": ", 1)[0] for name in study if ": " in name))


def measured(study: pd.DataFrame, labels: Iterable[str], seed: int) -> pd.DataFrame:
    """Return :func:`summary` of every measure as one table: task, map, measure, mean, low, high, n."""
    chosen = list(labels)
    rows = [
        (task, label, measure, one.mean, one.low, one.high, one.n)
        for measure in on_prompts.MEASURES
        for task, found in summary(study, chosen, measure, seed).items()
        for label, one in found.items()
    ]
    return pd.DataFrame(rows, columns=["task", "map", "measure", "mean", "low", "high", "n"])


def gains(
    study: pd.DataFrame, pairs: Sequence[tuple[str, str]], measures: Sequence[str], seed: int
) -> dict[tuple[str, str, str, str], stats.Gain]:
    """Compare maps in pairs on the prompts that both were asked for: one family of tests over all tasks and measures.

    Args:
        study: from :func:`study`.
        pairs: of labels, ``(one, other)``.
        measures: names in :data:`on_prompts.MEASURES`.
        seed: of intervals and permutations.

    Returns:
        ``(task, one, other, measure)`` to the mean difference, its p adjusted by Holm's method.
    """
    differences = {
        (task, *key): values
        for task in study.task.unique()
        for key, values in paired.differences(marks(study, task), pairs, dict.fromkeys(measures, 1)).items()
    }
    intervals, ps = paired.intervals(differences, seed), paired.p_values(differences, seed)
    return {key: stats.Gain(intervals[key], ps[key]) for key in differences if key in intervals}


def by_template(study: pd.DataFrame, labels: Sequence[str], measure: str) -> pd.DataFrame:
    """Return the mean of a measure on the prompts of each template: they are alike, so one template may carry a mean.

    Args:
        study: from :func:`study`.
        labels: of maps.
        measure: in :data:`on_prompts.MEASURES`.

    Returns:
        A row for each task and template, which is called by its beginning; ``n``, then a column a label.
    """
    kept = study[study.verdict.fillna("") == ""]
    template = [_drawn(name).opening.strip() or "(a subject)" for name in kept.prompt]
    numbers = kept[[f"{label}: {measure}" for label in labels]].astype(float).set_axis(list(labels), axis=1)
    groups = numbers.groupby([kept.task, pd.Series(template, kept.index, name="template")], sort=False)
    table = groups.mean()
    table.insert(0, "n", groups.size())
    return table


def cascade(
    model: Model, study: pd.DataFrame, labels: Sequence[str], depths: Sequence[int], number: int, seed: int = 0
) -> dict[str, dict[str, list[stats.Interval]]]:
    """Shuffle the weights of ever more of the last blocks: does a map follow what the model still says?

    The words' vectors and their readout are one matrix here and stay as they are, and so do the blocks before.

    Args:
        model: has its own weights again afterwards.
        study: from :func:`study`, of the same model.
        labels: in :data:`QUICK`.
        depths: how many blocks are shuffled, from the last one down.
        number: of kept prompts of each task, at most.
        seed: of the shuffling.

    Returns:
        Task to label to average precision at every depth; ``"right answers"`` is the share of prompts on which the
        answer still has the greatest logit of its candidates.

    Raises:
        ValueError: more blocks than there are, or an unknown label.

    Source: the cascading test of Adebayo et al. (2018), arXiv:1810.03292, judged by known causes.
    """
    blocks = [name for name in sanity.layers(model) if name.rpartition(".")[2].isdigit()]
    if wrong := [depth for depth in depths if not 0 <= depth <= len(blocks)]:
        raise ValueError(f"{wrong[0]} blocks are to be shuffled; expected 0 to {len(blocks)}, as {model.name} has.")
    for label in labels:
        check.one_of("label", label, tuple(QUICK))
    kept = study[study.verdict.fillna("") == ""].groupby("task", sort=False)
    some = {str(task): [_drawn(name) for name in own.prompt[:number]] for task, own in kept}
    each = []
    for depth in depths:
        with sanity.randomised(model, blocks[:depth], seed):
            each.append({task: _now(model, own, labels, seed) for task, own in some.items()})
    return {task: {label: [one[task][label] for one in each] for label in (*labels, RIGHT)} for task in some}


def _now(model: Model, some: Sequence[Prompt], labels: Sequence[str], seed: int) -> dict[str, stats.Interval]:
    """Return the average precision of maps of the model as it is now, and how often it is right."""
    right = on_prompts.verified(model, [replace(one, edits=()) for one in some]).right
    marked = on_prompts.marks(model, some, _by(model, some, labels), seed)
    means = {label: stats.mean_interval(marked[label, "precision"].tolist(), seed) for label in labels}
    return {**means, RIGHT: right}


def _drawn(name: str) -> Prompt:
    task, _, seed = name.partition(":")
    return prompts.draw(task, int(seed))


def metrics_ranked(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask whether metrics of removal, which know no cause, rank methods as the known cause does.

    Only prompts of known cause take part. Leaving one out is a removal itself, so everything is asked without it, too.

    Args:
        table: rows of a sweep of the tasks, such as ``sweeps/language.yml``.
        seed: of resampling and permutations.

    Returns:
        :func:`agreement.with_truth` over the tasks, for each way to remove (``operator``, ``""`` for infidelity, which
        has its own) and with one method left out (``without``, or ``""``), ``p`` corrected by Holm's method over all
        of it; and the same task by task.
    """
    known = table[table["sample"].isin(table.loc[table.metric == standings.TRUTH, "sample"])]
    known = known.assign(model=known["sample"].astype(str).str.partition(":")[0])  # a task in place of a model
    tasks = [task for task in prompts.TASKS if (known.model == task).any()]
    whole: list[pd.DataFrame] = []
    each: list[pd.DataFrame] = []
    for way in sorted(known.operator.unique()):
        removals = [name for name in REMOVALS if ((known.metric == name) & (known.operator == way)).any()]
        for without in ("", "leave_one_out") if removals else ():
            own = known[known.operator.isin(["", way]) & (known.method != without)]
            found = agreement.with_truth(own, tasks, seed, removals)
            for rows, one in zip((whole, each), found, strict=True):
                rows.append(one.assign(operator=way, without=without))
    ranks = pd.concat(whole, ignore_index=True)
    ranks["p"] = list(stats.holm({str(n): p for n, p in enumerate(ranks.p)}).values())
    return ranks, pd.concat(each, ignore_index=True)
