"""Sealed rollouts: made once for the shelf, for each device anew, never in the clear instead."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgefleet_agent.enrol import certificate_request
from edgefleet_contract.bundle import Digest, chunk_list, parse_manifest, sha256
from edgefleet_contract.errors import Malformed, OperatorError, Unverified
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.sealed import make_dek, open_dek, open_file, render_seal_key
from edgefleet_contract.sealed_index import check_index, parse_index
from edgefleet_fleet.adapters.sql.store import Store
from edgefleet_fleet.api import create_app
from edgefleet_fleet.authority import open_request
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.records import Sealing
from edgefleet_fleet.services import Services
from edgefleet_fleet.wishes import Wish
from tests.contract.makers import write_bundle
from tests.fleet.device import PI5, new_key, request_of, running
from tests.fleet.stage import FLEET, ME, TOKEN, Clock, Stage, push, release
from tests.fleet.web import serving

CONTENT = os.urandom(150_000)
ZEROS = "A" * 107 + "="
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def enrol(stage: Stage, name: str, key: object = None, *, sealing: bool = True) -> X25519PrivateKey:
    """A device in service, with a key for sealed bundles or without."""
    seal_key = X25519PrivateKey.generate()
    claim = stage.services.enrolment.make_claim(uses=1, hours=1, actor=ME)[1].render()
    said = render_seal_key(seal_key.public_key()) if sealing else ""
    request = request_of(claim, name, key or new_key(), seal_key=said)  # type: ignore[arg-type]
    stage.services.enrolment.enrol(request, address="")
    return seal_key


def order_for(stage: Stage, name: str) -> Order:
    order = stage.order(name)
    assert order is not None
    return order


def shelf(stage: Stage, digest: str) -> bytes:
    return b"".join(stage.services.room.shelf.read(Digest(digest)))


def opened(stage: Stage, name: str, target: Target, key: X25519PrivateKey) -> dict[str, bytes]:
    """Every file of a sealed target, opened as the device does."""
    assert target.sealed is not None
    bundle = target.bundle_sha256
    dek = open_dek(target.sealed.sealed_dek, key, fleet=FLEET, device=name, bundle=bundle)
    index = parse_index(shelf(stage, target.sealed.index_sha256))
    check_index(index, bundle, parse_manifest(shelf(stage, bundle)), what="digits")
    for file in index.files:
        assert shelf(stage, file.chunk_list_sha256) == chunk_list(shelf(stage, file.sha256))
    return {
        file.path: open_file(dek, bundle, file.path, shelf(stage, file.sha256))
        for file in index.files
    }


def test_a_sealed_rollout_gives_each_device_what_it_alone_can_open(
    stage: Stage, publisher: PrivateKey, tmp_path: Path
) -> None:
    keys = {name: enrol(stage, name) for name in "ab"}
    folder = write_bundle(tmp_path / "made", publisher, content=CONTENT)
    bundle = push(stage.services, folder)
    release(stage.services, publisher, folder)
    wish = Wish(bundle.digest, bundle.signature_sha256, sealed=True)
    stage.services.deployments.create(wish, actor=ME)
    targets = {name: order_for(stage, name).targets[0] for name in "ab"}
    for name, key in keys.items():
        files = opened(stage, name, targets[name], key)
        assert files["v/model.onnx"] == CONTENT
    with pytest.raises(Unverified):
        opened(stage, "a", targets["b"], keys["a"])
    sealed = [target.sealed for target in targets.values()]
    assert sealed[0] == sealed[1]  # the same index, and so the same blobs
    assert len({item.dek for item in sealed if item}) == 2


def test_a_bundle_is_sealed_once_and_orders_anew(stage: Stage, clock: Clock) -> None:
    key = enrol(stage, "a")
    rollout = stage.roll_out(1, sealed=True)
    first = order_for(stage, "a").targets[0]
    stage.commit("a")
    assert stage.state(rollout) == "completed"
    before = sorted(path.name for path in stage.services.room.shelf._root.rglob("*"))  # type: ignore[attr-defined] # of files
    clock.now += 6 * 24 * 3600
    stage.services.deployments.upkeep.renew()
    renewed = order_for(stage, "a")
    assert (renewed.seq, renewed.targets) == (2, (first,))
    assert renewed.targets[0].sealed is not None
    assert first.sealed is not None
    assert renewed.targets[0].sealed.dek != first.sealed.dek
    assert opened(stage, "a", renewed.targets[0], key)
    stage.commit("a")
    again = stage.services.deployments.create(replace(wish_of(first), sealed=True), actor=ME)
    assert stage.state(again) == "completed"  # it runs already: no new order, no new blobs
    assert order_for(stage, "a").seq == 2
    after = sorted(path.name for path in stage.services.room.shelf._root.rglob("*"))  # type: ignore[attr-defined] # as above
    assert after == before


def wish_of(target: Target) -> Wish:
    return Wish(target.bundle_sha256, target.signature_sha256)


def test_a_device_without_a_key_is_refused_by_name_and_reason_and_sent_nothing(
    stage: Stage,
) -> None:
    enrol(stage, "new")
    enrol(stage, "old", sealing=False)
    stage.roll_out(1)
    for name in ("new", "old"):
        stage.commit(name)
    rollout = stage.roll_out(2, sealed=True, max_failures=2)
    view = stage.view(rollout)
    (member,) = [device for device in view["devices"] if device["device"] == "old"]
    assert (member["outcome"], member["phase"]) == ("bad", "rejected")
    assert member["reason"] == Reason.UNSEALING_FAILED
    assert "enrol it anew" in member["detail"]
    assert view["by_reason"] == {"unsealing_failed": 1}
    assert stage.desired("old") == [("digits", 1)]
    assert stage.desired("new") == [("digits", 2)]
    assert all(target.sealed is None for target in order_for(stage, "old").targets)


def test_a_device_without_a_key_keeps_in_the_clear_what_it_had_in_the_clear(stage: Stage) -> None:
    enrol(stage, "old", sealing=False)
    stage.roll_out(1)
    stage.commit("old")
    before = order_for(stage, "old")
    again = replace(wish_of(before.targets[0]), sealed=True)
    rollout = stage.services.deployments.create(again, actor=ME)
    assert stage.view(rollout)["by_reason"] == {"unsealing_failed": 1}
    assert order_for(stage, "old").targets == before.targets


def test_a_canary_without_a_key_pauses_the_rollout(stage: Stage) -> None:
    enrol(stage, "old", sealing=False)
    enrol(stage, "new")
    rollout = stage.roll_out(1, sealed=True, canaries=("old",))
    assert stage.state(rollout) == "paused"
    assert (stage.desired("old"), stage.desired("new")) == ([], [])


def test_a_late_device_gets_what_was_rolled_out_sealed_only_if_it_can_open_it(
    stage: Stage,
) -> None:
    enrol(stage, "a")
    rollout = stage.roll_out(1, sealed=True)
    stage.commit("a")
    key = enrol(stage, "late")
    enrol(stage, "old", sealing=False)
    assert opened(stage, "late", order_for(stage, "late").targets[0], key)
    assert stage.desired("old") == []
    assert stage.view(rollout)["by_reason"] == {"unsealing_failed": 1}


def test_a_device_with_a_new_seal_key_gets_its_order_sealed_for_it(stage: Stage) -> None:
    identity = new_key()
    enrol(stage, "a", identity)
    stage.roll_out(1, sealed=True)
    stage.commit("a")
    old = order_for(stage, "a")
    key = enrol(stage, "a", identity)
    order = order_for(stage, "a")
    assert (order.seq, order.targets) == (old.seq + 1, old.targets)
    assert opened(stage, "a", order.targets[0], key)
    enrol(stage, "a", identity, sealing=False)  # and one that lost its key gets nothing bare
    assert stage.desired("a") == []


def test_one_bundle_goes_out_sealed_to_some_and_in_the_clear_to_others(stage: Stage) -> None:
    enrol(stage, "a")
    enrol(stage, "b", sealing=False)
    stage.roll_out(1, sealed=True, to="id=a")
    (sealed,) = order_for(stage, "a").targets
    stage.commit("a")
    stage.services.deployments.create(replace(wish_of(sealed), to="id=b"), actor=ME)
    (clear,) = order_for(stage, "b").targets
    assert (clear.bundle_sha256, clear.sealed) == (sealed.bundle_sha256, None)
    assert order_for(stage, "a").targets == (sealed,)
    # and to the same device, from the clear to sealed: another target, so it is installed anew
    stage.services.deployments.create(replace(wish_of(sealed), to="id=a"), actor=ME)
    assert order_for(stage, "a").targets[0].sealed is None
    stage.commit("a")
    stage.services.deployments.create(replace(wish_of(sealed), to="id=a", sealed=True), actor=ME)
    assert order_for(stage, "a").targets == (sealed,)


def test_what_runs_sealed_and_no_rollout_remembers_stays_sealed(stage: Stage) -> None:
    key = enrol(stage, "a")
    stage.roll_out(1, sealed=True)
    stage.commit("a")
    order = order_for(stage, "a")
    with stage.services.room.work() as work:
        work.tx.rollouts.drop_device("a")
    stage.roll_out(1, model="sounds")
    stage.models["a"] = tuple(running(target) for target in order.targets)
    by_slot = {target.slot: target for target in order_for(stage, "a").targets}
    assert by_slot["digits"] == order.targets[0]
    assert opened(stage, "a", by_slot["digits"], key)
    assert by_slot["sounds"].sealed is None


def test_no_order_ever_leaves_with_a_draft(stage: Stage) -> None:
    enrol(stage, "a")
    stage.roll_out(1, sealed=True)
    stage.fail("a")
    stage.roll_out(2, sealed=True)
    stage.commit("a")
    stage.roll_out(3, sealed=True)
    stage.fail("a")
    with stage.services.room.store.begin() as tx:
        orders = [tx.orders.get("a", seq) for seq in range(1, 6)]
    sealed = [t.sealed for order in orders if order for t in order.targets if t.sealed]
    assert len(sealed) >= 4
    assert ZEROS not in {item.dek for item in sealed}
    assert base64.b64decode(ZEROS) == bytes(80)


def test_the_plain_files_are_handed_out_once_a_rollout_is_in_the_clear(
    stage: Stage, services: Services, publisher: PrivateKey, tmp_path: Path
) -> None:
    enrol(stage, "a")
    with serving(create_app(services)) as http:
        stage.roll_out(1, sealed=True)
        (target,) = order_for(stage, "a").targets
        manifest = parse_manifest(http.get(f"/blobs/{target.bundle_sha256}").content)
        plain = [f"/blobs/{file.sha256}" for file in manifest.files]
        assert [http.get(path).status_code for path in plain] == [404, 404]
        assert target.sealed is not None
        index = parse_index(http.get(f"/blobs/{target.sealed.index_sha256}").content)
        fetched = [http.get(f"/blobs/{file.sha256}").content for file in index.files]
        assert [sha256(raw) for raw in fetched] == [file.sha256 for file in index.files]
        assert not {file.sha256 for file in manifest.files} & {sha256(raw) for raw in fetched}
        name = f"/api/v1/bundles/{target.bundle_sha256}"
        assert http.get(name, headers=AUTH).json()["in_clear"] is False
        stage.services.deployments.create(wish_of(target), actor=ME)
        assert [http.get(path).status_code for path in plain] == [200, 200]
        assert http.get(name, headers=AUTH).json()["in_clear"] is True


def test_a_bundle_that_is_not_there_or_went_bad_is_not_sealed(
    stage: Stage, publisher: PrivateKey, tmp_path: Path
) -> None:
    enrol(stage, "a")
    wish = stage.bundle(1)
    with pytest.raises(NotFound):
        stage.services.deployments.create(replace(wish, bundle="0" * 64, sealed=True), actor=ME)
    with stage.services.room.store.begin() as tx:
        (file, _) = tx.bundles.files(wish.bundle)
    path = stage.services.room.shelf.path(file.sha256)  # type: ignore[attr-defined] # of files
    path.chmod(0o600)
    path.write_bytes(b"other.")
    with pytest.raises(OperatorError, match="gone bad"):
        stage.services.deployments.create(replace(wish, sealed=True), actor=ME)
    assert stage.desired("a") == []


@pytest.mark.parametrize("wrong", ["other", "missing", "low"])
def test_a_seal_key_that_the_device_does_not_vouch_for_is_refused(
    services: Services, wrong: str
) -> None:
    key = new_key()
    claim = services.enrolment.make_claim(uses=9, hours=1, actor=ME)[1].render()
    good = render_seal_key(X25519PrivateKey.generate().public_key())
    request = request_of(claim, "pi-1", key, seal_key=good)
    changed = {
        "other": replace(request, seal_key="ab" * 32),
        "missing": replace(request, seal_key=""),
        "low": request_of(claim, "pi-1", key, seal_key="00" * 32),
    }[wrong]
    with pytest.raises(Malformed, match="seal"):
        services.enrolment.enrol(changed, address="")
    services.enrolment.enrol(request, address="")
    with services.room.store.begin() as tx:
        found = tx.devices.get("pi-1")
    assert found is not None
    assert found.seal_key == good


def test_the_request_that_an_agent_makes_vouches_for_its_seal_key() -> None:
    key = PrivateKey.generate_p256()
    said = render_seal_key(X25519PrivateKey.generate().public_key())
    assert open_request(certificate_request(key, "pi-1", seal_key=said)).seal_key == said
    assert open_request(certificate_request(key, "pi-1")).seal_key == ""


def test_the_key_of_a_bundle_shows_itself_nowhere(stage: Stage, caplog: object) -> None:
    enrol(stage, "a")
    rollout = stage.roll_out(1, sealed=True)
    with stage.services.room.store.begin() as tx:
        sealing = tx.sealings.get(order_for(stage, "a").targets[0].bundle_sha256)
        trail = repr(tx.ledger.audit())
    assert sealing is not None
    for text in (repr(sealing), trail, repr(stage.view(rollout)), caplog.text):  # type: ignore[attr-defined] # the fixture
        assert sealing.dek.raw.hex() not in text
        assert repr(sealing.dek.raw) not in text


# the store, on both data bases


def test_a_key_is_kept_once_and_what_is_withheld_is_known(
    store: Store, tmp_path: Path, publisher: PrivateKey
) -> None:
    one, two = make_dek(), make_dek()
    folder = write_bundle(tmp_path, publisher)
    raw = (folder / "bundle.json").read_bytes()
    manifest, digest = parse_manifest(raw), sha256(raw)
    with store.begin() as tx:
        assert tx.sealings.get(digest) is None
        tx.sealings.add(Sealing(digest, one, sha256(b"index")), at=1)
        tx.sealings.add(Sealing(digest, two, sha256(b"other")), at=2)
        assert tx.sealings.get(digest) == Sealing(digest, one, sha256(b"index"))
        for signature in (b"one", b"two"):
            tx.bundles.add(
                manifest,
                digest=digest,
                signature_sha256=sha256(signature),
                size=1,
                at=1,
                by="me",
                signer="",
            )
        blob = manifest.files[0].sha256
        assert tx.bundles.is_withheld(blob)
        assert not tx.bundles.is_withheld(digest)
        tx.bundles.set_in_clear(digest)
        assert not tx.bundles.is_withheld(blob)
        assert [bundle.in_clear for bundle in tx.bundles.list()] == [True, True]


def test_the_seal_key_of_a_device_goes_with_it(store: Store) -> None:
    with store.begin() as tx:
        tx.devices.enrol(
            "a", key_id="k", serial="1", expires=9, at=1, capabilities=PI5, seal_key="ab" * 32
        )
        found = tx.devices.get("a")
        assert found is not None
        assert found.seal_key == "ab" * 32
        tx.devices.forget("a")
        gone = tx.devices.get("a")
    assert gone is not None
    assert gone.seal_key == ""
