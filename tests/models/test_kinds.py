"""A model ready to be explained: its kind, its link, what it reads and what its classes are called."""

import pytest
import tiny
import torch
import transformers as hf

from xai_utils import models
from xai_utils.models.kinds import Model, apart, predicts_words, vocabulary


def multi_label():
    config = hf.BertConfig(**tiny.BERT, problem_type="multi_label_classification")
    return hf.BertForSequenceClassification(config).eval()


def test_links_say_how_logits_become_probabilities():
    assert tiny.model("bert").link == "softmax" and tiny.model("timm-vit").link == "softmax"
    assert models.wrap(multi_label()).link == "sigmoid" and models.wrap(tiny.regression()).link == "none"


def test_the_kind_is_that_of_the_input():
    assert tiny.model("bert").kind == models.wrap(tiny.module("bert")).kind == "text"
    assert tiny.model("timm-vit").kind == models.wrap(tiny.module("timm-vit")).kind == "vision"
    assert models.wrap(tiny.module("bert")).dtype == torch.float64


def test_classes_are_named_or_numbered():
    model = tiny.model("bert")
    assert [model.class_index(one) for one in ("fair", 1, -2)] == [1, 1, 1]
    with pytest.raises(ValueError, match="has no class 'excellent'; such as: bad, fair, good"):
        model.class_index("excellent")
    with pytest.raises(ValueError, match="such as: good"):
        model.class_index("GOO")
    with pytest.raises((ValueError, IndexError), match="class of tiny bert"):
        model.class_index(3)
    assert models.wrap(tiny.module("timm-vit"), tiny.SHAPES).class_index("star") == 2
    assert models.wrap(tiny.module("timm-vit")).classes == ("0", "1", "2", "3", "4")


def test_a_head_of_words_has_the_vocabulary_as_classes():
    module = hf.BertForMaskedLM(hf.BertConfig(**tiny.BERT)).eval()
    loaded = predicts_words(module, tiny.tokenizer())
    assert loaded.head == "mask" and loaded.classes == vocabulary(tiny.tokenizer())
    assert loaded.classes[tiny.tokenizer().mask_token_id] == "[MASK]"
    model = Model("words", module, loaded.classes, 3, 0, tiny.tokenizer(), None, "", "mask")
    ids = torch.tensor([[1, 4, 7, 2], [1, 6, 4, 2]])
    assert model.reading({"input_ids": ids}).tolist() == [1, 2]
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    whole = module(**given).logits
    torch.testing.assert_close(model.logits(given), torch.stack([whole[0, 1], whole[1, 2]]))
    for wrong in ([[1, 6, 7, 2]], [[1, 4, 4, 2]]):
        with pytest.raises(ValueError, match=r"\[MASK\]; expected exactly one"):
            model.reading({"input_ids": torch.tensor(wrong)})


def test_a_model_that_gives_something_else_than_words_is_named():
    model = Model("classes", tiny.module("bert"), ("x",) * 50, 3, 0, tiny.tokenizer(), None, "", "mask")
    ids = torch.tensor([[1, 4, 7, 2]])
    with pytest.raises(ValueError, match="classes does not predict words"):
        model.logits({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def test_rows_of_a_mask_are_sorted_into_what_is_taken_together():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 0]])
    assert [(rows.tolist(), length) for rows, length in apart(mask, "equal")] == [([0, 2], 2), ([1], 3)]
    assert [(rows.tolist(), length) for rows, length in apart(mask, "alone")] == [([0], 2), ([1], 3), ([2], 2)]


def test_the_vocabulary_is_met_only_where_the_answer_is_read():
    module, seen = hf.BertForMaskedLM(hf.BertConfig(**tiny.BERT)).eval(), []
    decoder = module.get_output_embeddings()
    watching = decoder.register_forward_hook(lambda _, given, found: seen.append(found.shape[:2]))
    model = Model("words", module, vocabulary(tiny.tokenizer()), 3, 0, tiny.tokenizer(), None, "", "mask")
    ids = torch.tensor([[1, 4, 7, 2], [1, 6, 4, 2]])
    model.logits({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert seen == [(2, 1)]
    watching.remove()
    assert not decoder._forward_pre_hooks and not decoder._forward_hooks, "the model is itself again"
