"""Running text: cleaned, cut into sentences, and read from every kind of file."""

import json

import datasets
import pytest

from xai_utils.samples import passages


def test_passages_are_cleaned_and_read_from_every_kind_of_file(tmp_path):
    (tmp_path / "a.txt").write_text(" = Title = \n He @-@ man , the <unk> 's ( old ) house . \n\n")
    (tmp_path / "b.tsv").write_text('ID\tText\n1\tA "quoted passage.\n')
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "third"}) + "\n")
    assert list(passages.stream(str(tmp_path))) == ["He-man, the [UNK]'s (old) house.", 'A "quoted passage.', "third"]
    assert passages.sentences("It ran. He left! And 3 more.") == ["It ran.", "He left!", "And 3 more."]
    with pytest.raises(ValueError, match="text column"):
        list(passages.stream(str(tmp_path / "c.jsonl"), column="body"))
    with pytest.raises(ValueError, match=r"holds no file"):
        list(passages.stream(str(tmp_path / "missing.txt")))


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (" = = Heading = = ", ""),
        ("a 12 @,@ 000 @.@ 5", "a 12,000.5"),
        ('it \'s [ sic ] " fine " ; really !', 'it\'s [sic] " fine "; really!'),
        ("<unk> and ( <unk> )", "[UNK] and ([UNK])"),
    ],
)
def test_the_tokenisation_of_wikitext_is_undone(raw, cleaned):
    assert passages.clean(raw) == cleaned


def test_a_corpus_of_the_hub_is_streamed_or_said_to_be_missing(monkeypatch):
    asked = []

    def load(*given, **how):
        asked.append((given, how["split"]))
        return [{"TEXT": "one"}, {"TEXT": None}, {"TEXT": "two"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(passages.stream("owner/name:part", "test")) == ["one", "two"]
    assert asked == [(("owner/name", "part"), "test")]

    def fail(*_, **__):
        raise ConnectionError("no hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(OSError, match=r"the corpus owner/name \(train\) could not be read: no hub Connect once"):
        list(passages.stream("owner/name"))
