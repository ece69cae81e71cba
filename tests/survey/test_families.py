"""Families of architectures: enough of every kind, saved as people save theirs, and the same each time."""

from collections import Counter

import pytest
import torch

from xai_utils import models
from xai_utils.survey.families import FAMILIES, save, tokenizer


def test_there_are_families_of_every_kind():
    kinds = Counter(family.kind for family in FAMILIES.values())
    assert len(FAMILIES) >= 45 and min(kinds.values()) >= 3
    assert kinds.keys() == {"text", "language", "vision", "state space", "other heads"}


@pytest.mark.parametrize("name", ["BERT", "ViT", "timm ViT"])
def test_a_saved_family_is_loaded_by_its_name_and_is_the_same_each_time(name, tmp_path):
    hashes = []
    for number in "12":
        (tmp_path / number).mkdir()
        hashes.append(models.load(save(FAMILIES[name], tmp_path / number)).sha256)
    assert hashes[0] == hashes[1]


def test_weights_are_large_so_that_every_part_counts(tmp_path):
    module = models.load(save(FAMILIES["BERT"], tmp_path)).module
    attention = module.bert.encoder.layer[0].attention.self.query.weight
    assert 0.1 < float(attention.std()) < 0.4 and not torch.equal(attention[0], attention[1])


def test_the_tokenizer_reads_pairs_and_pads_on_the_side_it_is_told():
    read = tokenizer(side="left")
    assert read("a", "film")["input_ids"] == [1, 6, 2, 7, 2]
    assert read("a", "film", return_token_type_ids=True)["token_type_ids"] == [0, 0, 0, 1, 1]
    assert read(["a", "a film"], padding=True)["input_ids"][0][0] == read.pad_token_id
