"""Time language models: relevance against a plain pass and LXT, leaving out, rollout, a widget; memory.

The prompts are random words, on a Llama of SmolLM2's size with random weights: times do not depend on them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.bench.bench_capture import graph_from_the_embedding
from tests.bench.measure import DEVICE, Against, Row, in_turn, named, peak, there
from xai_utils import models
from xai_utils.methods import occlusion, relevance
from xai_utils.methods.observation import observe
from xai_utils.methods.table import attribute
from xai_utils.models import Model
from xai_utils.models.encoding import encode
from xai_utils.widgets import language

RELEVANCE, LEFT_OUT, LIBRARY = 1.6, 1 / 0.85, 1.0
REDRAW = 0.15  # seconds of a redraw of the widget on an answer
PROMPT = "When Mary and John went to the store, John gave a drink to"
CHEAP, MEMORY, LONG = 0.05, 6000, 1024  # of a pass, MB, tokens
#: peak of a process that explains one long prompt, in MB
PEAK = """
import resource, torch
from tests.bench import bench_language as bench
torch.set_num_threads(1)
bench.explain(bench.decoder(), {tokens})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""
#: AttnLRP by LXT, which patches classes for good, so in a process of its own; seconds of the processor. LXT 2.1 asks
#: transformers for two names and one method that it has no more; none of them is used in what is timed.
LXT = """
import torch
from transformers import pytorch_utils
for name in ("find_pruneable_heads_and_indices", "prune_linear_layer"):
    if not hasattr(pytorch_utils, name):
        setattr(pytorch_utils, name, None)
from lxt.efficient import monkey_patch
from transformers.models.llama import modeling_llama
monkey_patch(modeling_llama)
class Functions(dict):
    def get_interface(self, name, default):
        return self.get(name, default)
modeling_llama.ALL_ATTENTION_FUNCTIONS = Functions(modeling_llama.ALL_ATTENTION_FUNCTIONS)
from tests.bench import bench_language as bench
from tests.bench.measure import in_turn
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
    module = LlamaForCausalLM(config).eval().requires_grad_(False).to(DEVICE)
    return Model("decoder", module, tuple(map(str, range(49152))), 30, 0, None, None, "", "next")


def prompt(tokens: int) -> dict[str, torch.Tensor]:
    """Draw one prompt."""
    ids = torch.randint(5, 49152, (1, tokens), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def explain(model: Model, tokens: int) -> None:
    """Explain one prompt by AttnLRP."""
    relevance.modified_gradient("attnlrp", model, encode(model, prompt(tokens)), [5])


def rows(quick: bool = False) -> Iterator[Row]:
    """Measure one prompt on one thread."""
    tokens, repeats = (16, 1) if quick else (64, 5)
    model = decoder()
    batch = encode(model, prompt(tokens))
    shorter = {name: values[:, 1:].expand(tokens, -1) for name, values in batch.inputs.items()}
    seen = observe(model, prompt(tokens), gradient=False)

    def plain() -> None:
        with graph_from_the_embedding(model.module):
            model.logits(batch.inputs)[:, 5].sum().backward()

    @torch.inference_mode()
    def own() -> None:
        model.logits(shorter)

    @torch.inference_mode()
    def forward() -> None:
        model.logits(batch.inputs)

    works: dict[str, Callable[[], object]] = {
        "plain": plain,
        "AttnLRP": lambda: explain(model, tokens),
        "CP-LRP": lambda: relevance.modified_gradient("cp", model, batch, [5]),
        "forward": forward,
        "rollout": lambda: attribute("rollout", seen),
    }
    times, case = in_turn(works, repeats), f"language model of 135 M weights, {tokens} tokens"
    base = Against("forward + backward", times["plain"], RELEVANCE)
    yield Row(f"AttnLRP, {case}", times["AttnLRP"], base, _library(tokens, repeats), peak(works["AttnLRP"]))
    yield Row(f"CP-LRP, {case}", times["CP-LRP"], base, None, peak(works["CP-LRP"]))
    yield Row(f"rollout from its maps, {case}", times["rollout"], Against("forward", times["forward"], CHEAP))
    works = {"plain": own, "ours": lambda: occlusion.leave_one_out(model, batch, [5])}
    times = in_turn(works, 1 if quick else 3)
    passes = Against(f"{tokens} passes of {tokens - 1} tokens, one batch", times["plain"], LEFT_OUT)
    yield Row(f"leave one out, {case}", times["ours"], passes, None, peak(works["ours"]))
    yield from _widget(1 if quick else 9)
    yield _memory(64 if quick else LONG)


def _widget(repeats: int) -> Iterator[Row]:
    """Time what the kernel does when a word of the answer is chosen, and when a word of the prompt is taken away."""
    opened = language._Controls(models.load("smollm2", DEVICE), PROMPT, 2, ("attnlrp",))
    word = iter(range(len(PROMPT.split())))

    def chosen() -> None:
        opened.step.value = 1 - opened.step.value

    def masked() -> None:
        opened.masks.children[next(word)].value = True

    def asked() -> None:
        opened.seen.without([1], 0, "delete")

    times = in_turn({"chosen": chosen}, repeats) | in_turn({"masked": masked, "asked": asked}, repeats)
    case = "widget on an answer, smollm2"
    yield Row(f"{case}: another word", times["chosen"], Against("a redraw that feels instant", REDRAW, 1.0))
    both = Against("the same, and the model's pass", REDRAW + times["asked"], 1.0)
    yield Row(f"{case}: a word of the prompt goes", times["masked"], both)


def _library(tokens: int, repeats: int) -> Against:
    """Compare with LXT, or say that it is not there, or why it does not run (it is made for one version)."""
    if not there("lxt"):
        return Against(named("lxt"))
    try:
        return Against(named("lxt"), float(_run(LXT.format(tokens=tokens, repeats=repeats))), LIBRARY)
    except subprocess.CalledProcessError as error:
        return Against(f"{named('lxt')}: {error.stderr.strip().splitlines()[-1][:90]}")


def _memory(tokens: int) -> Row:
    """Explain a long prompt in a process of its own: its whole peak counts, weights and libraries included."""
    case = f"AttnLRP, {tokens} tokens, whole process"
    return Row(case, memory=float(_run(PEAK.format(tokens=tokens))), most=MEMORY)


def _run(code: str) -> str:
    """Run code in a process of its own and return the last line that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip().splitlines()[-1]
