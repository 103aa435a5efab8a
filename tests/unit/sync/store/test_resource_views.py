"""Lists and counts of resources are, on both engines, what plain Python makes of the same rows."""

from __future__ import annotations

from collections import Counter

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lz_sync_dagster.sync.store import Store, schema
from lz_sync_dagster.sync.store.resource_views import (
    Dimension,
    Place,
    ResourceFilter,
    ResourcePage,
    ResourceRow,
    Sort,
    count,
    facet,
    fits,
    list_resources,
    violations,
)
from tests.unit.sync.store import inventory_rows
from tests.unit.sync.store.inventory_rows import END, HOUR, LOCATIONS, PROJECTS, SCOPES, START, TEXTS, TYPES, Inventory


@pytest.fixture(params=[1, 2])
def inventory(request: pytest.FixtureRequest, store: Store) -> Inventory:
    made = inventory_rows.make(request.param)
    inventory_rows.insert(store, made)
    return made


def some(values: tuple[str | None, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    named = [value for value in values if value is not None]
    return st.just(()) | st.lists(st.sampled_from(named), min_size=1, max_size=2, unique=True).map(tuple)


filters = st.builds(
    ResourceFilter,
    content_type=st.sampled_from(("RESOURCE", "RESOURCE", "IAM_POLICY", "ORG_POLICY")),
    asset_types=some(TYPES),
    projects=some(PROJECTS),
    scopes=some(SCOPES),
    locations=some(LOCATIONS),
    q=st.none() | st.sampled_from(TEXTS),
    has_findings=st.sampled_from((None, None, True, False)),
    deleted=st.sampled_from((False, False, True)),
    changed_since_ns=st.none() | st.integers(START, END),
)
instants = st.none() | st.integers(START - HOUR, END)


def walk(
    connection: sa.Connection, where: ResourceFilter, sort: Sort, descending: bool, as_of_ns: int | None, limit: int
) -> list[ResourceRow]:
    found: list[ResourceRow] = []
    after: Place | None = None
    while True:
        page = list_resources(
            connection, where, sort=sort, descending=descending, after=after, limit=limit, as_of_ns=as_of_ns
        )
        assert len(page.items) == limit or page.following is None
        found += page.items
        if page.following is None:
            return found
        after = page.following


quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(where=filters, sort=st.sampled_from(Sort), descending=st.booleans(), as_of_ns=instants, limit=st.integers(1, 70))
def test_pages_together_are_the_list_in_its_order(
    store: Store,
    inventory: Inventory,
    where: ResourceFilter,
    sort: Sort,
    descending: bool,
    as_of_ns: int | None,
    limit: int,
) -> None:
    with store.read() as connection:
        found = walk(connection, where, sort, descending, as_of_ns, limit)
    assert [row.name for row in found] == inventory.listed(where, sort, descending, as_of_ns)
    counts = inventory.violations(as_of_ns)
    assert [row.violations for row in found] == [counts[row.name] for row in found]


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("descending", [False, True])
def test_every_sort_at_every_page_size(store: Store, inventory: Inventory, sort: Sort, descending: bool) -> None:
    with store.read() as connection:
        for as_of_ns in (None, START + 20 * HOUR):
            wanted = inventory.listed(ResourceFilter(), sort, descending, as_of_ns)
            for limit in (1, 7, 1000):
                found = walk(connection, ResourceFilter(), sort, descending, as_of_ns, limit)
                assert [row.name for row in found] == wanted


@quick
@given(where=filters, sort=st.sampled_from(Sort), descending=st.booleans(), as_of_ns=instants, data=st.data())
def test_a_list_reads_backwards_from_any_place_as_it_reads_forwards(
    store: Store,
    inventory: Inventory,
    where: ResourceFilter,
    sort: Sort,
    descending: bool,
    as_of_ns: int | None,
    data: st.DataObject,
) -> None:
    limit = data.draw(st.integers(1, 9))
    with store.read() as connection:

        def page(**place: Place | None) -> ResourcePage:
            return list_resources(
                connection, where, sort=sort, descending=descending, limit=limit, as_of_ns=as_of_ns, **place
            )

        forwards = [page()]
        while forwards[-1].following is not None:
            forwards.append(page(after=forwards[-1].following))
        assert forwards[0].preceding is None
        place = forwards[-1].preceding
        for wanted in forwards[-2::-1]:
            assert place is not None
            before = page(before=place)
            assert before.items == wanted.items
            assert before.following == wanted.following
            place = before.preceding
        assert place is None


@pytest.mark.parametrize("q", TEXTS)
def test_a_text_is_found_as_it_is_in_any_case(store: Store, inventory: Inventory, q: str) -> None:
    where = ResourceFilter(q=q)
    with store.read() as connection:
        found = walk(connection, where, Sort.NAME, False, None, 9)
    assert [row.name for row in found] == inventory.listed(where, Sort.NAME, False, None)
    assert all(fits(where, row) for row in found)


@quick
@given(where=filters, by=st.sampled_from(Dimension), as_of_ns=instants)
def test_counts_are_those_of_the_list(
    store: Store, inventory: Inventory, where: ResourceFilter, by: Dimension, as_of_ns: int | None
) -> None:
    with store.read() as connection:
        total = count(connection, where, as_of_ns=as_of_ns)
        found = facet(connection, where, by, as_of_ns=as_of_ns, values=2)
        every = facet(connection, where, by, as_of_ns=as_of_ns)
        open_findings = violations(connection, where, as_of_ns=as_of_ns)
    assert total == len(inventory.found(where, as_of_ns))
    by_resource = inventory.violations(as_of_ns)
    assert open_findings == sum(by_resource[row.values["name"]] for row in inventory.found(where, as_of_ns))
    counts = Counter(row.values[by.value] for row in inventory.found(where, as_of_ns, without=by))
    assert dict(every.values) == counts
    assert every.others == 0
    assert found.values == every.values[:2]
    assert found.others == sum(number for _, number in every.values[2:])


@quick
@given(data=st.data(), sort=st.sampled_from(Sort), descending=st.booleans(), limit=st.integers(1, 20))
def test_what_does_not_move_between_pages_is_on_exactly_one(
    store: Store, inventory: Inventory, data: st.DataObject, sort: Sort, descending: bool, limit: int
) -> None:
    """While others are deleted, changed and moved."""
    present = [row for row in inventory.at(None) if row.content_type == "RESOURCE" and not row.deleted]
    stay = {row.name for row in data.draw(st.lists(st.sampled_from(present), min_size=5, unique_by=id))}
    moving = [row for row in present if row.name not in stay]
    seen: Counter[str] = Counter()
    after: Place | None = None
    table = schema.resources
    with store.engine.connect() as connection, connection.begin() as transaction:
        while True:
            page = list_resources(
                connection, ResourceFilter(), sort=sort, descending=descending, after=after, limit=limit
            )
            seen.update(row.name for row in page.items)
            if page.following is None:
                break
            after = page.following
            if moving:
                row = moving.pop()
                key = (table.c.name == row.name) & (table.c.content_type == "RESOURCE")
                change = data.draw(st.sampled_from(("delete", "project", "location", "time", "type")))
                values = {
                    "delete": {"deleted": True},
                    "project": {"project": "m-proj"},
                    "location": {"location": None},
                    "time": {"valid_from_ns": START + 30 * HOUR},
                    "type": {"asset_type": TYPES[1]},
                }[change]
                connection.execute(table.update().where(key).values(**values))
        transaction.rollback()
    assert {name: seen[name] for name in stay} == dict.fromkeys(stay, 1)


def test_texts_are_ordered_by_code_point_whatever_the_database_speaks(postgres_store: Store) -> None:
    query = sa.text(
        "SELECT table_name, column_name FROM information_schema.columns WHERE collation_name = 'C' "
        "AND table_schema = 'public'"
    )
    with postgres_store.read() as connection:
        found = {tuple(row) for row in connection.execute(query)}
    assert found == {(table.name, column.name) for table in schema.BY_CODE_POINT for column in schema.texts(table)}
