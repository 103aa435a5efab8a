"""60 % of one type vanish, from the first read to what an operator's confirmation leaves."""

from __future__ import annotations

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.store import Store, alerts, breakers, inbox, layer_runs, reads
from lz_sync_dagster.sync.timing import utcnow
from tests.integration import test_inventory_sync as inventory
from tests.integration.test_inventory_sync import NETWORK, Served, existing, kinds, ledger, network, sync

served = inventory.served


def narrow(settings: Settings) -> Settings:
    layers = settings.sync_layers
    api = layers.api_sync.model_copy(update={"mass_delete_minimum": 5})
    return settings.model_copy(update={"sync_layers": layers.model_copy(update={"api_sync": api})})


def test_nothing_is_deleted_until_an_operator_confirms_it(served: tuple[Served, Settings], store: Store) -> None:
    server, settings = served[0], narrow(served[1])
    everything = [network(f"//n/{number}") for number in range(10)]
    server.assets[NETWORK] = everything
    sync(settings, store)
    server.assets[NETWORK] = everything[:4]
    sync(settings, store)
    outcome, _ = sync(settings, store)

    assert outcome.status is Status.PARTIAL
    assert "confirm it with 'lz-sync breaker confirm " in outcome.errors[0]
    assert len(existing(store)) == 10
    with store.read() as connection:
        [alert] = alerts.open_alerts(connection)
        [waiting] = breakers.open_breakers(connection)
    assert alert.severity == "critical"
    assert (waiting.known, waiting.lost) == (10, 6)

    reads.confirm_losses(store, waiting.part, fingerprint=waiting.fingerprint, actor="cli:ada", clock=utcnow)
    assert len(existing(store)) == 4
    assert kinds(store) == ["resource_deleted"] * 6
    assert ledger(store).status is CoverageStatus.COMPLETE
    with store.read() as connection:
        layer = {status.layer: status for status in layer_runs.statuses(connection, now=utcnow())}[LayerId.API]
        assert alerts.open_alerts(connection) == []
        assert len(inbox.pending(connection, LayerId.API)) == 1
    assert (layer.status, layer.items_synced, layer.errors) == (Status.SUCCESS, 4, [])

    again, _ = sync(settings, store)
    assert (again.status, again.items_changed) == (Status.SUCCESS, 0)
    with store.read() as connection:
        assert inbox.pending(connection, LayerId.API) == []
