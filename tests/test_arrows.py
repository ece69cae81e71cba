"""Which module may import which: the plan of the package as a dictionary."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "xai_utils"

MAY_IMPORT = {
    "check": set(),
    "runtime": set(),
    "claims": set(),
    "scenes": set(),
    "scan": set(),
    "ssm": {"check", "scan", "ssm_pairs"},
    "ssm_pairs": set(),
    "runs": set(),
    "result": {"check"},
    "rollout": {"check"},
    "flow": {"check"},
    "selective": {"check", "rollout"},
    "agreement": set(),
    "nullity": {"encode", "models", "observation"},
    "diffusion": {"check", "rollout"},
    "mixing": {"check"},
    "class_maps": {"check"},
    "propagation": set(),
    "rule_tables": {"propagation"},
    "rules": {"capture", "check", "rule_tables"},
    "relevance": {"check", "class_maps", "encode", "models", "observation", "rollout", "rules"},
    "capture": {"check"},
    "figures": {"runtime"},
    "headless": {"runs"},
    "report_sources": set(),
    "report_tables": {"report_sources"},
    "report_cells": {"report_sources"},
    "report_links": set(),
    "report_pages": {"report_cells", "report_sources", "report_tables"},
    "report": {"report_cells", "report_links", "report_pages", "report_sources", "report_tables"},
    "attention_theory": {"check"},
    "ratio": {"check"},
    "lime": {"check", "ratio"},
    "lime_library": set(),
    "attention_classifier": {"attention_theory"},
    "document": {"attention_classifier", "attention_theory", "encode", "lime", "models", "ratio", "samples"},
    "document_sweep": {"attention_theory", "check", "document", "lime", "models", "ratio", "samples"},
    "vim": {"scan"},
    "vim_capture": {"scan", "vim"},
    "vim_checkpoint": {"loaders", "vim"},
    "hidden_maps": {"check", "class_maps", "rollout", "scan", "ssm", "ssm_pairs"},
    "hidden_methods": {
        "capture_scans",
        "check",
        "encode",
        "hidden_maps",
        "models",
        "observation",
        "rules_mamba",
        "scan",
        "ssm",
        "vim_capture",
    },
    "loaders": {"attention_classifier", "check", "mamba_classifier", "runtime", "vim"},
    "loaders_masked": {"loaders"},
    "models": {"check", "loaders", "loaders_masked", "runtime", "vim_checkpoint"},
    "samples": {"check", "runtime", "scenes"},
    "passages": {"check", "runtime"},
    "planted": {"runtime"},
    "attcat": {"check"},
    "densray": {"check"},
    "similarity": {"agreement", "stats"},
    "gender_texts": {"check", "runtime"},
    "masked": {"attcat", "capture", "check", "densray", "encode", "models", "samples"},
    "intervene": {"capture", "densray", "models"},
    "gender_vectors": {
        "capture",
        "check",
        "densray",
        "encode",
        "gender_texts",
        "masked",
        "models",
        "passages",
        "samples",
    },
    "gender_held_out": {"densray", "gender_vectors", "stats"},
    "gender_truth": {"attcat", "densray", "gender_texts", "gender_vectors", "masked", "models", "planted"},
    "gender_corpora": {"check", "gender_texts", "masked", "models", "runtime"},
    "plots_gender": {"check", "gender_held_out", "plots", "similarity"},
    "explore_gender": {"explore", "gender_texts", "masked", "models", "plots", "plots_gender"},
    "recipes_mlm": {"loaders", "passages"},
    "recipes_planted": {"planted"},
    "encode": {"check", "models", "samples"},
    "integrated": {"check", "encode", "models"},
    "metrics": {"check"},
    "stats": set(),
    "observation": {"capture", "capture_scans", "encode", "hidden_maps", "models", "samples", "vim", "vim_capture"},
    "removal": {"check", "encode", "models", "observation"},
    "methods": {
        "check",
        "diffusion",
        "encode",
        "flow",
        "hidden_methods",
        "integrated",
        "models",
        "observation",
        "relevance",
        "result",
        "rollout",
        "samples",
        "selective",
    },
    "object_marks": {"encode", "methods", "metrics", "models", "observation", "result", "samples", "stats"},
    "plots": {"check", "result", "stats"},
    "explore": {"methods", "models", "observation", "plots", "result", "rollout"},
    "explore_layers": {
        "diffusion",
        "explore",
        "methods",
        "models",
        "observation",
        "plots",
        "result",
        "rollout",
        "selective",
    },
    "explore_document": {"document", "explore", "models", "plots", "samples"},
    "localisation": {"check", "metrics", "stats"},
    "detector": {"check", "loaders", "models", "runtime", "samples"},
    "foreground": {"check", "encode", "models", "samples"},
    "photographs": {"runtime", "samples"},
    "plots_foreground": {"check", "metrics", "plots", "stats"},
    "explore_foreground": {
        "detector",
        "encode",
        "explore",
        "foreground",
        "methods",
        "metrics",
        "models",
        "plots",
        "plots_foreground",
        "result",
        "samples",
    },
    "recipes_detector": {"detector", "loaders", "scenes"},
    "stopping": set(),
    "exploration": {"check", "encode", "methods", "models", "observation", "result", "samples"},
    "linked": {"exploration", "plots"},
    "explorer_files": {"exploration", "plots", "runtime"},
    "explorer_controls": {"exploration", "methods", "models", "samples"},
    "explorer": {"exploration", "explorer_controls", "explorer_files", "linked", "models", "stopping"},
    "recipes_text": {"loaders", "samples"},
    "recipes_attention": {"attention_classifier", "check", "samples"},
    "recipes_vision": {"loaders", "scenes"},
    "recipes_vim": {"loaders", "recipes_vision", "scenes"},
    "train": {
        "loaders",
        "recipes_attention",
        "recipes_detector",
        "recipes_mamba",
        "recipes_mlm",
        "recipes_planted",
        "recipes_text",
        "recipes_vim",
        "recipes_vision",
        "runtime",
    },
    "marked_words": {"encode", "metrics", "models", "result", "samples"},
    "recipes_mamba": {"mamba_classifier", "recall", "recipes_text", "samples", "scan"},
    "recall": {"check"},
    "recall_truth": {"methods", "models", "recall", "samples"},
    "plots_scans": {"stats"},
    "explore_scans": {"capture_scans", "encode", "explore", "models", "plots_scans", "samples", "ssm"},
    "mamba_classifier": set(),
    "capture_scans": {"capture", "scan", "vim", "vim_capture"},
    "rules_mamba": {"capture_scans", "check", "rule_tables", "rules", "vim", "vim_capture"},
}
ONLY_IN = {
    "transformers": {
        "attention_classifier",
        "capture",
        "loaders",
        "loaders_masked",
        "mamba_classifier",
        "recipes_mamba",
        "recipes_mlm",
        "recipes_planted",
        "recipes_text",
        "runtime",
    },
    "tokenizers": {"attention_classifier", "recipes_mamba"},
    "lime": {"lime_library"},
    "pandas": {"document_sweep", "gender_corpora", "object_marks", "report_tables", "samples"},
    "timm": {"loaders", "vim_checkpoint"},
    "peft": {"loaders", "loaders_masked", "recipes_mlm", "recipes_text"},
    "captum": {"integrated"},
    "ipywidgets": {
        "explore",
        "explore_document",
        "explore_foreground",
        "explore_gender",
        "explore_layers",
        "explore_scans",
        "explorer",
        "explorer_controls",
    },
    "anywidget": {"linked"},
    "matplotlib": {
        "explore",
        "explore_document",
        "explore_foreground",
        "explore_gender",
        "explore_layers",
        "explore_scans",
        "explorer_files",
        "figures",
        "linked",
        "plots",
        "plots_foreground",
        "plots_gender",
        "plots_scans",
    },
    "papermill": {"headless", "runs"},
    "datasets": {"passages", "runtime", "samples"},
    "nbconvert": {"report_cells"},
    "math_core": {"report_cells"},
    "jinja2": {"report_cells", "report_pages"},
}


def imports(path):
    """Yield every imported name, wherever in the module the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path.name}: write from xai_utils, not from dots"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from whole if node.module == "xai_utils" else [node.module]


def modules():
    return {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def test_the_plan_and_the_package_name_the_same_modules():
    assert modules().keys() == MAY_IMPORT.keys()
    assert set().union(*MAY_IMPORT.values(), *ONLY_IN.values()) <= MAY_IMPORT.keys()


def test_modules_import_only_what_the_plan_allows():
    for name, path in modules().items():
        for target in imports(path):
            top, _, rest = target.partition(".")
            ours = rest.split(".")[0] if top == "xai_utils" else None
            assert ours is None or ours in MAY_IMPORT.get(name, ()), f"{name} may not import {target}"
            assert name in ONLY_IN.get(top, {name}), f"{name} may not import {top}"


def test_the_arrows_have_no_circle():
    left = {name: set(targets) for name, targets in MAY_IMPORT.items()}
    while left:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: targets for name, targets in left.items() if name not in free}


def test_a_planned_arrow_is_seen(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("def late():\n    from xai_utils import plots\n    import matplotlib.pyplot\n")
    assert list(imports(module)) == ["xai_utils.plots", "matplotlib.pyplot"]
