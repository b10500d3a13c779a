"""Models from a folder, the hub's cache and a hub."""

import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deployments.fit.model_files import cached_folder, model_of
from router.errors import UnknownShape
from router.fit.families import known

CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
TENSORS = {"__metadata__": {"format": "pt"}, "model.x": {"data_offsets": [0, 600]}, "visual.y": {"data_offsets": [600, 1000]}}


def weights(tensors=TENSORS):
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + bytes(1000)


@pytest.fixture
def files():
    return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights()}


@pytest.fixture
def folder(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_folders_weights_are_those_of_the_headers(folder):
    model = model_of(str(folder), known(), online=False)
    assert model.checkpoints[0].bytes_of(model.shape) == 600
    assert model.family.licence == {"id": "unknown"}


def test_without_weights_they_are_counted(folder):
    (folder / "model.safetensors").unlink()
    model = model_of(str(folder), known(), online=False)
    assert model.checkpoints[0].bytes_of(model.shape) == 2 * model.shape.total


def test_all_files_of_an_index_count(folder):
    (folder / "part-1.safetensors").write_bytes(weights())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "part-1.safetensors", "b": "model.safetensors"}})
    )
    assert model_of(str(folder), known(), online=False).checkpoints[0].measured == 1200


def test_a_model_in_the_hubs_cache_is_found(tmp_path, folder, monkeypatch):
    snapshot = tmp_path / "hub" / "models--us--mine" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert cached_folder("us/mine") == snapshot and cached_folder("us/other") is None
    assert model_of("us/mine", known(), online=False).shape.context == 512


def test_an_unknown_model_asks_for_its_config(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UnknownShape, match="us/mine: neither a folder.*config.json, or read it from the hub with --online"):
        model_of("us/mine", known(), online=False)


@pytest.mark.parametrize("content, said", [(b"not", "is not JSON"), (b"[]", "holds no JSON object")])
def test_a_config_that_is_none_is_refused(folder, content, said):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UnknownShape, match=said):
        model_of(str(folder), known(), online=False)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(UnknownShape, match="has no config.json"):
        model_of(str(tmp_path), known(), online=False)


@pytest.fixture
def hub(files, monkeypatch, tmp_path):
    """A hub on this machine; yields the bytes that it sent of each file."""
    sent: dict[str, int] = {}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rsplit("/", 1)[1]
            content = files.get(name)
            if content is None or not self.path.startswith("/us/mine/resolve/main/"):
                self.send_error(404)
                return
            wanted = self.headers.get("range")
            if wanted:
                first, last = map(int, wanted.removeprefix("bytes=").split("-"))
                content = content[first : last + 1]
            sent[name] = sent.get(name, 0) + len(content)
            self.send_response(206 if wanted else 200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    yield sent
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_online_only_headers_are_read(hub):
    model = model_of("us/mine", known(), online=True)
    assert model.checkpoints[0].measured == 600
    assert hub["model.safetensors"] < 300


@pytest.mark.slow
def test_a_model_that_the_hub_does_not_have_is_refused(hub):
    with pytest.raises(UnknownShape, match="us/other: has no config.json"):
        model_of("us/other", known(), online=True)
