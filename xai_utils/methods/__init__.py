"""Explain: a model and a sample become an attribution. One table of methods."""

from xai_utils.methods import (
    closed_forms,
    contexts,
    input_gradient,
    integrated,
    lime_library,
    nulls,
    observation,
    occlusion,
    relevance,
    stepwise,
)
from xai_utils.methods.attention import read_row
from xai_utils.methods.observation import Observation, View, observe
from xai_utils.methods.table import METHODS, attribute, explain, methods_for, read_relevance
