"""Time language models: relevance against a plain pass and the published library, leaving out, rollout; peak memory.

The prompts are random words, on a Llama of SmolLM2's size with random weights: times do not depend on them.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.bench.bench_capture import eager, graph_from_the_embedding, in_turn, row
from xai_utils.methods import occlusion, relevance
from xai_utils.methods.observation import observe
from xai_utils.methods.table import attribute
from xai_utils.models import Model
from xai_utils.models.encoding import encode

RELEVANCE, LEFT_OUT, LIBRARY = 1.6, 1 / 0.85, 1.0
MEMORY, LONG = 6.0, 1024  # GB, tokens
#: peak of a process that explains one long prompt, in GB
PEAK = """
import resource, torch
from tests.bench import bench_language as bench
torch.set_num_threads(1)
bench.explain(bench.decoder(), {tokens})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
#: AttnLRP by LXT, which patches classes for good, so in a process of its own; seconds of the processor
LXT = """
import torch
from lxt.efficient import monkey_patch
from transformers.models.llama import modeling_llama
monkey_patch(modeling_llama)
from tests.bench import bench_language as bench
from tests.bench.bench_capture import in_turn
torch.set_num_threads(1)
model = bench.decoder()
ids = bench.prompt({tokens})["input_ids"]
def work():
    embedded = model.module.get_input_embeddings()(ids).requires_grad_()
    model.module(inputs_embeds=embedded, use_cache=False, logits_to_keep=1).logits[0, -1, 5].backward()
    (embedded * embedded.grad).sum(-1)
print(in_turn({{"lxt": work}}, {repeats})["lxt"])
"""


def decoder() -> Model:
    """Build a Llama of SmolLM2-135M's size with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
    )  # fmt: skip
    module = LlamaForCausalLM(config).eval().requires_grad_(False)
    return Model("decoder", module, tuple(map(str, range(49152))), 30, 0, None, None, "", "next")


def prompt(tokens: int) -> dict[str, torch.Tensor]:
    """Draw one prompt."""
    ids = torch.randint(5, 49152, (1, tokens), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def explain(model: Model, tokens: int) -> None:
    """Explain one prompt by AttnLRP."""
    relevance.modified_gradient("attnlrp", model, encode(model, prompt(tokens)), [5])


def rows(quick: bool = False) -> list[dict[str, object]]:
    """Measure one prompt on one thread."""
    tokens, repeats = (16, 1) if quick else (64, 5)
    model = decoder()
    batch = encode(model, prompt(tokens))
    shorter = {name: values[:, 1:].expand(tokens, -1) for name, values in batch.inputs.items()}
    seen = observe(model, prompt(tokens), gradient=False)

    def plain() -> None:
        with graph_from_the_embedding(model.module):
            model.logits(batch.inputs)[:, 5].sum().backward()

    def plain_eager() -> None:
        with eager(model.module):
            plain()

    def own() -> None:
        with torch.inference_mode():
            model.logits(shorter)

    def forward() -> None:
        with torch.inference_mode():
            model.logits(batch.inputs)

    base, passes = "forward + backward", f"{tokens} plain passes of {tokens - 1} tokens, one batch"
    works = {
        base: plain,
        f"eager {base}": plain_eager,
        "AttnLRP": lambda: explain(model, tokens),
        "CP-LRP": lambda: relevance.modified_gradient("cp", model, batch, [5]),
        "forward": forward,
        "rollout, given the maps": lambda: attribute("rollout", seen),
    }
    times = in_turn(works, repeats)
    slow = in_turn(
        {passes: own, "leave one out": lambda: occlusion.leave_one_out(model, batch, [5])}, 1 if quick else 3
    )
    case = f"language model of 135 M, {tokens} tokens"
    return [
        row(case, "AttnLRP", base, times, RELEVANCE),
        row(case, "AttnLRP", f"eager {base}", times),
        row(case, "CP-LRP", base, times, RELEVANCE),
        row(case, "rollout, given the maps", "forward", times),
        row(case, "leave one out", passes, slow, LEFT_OUT),
        _library(case, times["AttnLRP"], tokens, repeats),
        _memory(64 if quick else LONG),
    ]


def _library(case: str, ours: float, tokens: int, repeats: int) -> dict[str, object]:
    """Compare with LXT, or say that it is not there."""
    if importlib.util.find_spec("lxt") is None:
        return {"case": case, "ours": "AttnLRP", "compared with": "LXT: not installed, skipped"}
    try:
        theirs = float(_run(LXT.format(tokens=tokens, repeats=repeats)))
    except subprocess.CalledProcessError as error:  # made for another version of transformers
        return {"case": case, "ours": "AttnLRP", "compared with": f"LXT: {error.stderr.strip().splitlines()[-1][:90]}"}
    return row(case, "AttnLRP", "LXT", {"AttnLRP": ours, "LXT": theirs}, LIBRARY)


def _memory(tokens: int) -> dict[str, object]:
    peak = float(_run(PEAK.format(tokens=tokens)))
    ours = f"AttnLRP of {tokens} tokens, peak {peak:.1f} GB"
    return {"case": "memory of a process", "ours": ours, "compared with": f"{MEMORY:g} GB", "ratio": peak / MEMORY,
            "target": 1.0}  # fmt: skip


def _run(code: str) -> str:
    """Run code in a process of its own and return the last line that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip().splitlines()[-1]
