"""Judge many maps of a model, where the truth is known and where it is not."""

from xai_utils.evaluation import jitter, on_pictures, on_recall, on_scans, on_words, probe, sanity, scoring
