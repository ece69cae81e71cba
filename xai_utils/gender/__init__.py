"""The study of notebooks 06 and 12: directions of gender, what they tell apart, what they cost, and known truths."""

from xai_utils.gender import (
    corpora,
    erasure,
    findings,
    held_out,
    lists,
    patching,
    paths,
    planted_truth,
    probes,
    published,
    removal,
    vectors,
)
from xai_utils.gender.held_out import carries_over, left_over
from xai_utils.gender.lists import agreement_by_layer, asked_words, group_differences, hidden_specials, job_gap
from xai_utils.gender.paths import attention_by_head, own_shares, reach
from xai_utils.gender.probes import TARGETS, observe
from xai_utils.gender.removal import controls, measure
