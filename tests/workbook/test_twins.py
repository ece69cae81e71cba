"""Named runs whose models only a hub has, gone through with random twins of the same depth from local folders."""

import json

import nbformat
import numpy as np
import pytest
import timm
import tiny
import torch
import transformers as hf
from matplotlib import pyplot as plt
from PIL import Image

from xai_utils import figures, models, samples
from xai_utils.models import bundled, detector
from xai_utils.models.vim import Vim
from xai_utils.workbook import runs


def twin(folder, layers):
    """Write a random BERT of two classes that is as deep as asked for, and narrow."""
    torch.manual_seed(layers)
    config = hf.BertConfig(
        **{**tiny.BERT, "num_hidden_layers": layers, "num_labels": 2, "max_position_embeddings": 128}
    )
    hf.BertForSequenceClassification(config).save_pretrained(folder)
    reader = tiny.tokenizer()
    reader.model_max_length = 128
    reader.save_pretrained(folder)
    return f"hf:{folder}"


def sentences(_split):
    """Make sentences without label or marked words, as those of the test split of SST-2."""
    noise = torch.Generator().manual_seed(0)
    words = [" ".join(tiny.WORDS[n] for n in torch.randint(18, (6 + k % 9,), generator=noise)) for k in range(60)]
    return [samples.Text(f"{one} .", f"sst2 test {k}") for k, one in enumerate(words)]


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """Execute the cells of a notebook under the parameters of a run, widgets left out; return its names."""
    monkeypatch.setenv("XAI_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))

    def execute(number, run, **changed):
        named = runs.read(runs.Places(), run)
        paths = runs.find_notebooks(runs.Places(), named.notebooks)
        path = next(one for one in paths if one.stem.startswith(number))
        parameters = runs.parameters_of(named, paths)[path] | changed
        known: dict = {"__name__": "__main__"}
        for cell in nbformat.read(path, as_version=4).cells:
            tags = cell.metadata.get("tags", [])
            if cell.cell_type == "code" and "widget" not in tags:
                exec(compile(cell.source, path.name, "exec"), known)
                known |= parameters if "parameters" in tags else {}
        return known

    return execute


def test_bert_base_and_large_on_sst2(executed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(samples, "sst2", sentences)
    twins = [twin(tmp_path / f"bert{layers}", layers) for layers in (12, 24)]
    known = executed("02", "sst2", TEXT_MODELS=twins, DEVICE="cpu")
    assert known["TEXTS"] == "test" and known["LANGUAGE_MODEL"] == "" and list(known["LAYERS"].values()) == [12, 24]
    assert set(known["MEASURE"].values()) == {"gradient norm"} and len(known["reviews"]) == 60
    told = capsys.readouterr().out
    assert told.count("published rule above rollout") == 2 * 3 and "truth" not in told.partition("published rule")[2]
    curve = figures.read_table("02_curve", tmp_path / "figures")
    assert set(curve["model"]) == set(twins) and curve["p"].between(0, 1).all()


@pytest.fixture
def few_reviews(monkeypatch):
    """Read twelve reviews: what they say is no matter here."""
    some = samples.reviews()[:12]
    monkeypatch.setattr(samples, "reviews", lambda: some)


@pytest.mark.usefixtures("few_reviews")
def test_vision_mamba_of_imagenet_layer_by_layer(executed, tmp_path, monkeypatch):
    torch.manual_seed(0)
    twin = Vim(img_size=224, patch_size=16, stride=16, embed_dim=16, depth=3, num_classes=1000, d_state=2)
    torch.save({"model": twin.state_dict()}, tmp_path / "twin.pth")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    known = executed("03", "vim", DEVICE="cpu")
    assert known["VISION_MODEL"] == known["VIM_MODEL"] == "vim_small" and known["hidden"].shape[0] == 3
    assert (tmp_path / "figures" / "03_layers_vim.png").is_file() and not known["SCENIC"]
    assert set(figures.read_table("03_tests", tmp_path / "figures")["model"]) == {"minilm-sst2", "vim_small"}


@pytest.mark.usefixtures("few_reviews")
@pytest.mark.parametrize("number", ["03", "04"])
def test_a_pretrained_transformer_and_a_picture_of_two_photographs(number, executed, tmp_path, capsys):
    torch.manual_seed(0)
    names = dict(enumerate(["tabby, tabby cat", "espresso", "something else"]))
    config = hf.ViTConfig(**tiny.VIT)
    config.id2label, config.label2id = names, {one: i for i, one in names.items()}
    hf.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    hf.ViTImageProcessor(size={"height": tiny.SIDE, "width": tiny.SIDE}).save_pretrained(tmp_path / "vit")
    known = executed(number, "deit", VISION_MODEL=f"hf:{tmp_path / 'vit'}", DEVICE="cpu")
    assert known["picture"].name == "cat + coffee" and list(known["picture"].masks) == ["cat", "coffee"]
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    if number == "04":
        assert known["ASKED"] == ["tabby, tabby cat", "espresso"] and "04_class_specific" not in drawn
        assert (
            "04_methods_two_classes" in drawn and "asked about: tabby, tabby cat, espresso" in capsys.readouterr().out
        )
    else:
        assert "03_rollouts_picture" in drawn and "03_layers_vim" not in drawn


def random_detector(name):
    """Make a Mask R-CNN that was never trained and calls everything a dog."""
    torch.manual_seed(0)
    card, _ = bundled.bundled_weights("maskrcnn-scenes")
    module = detector.build_small(card["arguments"])
    module.roi_heads.score_thresh, module.roi_heads.detections_per_img = 0.0, 3
    torch.nn.init.constant_(module.roi_heads.mask_predictor.mask_fcn_logits.bias, 9.0)  # boxes are masks
    return detector.Detector(name, module, ("background", *["dog"] * len(card["classes"])))


@pytest.fixture
def dogs(tmp_path):
    """Write six photographs, each half a dog, in the layout of a folder with masks; every class means a dog."""
    noise = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "dogs" / part).mkdir(parents=True)
    for n in range(6):
        mask = np.zeros((96, 128), dtype=np.uint8)
        mask[:, 10 * n : 64 + 10 * n] = 1
        picture = noise.integers(0, 99, (96, 128, 3)) + 120 * mask[..., None]
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"dogs/images/{n}.png")
        Image.fromarray(mask).save(tmp_path / f"dogs/masks/{n}_dog.png")
    (tmp_path / "dogs/classes.json").write_text(json.dumps({"dog": list(range(1000))}))
    return str(tmp_path / "dogs")


@pytest.mark.parametrize("run", ["coco", "foreground"])
def test_a_pretrained_transformer_a_detector_and_a_residual_network_on_photographs(
    run, executed, dogs, tmp_path, monkeypatch, capsys
):
    create = timm.create_model
    narrow = {"deit": {"embed_dim": 24}, "resn": {"layers": (1, 1, 1, 1)}}
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name, **narrow[name[:4]]))
    monkeypatch.setitem(detector.DETECTORS, "maskrcnn_resnet50_fpn_v2", random_detector)
    torch.manual_seed(0)
    known = executed("05", run, PICTURES=dogs, SCORE=0.0, DEVICE="cpu")
    assert known["vision_model"].name == "deit_tiny" and len(known["pictures"]) == 6 and known["control"] is None
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert {"05_maps", "05_skip", "05_supervision"} <= drawn
    assert ({"05_one_grid", "05_detector"} <= drawn) == (run == "foreground")
    tests = figures.read_table("05_tests", tmp_path / "figures")
    assert tests["p"].between(0, 1).all() and ("Grad-CAM" in " ".join(tests["test"])) == (run == "foreground")
    assert "published table, ratio of means" in capsys.readouterr().out


@pytest.mark.usefixtures("few_reviews")
def test_closed_forms_on_the_long_reviews_of_imdb(executed, tmp_path, monkeypatch):
    long = [samples.Text(" ".join([one.text] * 30), f"imdb test {n}", 0) for n, one in enumerate(samples.reviews()[:7])]
    monkeypatch.setattr(samples, "imdb", lambda: long)
    known = executed("07", "imdb", DOCUMENTS=5, SAMPLES=200, DEVICE="cpu")
    assert known["TEXTS"] == "imdb" and len(known["table"]) == 5 and (known["table"].tokens == 256).all()
    errors = figures.read_table("07_errors", tmp_path / "figures").set_index("measure")
    assert errors.loc["gradient", "95 %"] < 1e-12 < errors.loc["published", "median"]


def test_what_a_published_mamba_remembers(executed, tmp_path):
    torch.manual_seed(0)
    config = hf.MambaConfig(vocab_size=len(tiny.tokenizer()), hidden_size=16, state_size=4, num_hidden_layers=5)
    hf.MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    tiny.tokenizer().save_pretrained(tmp_path / "mamba")
    small = {"EACH": 2, "REVIEWS": 6, "SCENES": 3, "SHUFFLES": 1, "STEPS": 1, "DEVICE": "cpu"}
    known = executed("08", "mamba130m", TEXT_MODEL=f"hf:{tmp_path / 'mamba'}", SENTENCE=tiny.SENTENCES[0].text, **small)
    assert known["text_model"].name.endswith("mamba") and known["bare"].shape[0] == 5
    lives = figures.read_table("08_half_lives", tmp_path / "figures")
    assert (lives.model == known["TEXT_MODEL"]).sum() == 2 * 5 and lives.share.between(0, 1).all()


def test_maps_of_a_published_vision_mamba_on_photographs(executed, dogs, tmp_path, monkeypatch, capsys):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name, embed_dim=24))
    torch.manual_seed(0)
    twin = Vim(img_size=224, patch_size=16, stride=16, embed_dim=16, depth=2, num_classes=1000, d_state=2)
    torch.save({"model": twin.state_dict()}, tmp_path / "twin.pth")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    small = {"EACH": 2, "REVIEWS": 6, "SCENES": 4, "SHUFFLES": 1, "STEPS": 1, "DEVICE": "cpu"}
    known = executed("08", "vim-coco", PICTURES=dogs, **small)
    assert known["vim"].name == "vim_small" and known["vit"].name == "deit_small" and len(known["pictures"]) == 4
    told = capsys.readouterr().out
    assert all(f"{name} names the object: 1.000" in told for name in ("vim_small", "deit_small"))
    found = figures.read_table("08_objects", tmp_path / "figures").set_index(["measure", "map"])["mean"]
    assert found["lift", "uniform"] == pytest.approx(1) and found["lift", "exact mask"] > found["lift", "ViT: rollout"]
    assert {"08_pictures", "08_diffusion"} <= {path.stem for path in (tmp_path / "figures").glob("*.png")}


@pytest.fixture
def few_words(monkeypatch):
    """Ask about every eighth occupation, and of the definitions a dozen couples a template."""
    whole, couples = samples.gender.probes, samples.gender.definitions()[:36]
    monkeypatch.setattr(samples.gender, "probes", lambda *kind: whole(*kind)[:: 8 if kind[0] == "occupation" else 1])
    monkeypatch.setattr(samples.gender, "definitions", lambda: couples)


@pytest.fixture
def published_pairs(tmp_path):
    """Write some sentences of each corpus of gender as they are published."""
    for name in ("winogender", "winobias", "crows_pairs"):
        (tmp_path / name).mkdir()
    jobs = ("nurse", "teacher", "clerk", "doctor", "lawyer", "driver")
    rows = [
        f"{job}.patient.1.{side}.txt\tThe {job} said that {word} left."
        for job in jobs
        for side, word in (("male", "he"), ("female", "she"))
    ]
    (tmp_path / "winogender" / "all_sentences.tsv").write_text("\n".join(["sentid\tsentence", *rows, ""]))
    shares = [f"{job}\t50\t{90 - 10 * place}\t2015" for place, job in enumerate(jobs)]
    heads = "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year"
    (tmp_path / "winogender" / "occupations-stats.tsv").write_text("\n".join([heads, *shares, ""]))
    for side, word in (("pro", "he"), ("anti", "she")):
        for kind in ("type1", "type2"):
            file = tmp_path / "winobias" / f"{side}_stereotyped_{kind}.txt.test"
            file.write_text("".join(f"{n + 1} [The {job}] said that [{word}] left.\n" for n, job in enumerate(jobs)))
    crows = [f"{n},The {job} said he left.,The {job} said she left.,gender" for n, job in enumerate(jobs)]
    (tmp_path / "crows_pairs" / "crows_pairs_anonymized.csv").write_text(
        "\n".join([",sent_more,sent_less,bias_type", *crows, ""])
    )
    return str(tmp_path)


def masked_twin(folder, layers):
    """Write a random BERT for masked words that is as deep as asked for, narrow, and knows BERT's vocabulary."""
    torch.manual_seed(layers)
    reader = models.load("minilm-mlm", "cpu").tokenizer
    config = hf.BertConfig(
        vocab_size=len(reader), hidden_size=16, num_attention_heads=2, intermediate_size=32, num_hidden_layers=layers
    )
    hf.BertForMaskedLM(config).save_pretrained(folder)
    reader.save_pretrained(folder)
    return f"mlm:{folder}"


@pytest.mark.usefixtures("few_words")
@pytest.mark.parametrize(("run", "layers"), [("gender-bert", 12), ("gender-bert-large", 24)])
def test_the_study_of_gender_on_a_deeper_bert(run, layers, executed, tmp_path, published_pairs):
    twin = masked_twin(tmp_path / "bert", layers)
    known = executed("06", run, MODEL=twin, GENDER_DATA=published_pairs, DEVICE="cpu", SOLVED=200, SHUFFLES=99)
    assert known["LAYERS"] == layers + 1 and set(known["contrasts"]) == {"winogender", "winobias", "crows_pairs"}
    assert figures.read_table("06_findings", tmp_path / "figures")["p (Holm)"].between(0, 1).all()
    assert len(figures.read_table("06_extraction", tmp_path / "figures")) == layers + 1


@pytest.mark.usefixtures("few_words")
def test_known_truth_of_gender_on_bert_base(executed, tmp_path):
    twin = masked_twin(tmp_path / "bert", 12)
    small = {"DRAWS": 2, "REVIEWS": 8, "EVERY": 40, "LANGUAGE_MODEL": "", "SHUFFLES": 99}
    known = executed("12", "gender-bert", MODEL=twin, DEVICE="cpu", **small)
    assert known["patched"].effect.shape[0] == 13 and set(known["means"]) == {"people", twin}
