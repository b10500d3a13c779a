"""Lanes to other machines: the token, TLS, what is not let in, and connections that wait to be accepted."""

import asyncio
import datetime
import json
import socket
import ssl
from contextlib import suppress

import pytest
from laid_lanes import BODY, all_of, cluster, go, lane_of, until

from deployments.lane import server, sockets
from deployments.lane.address import Address, address_of, private
from deployments.lane.client import Lane
from deployments.lane.listening import Listening
from deployments.lane.server import LaneServer, Network

LOCAL = Network("127.0.0.1")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sockets.tempfile, "gettempdir", lambda: "/tmp" if len(str(tmp_path)) > 60 else str(tmp_path))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two self-signed certificates with their keys: (ours, its key, another's)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    made = []
    for name in ("ours", "another"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        place = tmp_path_factory.mktemp(name)
        (place / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        (place / "key.pem").write_bytes(secret)
        made.append((str(place / "certificate.pem"), str(place / "key.pem")))
    return *made[0], made[1][0]


def test_a_replica_on_another_machine_answers_by_tcp():
    async def scenario():
        async with cluster(2, here="elsewhere", network=LOCAL) as (tier, made):
            for n in range(10):
                assert await tier.complete("chat/completions", BODY, None, f"c{n}")
            assert await all_of(tier)
            assert tier.handle.calls == 0 and sum(len(replica.asked) for replica in made.replicas) == 11
            (line, *_) = next(iter(tier.lanes.lanes.values())).free
            found = line.transport.get_extra_info("socket")
            assert found.family == socket.AF_INET and found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10

    go(scenario)


def test_on_the_same_machine_the_socket_is_used_and_tcp_where_the_file_system_is_another():
    async def scenario():
        async with cluster(1, network=LOCAL) as (tier, made):
            lane = lane_of(tier)
            assert lane.free[0].transport.get_extra_info("socket").family == socket.AF_UNIX
            told = made.ends[0].address.told() | {"path": "/nowhere/at-all"}
            other = Lane("r", address_of(told), "here")
            other.look()
            await other.looking
            assert other.free[0].transport.get_extra_info("socket").family == socket.AF_INET
            other.close()

    go(scenario)


@pytest.mark.parametrize(
    "line",
    [b'["wrong"]\n', b"[]\n", b"[7]\n", b'["chat/completions", 0, "", [], ""]\n', b"{}\n", b"\n", b"x" * 300, b'["\xff"]\n'],
)
def test_who_does_not_know_the_token_is_cut_off_at_once(line):
    async def scenario():
        async with cluster(1, network=LOCAL) as (_, made):
            address = made.ends[0].address
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(line + b'["chat/completions", 2, "", [], ""]\n{}')
            with suppress(ConnectionError):
                assert await reader.read() == b""
            assert not made.replicas[0].asked
            writer.close()

    go(scenario)


def test_who_says_nothing_is_cut_off_after_a_while_and_who_knows_the_token_may_wait(monkeypatch):
    monkeypatch.setattr(server, "GREETING_S", 0.05)

    async def scenario():
        async with cluster(1, network=LOCAL) as (_, made):
            address = made.ends[0].address
            silent, silent_writer = await asyncio.open_connection(address.host, address.port)
            knows, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(json.dumps([address.token]).encode() + b"\n")
            with suppress(ConnectionError):
                assert await silent.read() == b""
            await asyncio.sleep(0.05)
            writer.write(b'["chat/completions", 2, "", [], ""]\n{}')
            assert (await knows.readline()).startswith(b"[200,")
            writer.close()
            silent_writer.close()

    go(scenario)


def test_the_token_is_not_shown_and_each_replica_has_its_own():
    async def scenario():
        async with cluster(2, network=LOCAL) as (_, made):
            tokens = {end.address.token for end in made.ends}
            assert len(tokens) == 2 and min(map(len, tokens)) >= 40
            assert not any(token in repr(end.address) for token in tokens for end in made.ends)

    go(scenario)


def test_tls_is_used_where_a_certificate_is_named(certificates):
    ours, key, another = certificates

    async def scenario():
        network = Network("127.0.0.1", ours, key)
        async with cluster(1, here="elsewhere", network=network, context=sockets.asking(ours)) as (tier, made):
            assert await tier.complete("chat/completions", BODY) and tier.handle.calls == 0
            assert lane_of(tier).free[0].transport.get_extra_info("cipher")
            address = made.ends[0].address
            stranger = Lane("r", address, "elsewhere", context=sockets.asking(another))
            plain = Lane("r", address, "elsewhere")
            assert not plain.ways  # never a token in clear to a port that asks for TLS
            stranger.look()
            await stranger.looking
            assert stranger.way is None
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(json.dumps([address.token]).encode() + b'\n["chat/completions", 2, "", [], ""]\n{}')
            with suppress(ConnectionError):
                assert b"200" not in await reader.read()
            writer.close()
            assert len(made.replicas[0].asked) == 1

    go(scenario)


def test_without_a_certificate_only_private_addresses_are_used():
    async def scenario():
        end = LaneServer(None, "public", "here", network=Network("8.8.8.8"))
        await end.start()
        assert end.address.path and not end.address.port
        await end.close()
        assert not Lane("r", Address("there", "", "8.8.8.8", 7, "token"), "here").ways
        assert not Lane("r", Address("there", "", "10.0.0.1", 7, ""), "here").ways
        assert len(Lane("r", Address("there", "", "10.0.0.1", 7, "token"), "here").ways) == 1

    go(scenario)
    assert all(map(private, ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "::1", "fd00::1"]))
    assert not any(map(private, ["8.8.8.8", "2001:4860:4860::8888", "node-7", "", "0.0.0.0", "100.64.0.1"]))


def test_an_address_that_cannot_be_listened_on_or_a_certificate_that_cannot_be_read_leaves_the_socket(tmp_path, caplog):
    async def scenario():
        for network in (Network("10.255.255.1"), Network("127.0.0.1", str(tmp_path / "no"), str(tmp_path / "no"))):
            end = LaneServer(None, f"left-{id(network)}", "here", network=network)
            await end.start()
            assert end.address.path and not end.address.port and "no lane to this replica from other machines" in caplog.text
            await end.close()
            caplog.clear()

    go(scenario)


def test_what_a_replica_told_is_read_again_and_what_is_odd_is_no_address():
    address = Address("m", "/p", "10.0.0.1", 7, "t", True)
    assert address_of(json.loads(json.dumps(address.told()))) == address
    assert address_of({**address.told(), "newer": 1}) == address
    assert address_of({}) is None and address_of({"machine": 5}) is None and address_of({"machine": "m", "port": "7"}) is None


def test_all_connections_that_wait_are_accepted_in_one_turn():
    async def scenario():
        bound = sockets.tcp_socket("127.0.0.1")
        made = []

        def protocol():
            made.append(1)
            return asyncio.Protocol()

        listening = Listening(bound, protocol)
        clients = [socket.create_connection(bound.getsockname()) for _ in range(50)]
        listening.accept()
        assert len(listening.tasks) == 50
        await until(lambda: len(made) == 50)
        for client in clients:
            client.close()
        listening.close()
        listening.close()
        assert not listening.open

    go(scenario)


def test_where_no_more_files_may_be_opened_accepting_rests_and_goes_on():
    class Full:
        """A socket whose process has no file left for its connection."""

        def __init__(self, bound):
            self.bound, self.full, self.asked = bound, True, 0

        def accept(self):
            self.asked += 1
            if self.full:
                raise OSError(24, "Too many open files")
            return self.bound.accept()

        def __getattr__(self, name):
            return getattr(self.bound, name)

    async def scenario():
        made = []
        bound = Full(sockets.tcp_socket("127.0.0.1"))
        listening = Listening(bound, lambda: made.append(1) or asyncio.Protocol())
        client = socket.create_connection(bound.getsockname())
        await until(lambda: bound.asked)
        bound.full = False
        await asyncio.sleep(0.05)
        assert bound.asked == 1  # it rests
        await until(lambda: made)
        client.close()
        listening.close()

    go(scenario)


def test_a_context_for_tls_trusts_nothing_else(certificates):
    ours, _, _ = certificates
    context = sockets.asking(ours)
    assert context.verify_mode is ssl.CERT_REQUIRED and len(context.get_ca_certs()) == 1
    with pytest.raises(OSError):
        sockets.asking("/nowhere")
