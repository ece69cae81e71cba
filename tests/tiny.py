"""Tiny seeded models of every family, built from configurations, so that tests need no network.

Weights are drawn large, so that attention is uneven and every part of a model matters to its answer.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import timm
import torch
import transformers as hf
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from xai_utils.models import Model, Preprocessing, state_sha256
from xai_utils.models.attention_classifier import AttentionClassifier, Settings, word_tokenizer
from xai_utils.models.kinds import predicts_words
from xai_utils.models.vim import Vim
from xai_utils.samples import Picture, Text

BLOCKS, HEADS, WIDTH, SIDE, PATCH = 3, 4, 24, 32, 8
GRID = (SIDE // PATCH, SIDE // PATCH)
RATINGS = ("bad", "fair", "good")
SHAPES = ("circle", "square", "star", "moon", "cross")
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
WORDS = "the a film plot is was not very dull warm funny slow and but of two friends . ,".split()

BERT = {
    "vocab_size": len(SPECIAL) + len(WORDS), "hidden_size": WIDTH, "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS, "intermediate_size": 40, "max_position_embeddings": 32, "type_vocab_size": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": len(RATINGS),
}  # fmt: skip
DISTIL = {"vocab_size": BERT["vocab_size"], "dim": WIDTH, "hidden_dim": 40, "n_layers": BLOCKS, "n_heads": HEADS,
          "max_position_embeddings": 32, "pad_token_id": 0, "num_labels": len(RATINGS)}  # fmt: skip
GPT = {"vocab_size": BERT["vocab_size"], "n_embd": WIDTH, "n_layer": BLOCKS, "n_head": HEADS, "n_positions": 32,
       "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": len(RATINGS)}  # fmt: skip
VIT = {
    "image_size": SIDE, "patch_size": PATCH, "hidden_size": WIDTH, "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS, "intermediate_size": 40, "num_labels": len(SHAPES),
}  # fmt: skip
TIMM = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": BLOCKS, "num_heads": HEADS,
        "num_classes": len(SHAPES)}  # fmt: skip

_TEXT: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**BERT)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**BERT)),
    "electra": lambda: hf.ElectraForSequenceClassification(hf.ElectraConfig(**BERT, embedding_size=16)),
    "distilbert": lambda: hf.DistilBertForSequenceClassification(hf.DistilBertConfig(**DISTIL)),
    "gpt2": lambda: hf.GPT2ForSequenceClassification(hf.GPT2Config(**GPT)),
}
_VISION: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT)),
    "deit": lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**VIT)),
    "timm-vit": lambda: timm.create_model("vit_tiny_patch16_224", **TIMM),
    "timm-distilled": lambda: timm.create_model("deit_tiny_distilled_patch16_224", **TIMM),
    "timm-registers": lambda: timm.create_model("vit_small_patch14_reg4_dinov2", **TIMM),
}
_OTHER: dict[str, Callable[[], nn.Module]] = {
    "swin": lambda: SwinTransformer(
        img_size=SIDE,
        patch_size=4,
        window_size=4,
        embed_dim=16,
        depths=(2, 1),
        num_heads=(2, 4),
        num_classes=len(SHAPES),
    ),
    "resnet": lambda: ResNet(  # with a last stage of several places
        BasicBlock, layers=[1, 1, 1, 1], channels=[8, 8, 16, 16], num_classes=len(SHAPES), output_stride=16
    ),
    "vim": lambda: Vim(SIDE, PATCH, embed_dim=WIDTH, depth=BLOCKS, num_classes=len(SHAPES), d_state=4),
}
TEXT, VISION, OTHER = tuple(_TEXT), tuple(_VISION), tuple(_OTHER)
ALL = TEXT + VISION
PREFIX = {"vit": 1, "deit": 2, "timm-vit": 1, "timm-distilled": 2, "timm-registers": 5, "swin": 0, "resnet": 0,
          "vim": 1}  # fmt: skip
ATTENTIONS = {**dict.fromkeys(ALL, BLOCKS), "swin": 3, "resnet": 0, "vim": 0}

SENTENCES = (
    Text("the film is not dull , but slow .", "first"),
    Text("a warm plot", "second"),
    Text("two funny friends and the very warm film of two dull friends .", "third"),
)


def module(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Build a fresh model in evaluation mode; the same arguments give the same weights."""
    torch.manual_seed(seed)
    built = {**_TEXT, **_VISION, **_OTHER}[name]().eval()
    with torch.no_grad():
        for key, parameter in built.named_parameters():
            if "norm" in key.lower() and key.endswith("weight"):
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.normal_(
                    std=0.5 if "embed" in key or "wte" in key else 1.2 / max(parameter.shape[-1], 9) ** 0.5
                )
    return built.to(dtype)


def inputs(name: str, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Draw inputs of a model, all of full length."""
    noise = torch.Generator().manual_seed(seed)
    if name in TEXT:
        ids = torch.randint(len(SPECIAL), BERT["vocab_size"], (batch, 9), generator=noise)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    pixels = torch.randn(batch, 3, SIDE, SIDE, generator=noise, dtype=torch.float64).to(dtype)
    return {"pixel_values" if name in ("vit", "deit") else "x": pixels}


def score(built: nn.Module, given: dict[str, Tensor], index: int = 1) -> Tensor:
    """Return the sum of one logit over the batch."""
    output = built(**given)
    return (output if isinstance(output, Tensor) else output.logits)[:, index].sum()


def wrap(name: str, built: nn.Module) -> Model:
    """Make a :class:`Model` of a module built here."""
    for parameter in built.parameters():
        parameter.requires_grad_(False)
    text = name in TEXT
    preprocessing = None if text else Preprocessing(SIDE, SIDE, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
    return Model(
        f"tiny {name}", built, RATINGS if text else SHAPES, ATTENTIONS[name], PREFIX.get(name, 0),
        tokenizer(cls=name != "gpt2") if text else None, preprocessing, state_sha256(built),
    )  # fmt: skip


def regression() -> nn.Module:
    """Build a BERT with a head of one number."""
    torch.manual_seed(0)
    return hf.BertForSequenceClassification(hf.BertConfig(**{**BERT, "num_labels": 1})).double().eval()


def masked(name: str, built: nn.Module, reader: hf.PreTrainedTokenizerFast) -> Model:
    """Make a :class:`Model` of a module that predicts masked words."""
    found = predicts_words(built, reader)
    return Model(
        name, built, found.classes, built.config.num_hidden_layers, 0, reader, None, state_sha256(built), found.head
    )


@cache
def mlm() -> Model:
    """Return a tiny model of masked words with large random weights, float64."""
    torch.manual_seed(0)
    module = hf.BertForMaskedLM(hf.BertConfig(**BERT)).double().eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.normal_(std=0.3).add_(1.0 if parameter.ndim == 1 else 0.0)
    return masked("tiny mlm", module, tokenizer())


@cache
def model(name: str) -> Model:
    """Return the shared wrapped model: float64 for text, float32 (which pictures are encoded in) for vision."""
    return wrap(name, module(name, dtype=torch.float64 if name in TEXT else torch.float32))


@cache
def tokenizer(cls: bool = True) -> hf.PreTrainedTokenizerFast:
    """Build a tokenizer of whole words, in the manner of BERT, or of GPT-2 without [CLS] and [SEP]."""
    built = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIAL, *WORDS))}, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    if cls:
        built.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        mask_token="[MASK]", model_max_length=32,
    )  # fmt: skip


def samples(name: str, count: int = 3) -> list[Text] | list[Picture]:
    """Return sentences of different lengths, or pictures."""
    if name in TEXT:
        return list(SENTENCES[:count])
    noise = np.random.default_rng(7)
    return [Picture(noise.random((3, SIDE, SIDE), dtype=np.float32), f"noise {i}", {}) for i in range(count)]


@cache
def attention_classifier() -> Model:
    """Build the attention classifier of notebook 07 with large random weights, in double precision."""
    read = word_tokenizer([" ".join(WORDS)], limit=32)
    torch.manual_seed(0)
    settings = Settings(len(read), width=8, key_width=4, value_width=5, heads=3, max_position_embeddings=32)
    built = AttentionClassifier(settings).double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(std=0.7)
    built.requires_grad_(False)
    return Model("tiny attention", built, ("negative", "positive"), 0, 0, read, None, state_sha256(built))
