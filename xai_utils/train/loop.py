"""Train the bundled models again: ``python -m xai_utils train NAME`` (``make train MODEL=NAME``).

This module is the loop: every step draws its batch from the seed, so that an interrupted training goes on from its
checkpoint as if nothing had happened, and ``data/models/NAME`` is written whole or not at all. What is trained, on what
and how, is in the recipes; what a recipe must say is in :mod:`recipe`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from xai_utils import check, files, runtime
from xai_utils.models.bundled import answers_sha256
from xai_utils.train import attention, detector, mamba, masked_words, text, vision
from xai_utils.train.recipe import Recipe

CHECKPOINTS = runtime.ROOT / "checkpoints"
SAVE_EVERY = 120.0  # seconds between checkpoints
RECIPES: dict[str, Callable[..., Recipe]] = {
    "minilm-sst2": text.MiniLMSST2,
    "attention-sst2": attention.AttentionSST2,
    "attention-mlp-sst2": attention.AttentionMLPSST2,
    "bert12-sst2": text.DeepSST2,
    "bert24-sst2": text.DeeperSST2,
    "minilm-mlm": masked_words.MiniLMMLM,
    "tiny-mlm-planted": masked_words.TinyPlanted,
    "mamba-recall": mamba.MambaRecall,
    "mamba-sst2": mamba.MambaSST2,
    "vit-scenes": vision.ViTScenes,
    "vit-scenes-plain": vision.ViTPlain,
    "resnet-scenes": vision.ResNetScenes,
    "vit-shortcut": vision.ViTShortcut,
    "maskrcnn-scenes": detector.MaskRCNNScenes,
    "vim-scenes": vision.VimScenes,
}
OWN_DATA = ("attention-sst2", "minilm-mlm")  # trained on what --data names


def train(
    name: str, recipe: Recipe, out: Path, checkpoint: Path, evaluate_every: int = 0, quiet: bool = False
) -> dict[str, Any]:
    """Train to the end, evaluate, write weights and card to ``out``, and drop the checkpoint; returns the card.

    Args:
        name: name of the model.
        recipe: what to train.
        out: folder to (re)place at the end.
        checkpoint: file to go on from, if it exists, and to save to.
        evaluate_every: also evaluate after this many steps and print it; 0 for never.
        quiet: show no progress.
    """
    torch.set_flush_denormal(True)  # values near 1e-40 make a CPU step ten times slower
    try:
        module, seconds = _fit(name, recipe, checkpoint, evaluate_every, quiet)
        card = _ship(name, recipe, module, out, seconds)
    finally:
        torch.set_flush_denormal(False)
    checkpoint.unlink()  # or the next training would find itself finished
    return card


def _fit(name: str, recipe: Recipe, checkpoint: Path, evaluate_every: int, quiet: bool) -> tuple[nn.Module, float]:
    """Take all steps, from the checkpoint on; return the weights to keep and the seconds it took."""
    torch.manual_seed(recipe.seed)
    module = recipe.build().train()
    optimisers = recipe.optimisers(module)
    peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]
    first, seconds, best = _resume(checkpoint, module, optimisers)
    if first > recipe.steps:
        raise ValueError(f"{checkpoint} is behind step {first}, but {recipe.steps} steps are asked for; remove it.")
    begun = saved = time.monotonic()
    steps = range(first, recipe.steps)
    progress = tqdm(steps, initial=first, total=recipe.steps, desc=name, mininterval=10, disable=quiet)
    for step in progress:
        if _had_enough(recipe, best, step):
            break
        _set_rates(optimisers, peaks, recipe.rate(step))
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        loss = recipe.loss(module, step)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], recipe.clip)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if recipe.select_from and step + 1 >= recipe.select_from and (step + 1) % recipe.select_every == 0:
            best = _better(best, recipe, module, step + 1, quiet)
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            _save_checkpoint(checkpoint, module, optimisers, step + 1, seconds + saved - begun, best)
        if evaluate_every and (step + 1) % evaluate_every == 0:
            tqdm.write(f"step {step + 1}: {_measured(recipe.evaluate, module)}")
    seconds += time.monotonic() - begun
    _save_checkpoint(checkpoint, module, optimisers, recipe.steps, seconds, best)
    if best:
        module.load_state_dict(best["weights"], strict=False)
    return module, seconds


def _had_enough(recipe: Recipe, best: dict[str, Any], step: int) -> bool:
    """Tell whether so many measurements as the recipe has patience for have brought nothing."""
    return bool(best and recipe.patience) and step - best["step"] >= recipe.patience * recipe.select_every


def _set_rates(optimisers: list[Optimizer], peaks: list[list[float]], share: float) -> None:
    for optimiser, peak in zip(optimisers, peaks, strict=True):
        for group, value in zip(optimiser.param_groups, peak, strict=True):
            group["lr"] = value * share


def _measured(measure: Callable[[nn.Module], dict[str, Any]], module: nn.Module) -> dict[str, Any]:
    module.eval()
    with torch.inference_mode():
        measured = measure(module)
    module.train()
    return measured


def _better(best: dict[str, Any], recipe: Recipe, module: nn.Module, step: int, quiet: bool = False) -> dict[str, Any]:
    """Measure the module; return it, copied, if its first accuracy beats the best so far."""
    measured = _measured(recipe.select, module)
    accuracy = next(iter(measured.values()))
    if not quiet:
        tqdm.write(f"step {step}: {measured}")
    if best and accuracy <= best["accuracy"]:
        return best
    weights = {name: tensor.clone() for name, tensor in _trained(module).items()}
    return {"accuracy": accuracy, "step": step, "weights": weights}


def _trained(module: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: weights that are not frozen, and running statistics."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


def _resume(checkpoint: Path, module: nn.Module, optimisers: list[Optimizer]) -> tuple[int, float, dict[str, Any]]:
    """Take over what a checkpoint holds; return the step to go on from, the seconds so far, and the best weights."""
    if not checkpoint.is_file():
        return 0, 0.0, {}
    try:
        state = torch.load(checkpoint, weights_only=True)
        if state["module"].keys() != _trained(module).keys():
            raise ValueError("its weights have other names")
        module.load_state_dict(state["module"], strict=False)
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
    except (EOFError, KeyError, RuntimeError, UnpicklingError, ValueError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{checkpoint} is damaged, or of a recipe that has changed since ({said}); remove it to begin anew."
        ) from error
    return state["step"], state["seconds"], state["best"]


def _save_checkpoint(
    path: Path, module: nn.Module, optimisers: list[Optimizer], step: int, seconds: float, best: dict[str, Any]
) -> None:
    """Save what is trained (frozen weights come from :meth:`Recipe.build`), through a temporary file."""
    state = {
        "module": _trained(module),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "step": step,
        "seconds": seconds,
        "best": best,
    }
    with files.whole(path) as temporary:
        torch.save(state, temporary)


def _ship(name: str, recipe: Recipe, module: nn.Module, out: Path, seconds: float) -> dict[str, Any]:
    """Write the folder of a bundled model, whole or not at all, and return its card."""
    recipe.finish(module)
    measured = _measured(recipe.evaluate, module)
    tensors, facts, extra = recipe.export(module)
    with files.whole_folder(out) as folder:
        file = "adapter_model.safetensors" if "adapter_config.json" in extra else "model.safetensors"
        save_file({key: value.half().contiguous() for key, value in tensors.items()}, folder / file)
        for extra_file, content in extra.items():
            (folder / extra_file).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        card = {
            "name": name,
            "measured": measured,
            **facts,
            "seed": recipe.seed,
            "steps": recipe.steps,
            "minutes": round(seconds / 60, 1),
            "threads": torch.get_num_threads(),
            "repeat": recipe.repeat or f"make train MODEL={name}",
            "files": {path.name: files.sha256(path) for path in sorted(folder.iterdir())},
        }
        card["answers_sha256"] = answers_sha256(card)
        (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def command(
    name: str,
    data: str | None,
    out: Path | None,
    steps: int | None,
    threads: int | None,
    evaluate_every: int = 0,
    seed: int | None = None,
) -> dict[str, Any]:
    """Train one of :data:`RECIPES`, or one of its kind on own texts, and return its card.

    Raises:
        ValueError: an unknown name; data for a recipe that takes none; data or a seed of one's own without a folder of
            its own to write.
    """
    check.one_of("model", name, tuple(RECIPES))
    for what, count in (("steps", steps), ("threads", threads)):
        check.at_least_one(what, 1 if count is None else count)
    if data and (name not in OWN_DATA or not out):
        raise ValueError(f"data belongs to {' and '.join(OWN_DATA)}, and needs --out, so that you see what it replaces")
    if seed is not None and not out:
        raise ValueError("another seed makes another model; it needs --out, so that the bundled one stays.")
    runtime.quiet()
    if threads:
        torch.set_num_threads(threads)
    recipe = RECIPES[name](**({"data": data} if data else {}))
    recipe.steps = steps or recipe.steps
    recipe.seed = recipe.seed if seed is None else seed
    place = out or runtime.DATA / "models" / name
    called = place.name if data else name
    checkpoint = called if seed is None else f"{called}-{seed}"
    return train(called, recipe, place, CHECKPOINTS / f"{checkpoint}.pt", evaluate_every)
