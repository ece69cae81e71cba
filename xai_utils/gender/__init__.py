"""The study of notebook 06: directions of gender, what they tell apart, and a planted truth."""

from xai_utils.gender import corpora, held_out, lists, paths, planted_truth, probes, published, removal, vectors
from xai_utils.gender.held_out import carries_over, left_over
from xai_utils.gender.lists import agreement_by_layer, group_differences, impact, job_gap
from xai_utils.gender.paths import attention_by_head, own_shares, reach
from xai_utils.gender.probes import TARGETS, observe
from xai_utils.gender.removal import measure, random_directions
