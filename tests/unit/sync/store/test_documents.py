"""Full-text search of the documents: the same hits in the same order on both engines."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lz_sync_dagster.sync.git.documents import read_document
from lz_sync_dagster.sync.store import Store, documents, repository
from lz_sync_dagster.sync.store.documents import Hit, Piece, Term, terms
from lz_sync_dagster.sync.store.repository import Document

FIREWALLS = """# Firewalls

Rules are opened for a service account, never for `0.0.0.0/0`.

## Review

A change needs approval by the [network team](../teams/network-team.md), see `google_compute_firewall`.
"""
TEXTS = {
    "docs/networking/firewalls.md": FIREWALLS,
    "docs/networking/overview.md": "# Network overview\n\nSpokes are connected by peering.\n\n| a | b |\n|---|---|\n"
    "| hub | 10.0.0.0/20 |\n",
    "docs/long.md": "# Something else\n\n" + "The firewall is mentioned here, and here a firewall too. " * 60,
    "docs/policies.md": "# Policies\n\nEvery policy has an owner. Überprüfung jährlich.\n",
    "RUNBOOKS.md": "# Runbooks\n\n## Rotate a firewall key\n\n```sh\ngcloud kms keys rotate\n```\n",
}


def fill(store: Store, texts: dict[str, str], *, gone: Iterable[str] = ()) -> None:
    records = [read_document(path, text, blob="0" * 40, commit="c" * 40) for path, text in texts.items()]
    with store.write() as connection:
        repository.replace_documents(connection, {*texts, *gone}, records)


def find(store: Store, query: str, *, limit: int = 20, offset: int = 0) -> list[Hit]:
    with store.read() as connection:
        return documents.search(connection, query, limit=limit, offset=offset)


def found(store: Store, query: str) -> list[str]:
    return [hit.path for hit in find(store, query)]


@pytest.fixture
def library(store: Store) -> Store:
    fill(store, TEXTS)
    return store


QUERIES: list[tuple[str, list[str]]] = [
    ("peering", ["docs/networking/overview.md"]),
    ("PEERING spokes", ["docs/networking/overview.md"]),
    ("peering nowhere", []),
    ("overvi", ["docs/networking/overview.md"]),
    ("policy", ["docs/policies.md"]),
    ("policies", ["docs/policies.md"]),
    ("compute", ["docs/networking/firewalls.md"]),
    ("google_compute_firewall", ["docs/networking/firewalls.md"]),
    ("network-team.md", ["docs/networking/firewalls.md"]),
    ("10.0.0.0/20", ["docs/networking/overview.md"]),
    ('"service account"', ["docs/networking/firewalls.md"]),
    ('"account service"', []),
    ("überprüfung", ["docs/policies.md"]),
    ("an", ["docs/policies.md", "docs/long.md"]),
    ("an owner", ["docs/policies.md"]),
    ("docs/long", ["docs/long.md"]),
    ("key", ["RUNBOOKS.md"]),
    ("keys", ["RUNBOOKS.md"]),
    ("rotate fire", ["RUNBOOKS.md"]),
]


def test_a_query_finds_the_same_on_both_engines(library: Store) -> None:
    got = [(query, sorted(found(library, query))) for query, _ in QUERIES]
    assert got == [(query, sorted(paths)) for query, paths in QUERIES]


def test_a_match_in_the_title_comes_first_then_one_in_a_heading(library: Store) -> None:
    assert found(library, "firewall") == ["docs/networking/firewalls.md", "RUNBOOKS.md", "docs/long.md"]


def test_pages_of_a_search_follow_each_other(library: Store) -> None:
    pages = [find(library, "firewall", limit=1, offset=offset) for offset in range(4)]
    assert [hit.path for page in pages for hit in page] == found(library, "firewall")


def test_a_snippet_shows_what_was_found_without_markup_and_the_heading_above_it(library: Store) -> None:
    (hit,) = find(library, "network approval")
    assert Piece("network", True) in hit.snippet
    assert Piece("approval", True) in hit.snippet
    text = "".join(piece.text for piece in hit.snippet)
    assert "A change needs approval by the network team, see google_compute_firewall." in text
    assert hit.heading == 1


def test_a_snippet_of_a_match_in_the_title_alone_is_the_beginning(store: Store) -> None:
    fill(store, {"docs/x.md": "Text before.\n"})
    (hit,) = find(store, "docs")
    assert (hit.snippet, hit.heading) == ((Piece("Text before.", False),), None)


# fmt: off
HOSTILE = [
    "", "   ", '"', '""', "*", "AND", "OR NOT", "a AND", "NEAR(a b)", "title:x", "(", "')--", "\\", "'", "🙂", ":*",
    "-x", "a:*b", "{title} : x", "^x", "%", "\0", "x\0y", "<->", "!a", "١٢٣", "ｆｕｌｌ", "ß", "İ", "a" * 10_000,
    "a " * 10_000, '"a ' * 5_000]
# fmt: on


def test_no_query_is_an_error_and_one_without_a_word_finds_nothing(library: Store) -> None:
    for query in HOSTILE:
        hits = find(library, query)
        assert terms(query) or hits == [], query


@given(query=st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_query(library: Store, query: str) -> None:
    for hit in find(library, query):
        assert hit.path in TEXTS


def test_the_index_follows_changes_and_deletions(library: Store) -> None:
    fill(library, {"docs/policies.md": "# Principles\n\nNothing by hand.\n"}, gone=["docs/long.md"])
    assert found(library, "owner") == []
    assert found(library, "principles") == ["docs/policies.md"]
    assert "docs/long.md" not in found(library, "firewall")
    with library.write() as connection:
        connection.execute(sa.text("UPDATE documents SET title = 'Aardvark' WHERE path = 'docs/policies.md'"))
    assert found(library, "aardvark") == ["docs/policies.md"]
    assert found(library, "principles") == ["docs/policies.md"], "it is a heading still"


def test_the_index_survives_a_vacuum(sqlite_store: Store) -> None:
    fill(sqlite_store, TEXTS, gone=["docs/long.md"])
    fill(sqlite_store, {}, gone=["docs/long.md"])
    with closing(sqlite_store.engine.raw_connection()) as raw:
        raw.execute("VACUUM")
    assert found(sqlite_store, "peering") == ["docs/networking/overview.md"]


def test_a_text_that_is_too_dense_for_a_vector_is_kept_and_found_by_its_beginning(store: Store) -> None:
    def dense(first: int, count: int) -> str:
        """Words of letters that take four bytes each: a vector of them is larger than the text."""
        return " ".join(
            "".join(chr(0x20000 + (first + word * 7 + at * at) % 40_000) for at in range(20)) for word in range(count)
        )

    headings = [{"level": 1, "text": "Heading with words", "line": number} for number in range(50_000)]
    records = [
        Document(
            "dense.md",
            "Dense",
            [{"level": 1, "text": dense(20_000, 950), "line": 1}],
            "beginning " + dense(0, 12_000),
            "b",
            "c",
        ),
        Document("headings.md", "Headings", headings, "", "b", "c"),
    ]
    with store.write() as connection:
        repository.replace_documents(connection, [], records)
    assert found(store, "beginning") == ["dense.md"]
    assert found(store, "heading words") == ["headings.md"]


def test_replacing_a_document_costs_the_same_among_many(sqlite_store: Store) -> None:
    def cost() -> float:
        def once() -> float:
            started = time.perf_counter()
            fill(sqlite_store, {"docs/networking/firewalls.md": FIREWALLS})
            return time.perf_counter() - started

        return min(once() for _ in range(15))

    fill(sqlite_store, {f"docs/{number}.md": FIREWALLS for number in range(100)})
    few = cost()
    fill(sqlite_store, {f"docs/{number}.md": FIREWALLS for number in range(3_000)})
    assert cost() < 4 * few


def test_listing_goes_by_path_in_byte_order(store: Store) -> None:
    fill(store, dict.fromkeys(("b.md", "B.md", "a/x.md", "a.md", "ä.md"), "text\n"))
    with store.read() as connection:
        first = documents.listed(connection, limit=3)
        rest = documents.listed(connection, limit=3, after=first[-1].path)
        assert [entry.path for entry in (*first, *rest)] == ["B.md", "a.md", "a/x.md", "b.md", "ä.md"]
        document = documents.read(connection, "a.md")
        assert document is not None
        assert document.body == "text\n"
        assert documents.read(connection, "none.md") is None
        assert documents.paths(connection) == {"b.md", "B.md", "a/x.md", "a.md", "ä.md"}


def test_terms() -> None:
    assert terms('Rules of "Service Account" logs') == [
        Term(("rule",), True),
        Term(("of",), False),
        Term(("service", "account"), False),
        Term(("log",), True),
    ]
