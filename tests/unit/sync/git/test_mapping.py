"""Which files are selected, and where they go."""

from __future__ import annotations

import pytest

from lz_sync_dagster.config import GitSyncConfig, MappingRule
from lz_sync_dagster.sync.git.mapping import Mapping, escapes
from lz_sync_dagster.sync.globs import matches

DEFAULT = Mapping(GitSyncConfig().paths, GitSyncConfig().mapping)


@pytest.mark.parametrize(
    ("path", "destination"),
    [
        ("docs/a.md", "docs/lz-reference/a.md"),
        ("docs/deep/er/b.png", "docs/lz-reference/deep/er/b.png"),
        ("pmo.yaml", "config/lz-pmo.yaml"),
        ("ENFORCEMENT_GATES.md", "docs/lz-reference/ENFORCEMENT_GATES.md"),
        ("RUNBOOKS.md", "docs/lz-reference/RUNBOOKS.md"),
        ("terraform/main.tf", "docs/lz-reference/terraform/main.tf"),
        ("terraform/02/modules/x/main.tf", "docs/lz-reference/terraform/02/modules/x/main.tf"),
        ("terraform/02/terraform.tfvars", None),
        ("README.md", None),
        ("other/docs/a.md", None),
        ("docs", None),
        ("sub/pmo.yaml", None),
    ],
)
def test_the_defaults_are_those_of_the_architecture_document(path: str, destination: str | None) -> None:
    assert DEFAULT.destinations(path) == (() if destination is None else (destination,))


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.md", "a.md", True),
        ("*.md", "x/a.md", False),
        ("**/*.md", "a.md", True),
        ("**/*.md", "x/y/a.md", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**", "a/x/y", True),
        ("a/**", "a", False),
        ("a/", "a/x/y", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a.c", "abc", False),
        ("a+(b)", "a+(b)", True),
    ],
)
def test_globs(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


def test_the_first_rule_that_covers_a_file_places_it() -> None:
    mapping = Mapping(
        ["**"],
        [
            MappingRule(source=("docs/adr/*.md",), destination=("decisions",)),
            MappingRule(source=("docs/**",), destination=("reference/",)),
        ],
    )
    assert mapping.destinations("docs/adr/0001.md") == ("decisions/0001.md",)
    assert mapping.destinations("docs/adr/deep/0001.md") == ("reference/adr/deep/0001.md",)


def test_a_selected_file_without_a_rule_goes_below_the_reference() -> None:
    assert Mapping(["CODEOWNERS"], []).destinations("CODEOWNERS") == ("docs/lz-reference/CODEOWNERS",)


@pytest.mark.parametrize(
    "path", ["../x", "a/../x", "a//x", ".git/config", "a/.GIT/x", "git~1/x", "a\\..\\x", "a /x", "x."]
)
def test_a_path_that_would_mean_another_one_escapes(path: str) -> None:
    assert escapes(path)


@pytest.mark.parametrize("path", ["a/b.md", ".github/x", "..a/b", "a.git/x"])
def test_an_ordinary_path_does_not_escape(path: str) -> None:
    assert not escapes(path)


def test_several_sources_go_to_several_destinations() -> None:
    mapping = Mapping(
        ["docs/**", "*.md"],
        [MappingRule.model_validate({"source": ["docs/**", "README.md"], "destination": ["a", "b/"]})],
    )
    assert mapping.destinations("docs/x.md") == ("a/x.md", "b/x.md")
    assert mapping.destinations("README.md") == ("a", "b/")


def test_what_is_excluded_is_not_selected() -> None:
    mapping = Mapping(["docs/**"], [], ["docs/**/drafts/**", "*.tmp"])
    assert mapping.destinations("docs/a/drafts/x.md") == ()
    assert mapping.destinations("docs/x.md") == ("docs/lz-reference/docs/x.md",)
