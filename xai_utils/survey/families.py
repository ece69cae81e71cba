"""Architectures as tiny models with random weights, saved as people save theirs, so that no network is needed.

Weights are drawn large, so that attention is uneven and every part of a model matters to its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

#: what all text models share, in the names that transformers maps to each architecture's own
TEXT: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 3,
}  # fmt: skip
ROTARY: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 6}
VISION: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 40, "num_labels": 5,
}  # fmt: skip
TIMM: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 4, "num_classes": 5}
STAGES: dict[str, Any] = {"num_labels": 5, "image_size": 32}
CONVOLUTIONS: dict[str, Any] = {"num_labels": 5, "image_size": 64}  #: their last stage is 32 times smaller
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
WORDS = (
    "the a film plot is was not very dull warm funny slow and but of two friends . , it he she we they said in".split()
)
SENTENCES = ("a warm plot", "two funny friends and the very warm film of two dull friends , but it was not slow .")


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        kind: ``"text"``, ``"language"``, ``"vision"``, ``"state space"`` or ``"other heads"``.
        name: of the architecture in transformers or timm.
        head: transformers' automatic class for its head, such as ``"SequenceClassification"``; ``""`` for timm.
        shape: what its configuration is told.
        loader: what stands before the folder in a model's name.
        scale: of the weights; smaller where large ones overflow.
    """

    kind: str
    name: str
    head: str = "SequenceClassification"
    shape: Mapping[str, Any] = field(default_factory=dict)
    loader: str = "hf"
    scale: float = 1.0


def _text(name: str, **own: Any) -> Family:
    return Family("text", name, shape=TEXT | own)


def _without(name: str, left_out: str, **own: Any) -> Family:
    """Describe a text model that has no such setting."""
    shared = {key: value for key, value in TEXT.items() if key != left_out}
    return Family("text", name, shape=shared | own)


def _language(name: str, **own: Any) -> Family:
    return Family("language", name, "CausalLM", TEXT | own, "lm")


def _vision(name: str, head: str = "ImageClassification", **own: Any) -> Family:
    return Family("vision", name, head, VISION | own)


def _stages(name: str, **own: Any) -> Family:
    return Family("vision", name, "ImageClassification", STAGES | own)


def _convolutions(name: str, **own: Any) -> Family:
    return Family("vision", name, "ImageClassification", CONVOLUTIONS | own)


def _timm(name: str, **own: Any) -> Family:
    return Family("vision", name, "", own, "timm")


_SCANS = {"state_size": 4, "expand": 2, "conv_kernel": 3, "num_labels": 3}
_SCANS2 = {"num_heads": 8, "head_dim": 6, "n_groups": 2, "chunk_size": 8}

FAMILIES: dict[str, Family] = {
    "BERT": _text("bert"),
    "RoBERTa": _text("roberta"),
    "XLM-RoBERTa": _text("xlm-roberta"),
    "CamemBERT": _text("camembert"),
    "DistilBERT": _text("distilbert", hidden_dim=40),
    "ELECTRA": _text("electra", embedding_size=16),
    "ERNIE": _text("ernie"),
    "MegatronBERT": _text("megatron-bert"),
    "RemBERT": _text("rembert", input_embedding_size=16),
    "Data2Vec text": _text("data2vec-text"),
    "BigBird": _text("big_bird", attention_type="original_full"),
    "RoFormer": _text("roformer"),
    "Nyströmformer": _text("nystromformer", num_landmarks=4, segment_means_seq_len=64),
    "ALBERT": _text("albert", embedding_size=16),
    "DeBERTa": _text("deberta", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "DeBERTa v2": _text("deberta-v2", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "MPNet": _text("mpnet"),
    "Longformer": _text("longformer", attention_window=[4, 4, 4]),
    "Funnel": _without("funnel", "num_hidden_layers", block_sizes=[1, 1, 1], d_head=6, d_inner=40),
    "SqueezeBERT": _text("squeezebert", embedding_size=24),
    "MobileBERT": Family("text", "mobilebert", shape=TEXT | {"intra_bottleneck_size": 24, "embedding_size": 24,
                         "true_hidden_size": 24}, scale=0.3),
    "ConvBERT": _text("convbert", head_ratio=2, conv_kernel_size=3),
    "FNet": _text("fnet"),
    "ModernBERT": _text("modernbert", global_attn_every_n_layers=2, local_attention=8),
    "EuroBERT": _text("eurobert", num_key_value_heads=2, head_dim=6),
    "XLNet": _without("xlnet", "max_position_embeddings", d_inner=40, d_head=6),
    "XLM-RoBERTa XL": _text("xlm-roberta-xl"),
    "X-MOD": _text("xmod", languages=["en"], default_language="en"),
    "RoCBert": _text("roc_bert"),
    "LUKE": _text("luke", entity_vocab_size=10, entity_emb_size=8),
    "ESM": _text("esm", token_dropout=True, mask_token_id=4, position_embedding_type="rotary"),
    "I-BERT": _text("ibert"),
    "YOSO": _text("yoso"),
    "CANINE": _text("canine"),
    "FlauBERT": _text("flaubert", emb_dim=24, n_layers=3, n_heads=4),
    "XLM": _text("xlm", emb_dim=24, n_layers=3, n_heads=4),
    "GPT-2": _text("gpt2"),
    "GPT-Neo": _text("gpt_neo", attention_types=[[["global", "local", "global"], 1]], num_layers=3),
    "GPT-NeoX": _text("gpt_neox"),
    "OPT": _text("opt", ffn_dim=40, word_embed_proj_dim=24),
    "BLOOM": _text("bloom"),
    "Llama": _text("llama", **ROTARY),
    "Mistral": _text("mistral", **ROTARY),
    "Qwen2": _text("qwen2", **ROTARY),
    "Qwen3": _text("qwen3", **ROTARY),
    "Gemma": _text("gemma", **ROTARY),
    "BART": _text("bart", d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                  decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40),
    "T5": _text("t5", d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4, decoder_start_token_id=0),
    "BERT, named entities": Family("other heads", "bert", "TokenClassification", TEXT),
    "DistilBERT, answers in a text": Family("other heads", "distilbert", "QuestionAnswering", TEXT | {"num_labels": 2}),
    "RoBERTa, several choices": Family("other heads", "roberta", "MultipleChoice", TEXT),
    "BERT, masked words": Family("other heads", "bert", "MaskedLM", TEXT, "mlm"),
    "BERT without a head": Family("other heads", "bert", "", TEXT),
    "GPT-2, next words": _language("gpt2"),
    "GPT-NeoX, next words": _language("gpt_neox"),
    "OPT, next words": _language("opt", ffn_dim=40, word_embed_proj_dim=24),
    "BLOOM, next words": _language("bloom"),
    "Llama, next words": _language("llama", **ROTARY),
    "Mistral, next words": _language("mistral", **ROTARY),
    "Qwen2, next words": _language("qwen2", **ROTARY),
    "Qwen3, next words": _language("qwen3", **ROTARY),
    "Gemma, next words": _language("gemma", **ROTARY),
    "Gemma 2, next words": _language("gemma2", **ROTARY),
    "Phi, next words": _language("phi", hidden_size=32),
    "Falcon, next words": _language("falcon", new_decoder_architecture=False),
    "OLMo, next words": _language("olmo"),
    "GPT, next words": _language("openai-gpt", n_embd=24, n_layer=3, n_head=4, afn="gelu"),
    "GPT-J, next words": _language("gptj", n_embd=24, n_layer=3, n_head=4, rotary_dim=6),
    "CTRL, next words": _language("ctrl", n_embd=24, n_layer=3, n_head=4, dff=40),
    "MPT, next words": _language("mpt", d_model=24, n_layers=3, n_heads=4, max_seq_len=64),
    "Cohere, next words": _language("cohere", **ROTARY),
    "Granite, next words": _language("granite", **ROTARY),
    "Phi-3, next words": _language("phi3", **ROTARY),
    "LFM2, next words": _language("lfm2", layer_types=["conv", "full_attention", "conv"], **ROTARY),
    "RWKV, next words": Family("state space", "rwkv", "CausalLM", TEXT | {"attention_hidden_size": 24}, "lm"),
    "Mamba, next words": Family("state space", "mamba", "CausalLM", TEXT | _SCANS, "lm"),
    "Mamba-2, next words": Family("state space", "mamba2", "CausalLM", TEXT | _SCANS | _SCANS2, "lm"),
    "Mamba, classes": Family("state space", "mamba", "classes", TEXT | _SCANS),
    "ViT": _vision("vit"),
    "ViT without a head": _vision("vit", ""),
    "ViT, 32 × 16 pixels": _vision("vit", image_size=[32, 16]),
    "ViT, one channel": _vision("vit", num_channels=1),
    "DeiT": _vision("deit", "ImageClassification"),
    "BEiT": _vision("beit"),
    "Data2Vec vision": _vision("data2vec-vision"),
    "DINOv2": _vision("dinov2"),
    "DINOv2 without a head": _vision("dinov2", ""),
    "DINOv2, registers": _vision("dinov2_with_registers", num_register_tokens=4),
    "ViT-MSN": _vision("vit_msn"),
    "DINOv3 without a head": _vision("dinov3_vit", "", num_attention_heads=3),
    "I-JEPA": _vision("ijepa"),
    "ViT MAE without a head": _vision("vit_mae", ""),
    "CLIP": Family("vision", "clip", "ImageClassification", {"num_labels": 5, "projection_dim": 16,
                   "vision_config": VISION, "text_config": TEXT}),
    "SigLIP": Family("vision", "siglip", "ImageClassification", {"num_labels": 5, "vision_config": VISION,
                     "text_config": TEXT}),
    "Swin": _stages("swin", patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4),
    "SwinV2": _stages("swinv2", patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4),
    "ConvNeXt": _convolutions("convnext", hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1]),
    "ResNet": _convolutions("resnet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "RegNet": _convolutions("regnet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
    "MobileViT": _stages("mobilevit", hidden_sizes=[16, 24, 24], neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
                         num_attention_heads=4, patch_size=2),
    "LeViT": _stages("levit", hidden_sizes=[16, 24, 32], num_attention_heads=[2, 3, 4], depths=[1, 1, 1],
                     key_dim=[8, 8, 8]),
    "PoolFormer": _convolutions("poolformer", hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1]),
    "SegFormer": _stages("segformer", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], sr_ratios=[4, 2, 1, 1],
                         num_attention_heads=[1, 2, 3, 4]),
    "EfficientNet": _convolutions("efficientnet", width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320),
    "PVT": _stages("pvt", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 3, 4]),
    "timm ViT": _timm("vit_tiny_patch16_224", **TIMM),
    "timm ViT, mean of the patches": _timm("vit_tiny_patch16_224", **TIMM, global_pool="avg", class_token=False),
    "timm DeiT, distilled": _timm("deit_tiny_distilled_patch16_224", **TIMM),
    "timm DINOv2 without a head": _timm("vit_small_patch14_reg4_dinov2", **(TIMM | {"num_classes": 0})),
    "timm SigLIP without a head": _timm("vit_base_patch16_siglip_224", **(TIMM | {"num_classes": 0})),
    "timm BEiT": _timm("beit_base_patch16_224", **TIMM),
    "timm EVA": _timm("eva02_tiny_patch14_224", **(TIMM | {"embed_dim": 32})),
    "timm Swin": _timm("swin_tiny_patch4_window7_224", img_size=32, patch_size=4, window_size=4, embed_dim=16,
                       depths=(1, 1), num_heads=(2, 4), num_classes=5),
    "timm ResNet": _timm("resnet18", num_classes=5),
    "timm ConvNeXt": _timm("convnext_atto", num_classes=5, depths=(1, 1, 1, 1), dims=(8, 12, 16, 24)),
    "timm RegNet": _timm("regnetx_002", num_classes=5),
    "timm MobileNetV2": _timm("mobilenetv2_035", num_classes=5),
    "timm PVT v2": _timm("pvt_v2_b0", num_classes=5, depths=(1, 1, 1, 1), embed_dims=(8, 16, 24, 32),
                         num_heads=(1, 2, 3, 4)),
}  # fmt: skip


def save(family: Family, folder: Path, seed: int = 0, side: str = "right") -> str:
    """Save a tiny model of a family in a folder; return the name that :func:`models.load` takes."""
    torch.manual_seed(seed)
    module = sharpened(BUILD.get(family.loader, _transformers)(family).eval(), seed, family.scale)
    if family.loader == "timm":
        return _save_timm(family, module, folder)
    module.save_pretrained(folder)  # type: ignore[operator]
    if family.kind == "vision":
        _processor(family).save_pretrained(folder)
    else:
        tokenizer(begins=family.kind in ("text", "other heads"), side=side).save_pretrained(folder)
    return f"{family.loader}:{folder}"


def sharpened(module: nn.Module, seed: int, scale: float = 1.0) -> nn.Module:
    """Draw large weights, and scales of norms about one."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=noise)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * drawn)
            elif parameter.ndim > 1 or name.endswith("bias"):
                fan = parameter[0].numel() if parameter.ndim > 1 else parameter.numel()
                parameter.copy_(scale * drawn * (0.5 if "embed" in name else 1.0 / max(fan, 9) ** 0.5))
    return module


def tokenizer(begins: bool = True, side: str = "right") -> Any:
    """Build a tokenizer of whole words, in the manner of BERT, or without [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIAL, *WORDS))}, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    if begins:
        built.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        mask_token="[MASK]", bos_token="[CLS]", eos_token="[SEP]", model_max_length=64, padding_side=side,
    )  # fmt: skip


def _transformers(family: Family) -> nn.Module:
    import transformers

    config = transformers.AutoConfig.for_model(family.name, **family.shape)
    if family.head == "classes":
        from xai_utils.models.mamba_classifier import MambaClassifier

        return MambaClassifier(config)  # type: ignore[arg-type]
    auto = getattr(transformers, f"AutoModelFor{family.head}" if family.head else "AutoModel")
    config.architectures = []  # not None, which from_config cannot take
    return auto.from_config(config)  # type: ignore[no-any-return]


def _of_timm(family: Family) -> nn.Module:
    import timm

    return timm.create_model(family.name, **family.shape)


BUILD: dict[str, Callable[[Family], nn.Module]] = {"timm": _of_timm}


def _save_timm(family: Family, module: Any, folder: Path) -> str:
    from timm.models import save_for_hf

    size = family.shape.get("img_size", 64)
    module.pretrained_cfg.update(input_size=(3, size, size), crop_pct=1.0, num_classes=family.shape["num_classes"])
    save_for_hf(module, str(folder), model_args=dict(family.shape))
    return f"timm:local-dir:{folder}"


def _processor(family: Family) -> Any:
    from transformers import ViTImageProcessor

    shape = family.shape.get("vision_config", family.shape)
    size = shape["image_size"]
    rows, columns = size if isinstance(size, list) else (size, size)
    channels = shape.get("num_channels", 3)
    return ViTImageProcessor(
        size={"height": rows, "width": columns}, image_mean=[0.5, 0.4, 0.3][:channels],
        image_std=[0.25, 0.2, 0.3][:channels],
    )  # fmt: skip
