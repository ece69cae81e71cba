"""Random inputs for properties."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

#: Same examples in every run, however slow the machine.
steady = settings(max_examples=40, deadline=None, derandomize=True)

# Axes between the layer and the query.
NO_AXES = st.just(())
SAMPLES = st.tuples(st.integers(1, 3))
SAMPLES_AND_HEADS = st.tuples(st.integers(1, 3), st.integers(1, 4))


@st.composite
def attention_stacks(draw, max_layers=5, max_tokens=9, axes=NO_AXES):
    """Draw ``(layer, *axes, query, key)`` probabilities, from uniform to nearly one-hot."""
    layers, tokens = draw(st.integers(1, max_layers)), draw(st.integers(1, max_tokens))
    sharpness = draw(st.sampled_from([0.0, 1.0, 10.0, 80.0]))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    shape = (layers, *draw(axes), tokens, tokens)
    return (sharpness * torch.randn(shape, generator=noise, dtype=torch.float64)).softmax(-1)


def normal(*shape, seed=0):
    """Draw standard normal numbers, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention(*shape, seed=0, sharpness=1.0):
    """Draw one stack of probabilities of a given shape."""
    return (sharpness * normal(*shape, seed=seed)).softmax(-1)
