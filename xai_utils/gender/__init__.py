"""The study of notebook 06: directions of gender, what they tell apart, and a planted truth."""

from xai_utils.gender import corpora, held_out, planted_truth, vectors
