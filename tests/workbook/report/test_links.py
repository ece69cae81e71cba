"""Links, pictures and anchors of a built site."""

import pytest

from xai_utils.workbook.report import links


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<a href='b.html#there'>x</a><a href='https://arxiv.org/abs/1'>x</a><a href='mailto:a@b.c'>x</a>", ""),
        ("<a href='c.html'>x</a>", "'c.html' leads to nothing"),
        ("<a href='b.html#gone'>x</a>", "names an anchor that b.html does not have"),
        ("<a href='../a.html'>x</a>", "leads to nothing"),
        ("<a href='/a.html'>x</a>", "is absolute"),
        ("<a href='file:///a.html'>x</a>", "is no address on the web"),
        ("<a href='javascript:run()'>x</a>", "is no address on the web"),
        ("<img src='gone.png' alt='x'>", "leads to nothing"),
        ("<img src='https://a.org/x.png' alt='x'>", "is loaded from elsewhere"),
        ("<img src='b.html'>", "has no alternative text"),
        ("<script src='//cdn.org/x.js'></script>", "is loaded from elsewhere"),
        ("<link rel='stylesheet' href='https://cdn.org/x.css'>", "is loaded from elsewhere"),
        ("<select name='kind'></select><a href='#kind=finding&amp;kind=x%20y'>x</a>", ""),
        ("<a href='b.html#kind=finding'>x</a>", "chooses kind, which b.html does not offer"),
        ("<p id='one'></p><p id='one'></p>", "the anchor 'one' occurs 2 times"),
    ],
)
def test_links_are_checked(tmp_path, body, problem):
    (tmp_path / "a.html").write_text(body)
    (tmp_path / "b.html").write_text("<p id='there'>x</p>")
    found = links.problems(tmp_path)
    assert (not found) if not problem else any(problem in one for one in found), found


def test_a_sheet_may_load_nothing_from_elsewhere(tmp_path):
    (tmp_path / "a.css").write_text("p { background: url('https://a.org/x.png') }")
    assert links.problems(tmp_path)
