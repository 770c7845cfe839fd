"""A server of this computer stands for bioimage.io: honest, broken, or hostile."""

from __future__ import annotations

import hashlib
import itertools
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml

from napari_unet.errors import ModelError
from napari_unet.models.bioimageio import download, fetch
from napari_unet.models.opening import load_model

NAME = "affable-shark"


class Server(ThreadingHTTPServer):
    """Sends files by their path, or does what is said for a path instead."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.instead: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[str] = []

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name is of the standard library
        server = self.server
        assert isinstance(server, Server)
        server.asked.append(self.path)
        if self.path in server.instead:
            server.instead[self.path](self)
        elif self.path in server.files:
            self.start(len(server.files[self.path]))
            self.wfile.write(server.files[self.path])
        else:
            self.send_error(404)

    def start(self, length: int | None) -> None:
        """Begin an answer that says how long it is, or does not."""
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Be quiet."""


def lead_to(address: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.end_headers()

    return answer


def send_half(handler: Handler) -> None:
    handler.start(1000)
    handler.wfile.write(b"x" * 500)


def send_without_end(handler: Handler) -> None:
    handler.start(None)
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        pass


def drip(handler: Handler) -> None:
    handler.start(10**6)
    try:
        for _ in itertools.repeat(None, 200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass


@pytest.fixture(scope="module")
def network() -> bytes:
    from napari_unet.models.onnx.writer import write_onnx
    from napari_unet.network.unet import UNet
    from napari_unet.network.unet_graph import as_graph
    from napari_unet.settings import Architecture

    torch.manual_seed(0)
    return write_onnx(*as_graph(UNet(Architecture(widths=(3, 4)))), "none", 32, {})


def described(weights: bytes, **changes: object) -> dict:
    axes = [
        {"type": "batch"},
        {"type": "channel", "channel_names": ["a"]},
        {"type": "space", "id": "y"},
        {"type": "space", "id": "x"},
    ]
    entry = {"source": "weights.onnx", "sha256": hashlib.sha256(weights).hexdigest(), **changes}
    return {
        "format_version": "0.5.4",
        "type": "model",
        "name": "A model",
        "inputs": [{"id": "raw", "axes": axes}],
        "outputs": [{"id": "out", "axes": axes}],
        "weights": {"onnx": entry},
    }


@pytest.fixture
def server(network, tmp_path, monkeypatch) -> Generator[Server]:
    """Serve a model; the address of bioimage.io leads to it."""
    import bioimageio.spec

    server = Server()
    server.files = {
        f"/{NAME}/rdf.yaml": yaml.safe_dump(described(network)).encode(),
        f"/{NAME}/weights.onnx": network,
    }
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    pattern = server.address("/{bioimageio_id}/rdf.yaml")
    monkeypatch.setattr(bioimageio.spec.settings, "collection_http_pattern", pattern)
    monkeypatch.setattr(bioimageio.spec.settings, "id_map", server.address("/id_map.json"))
    monkeypatch.setattr(download, "user_folder", lambda: tmp_path / "models")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(server: Server, tmp_path: Path) -> str:
    """Fetch, and say in which words it was refused; no file may be left behind."""
    with pytest.raises(ModelError) as raised:
        fetch(NAME)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    return str(raised.value)


def test_a_model_is_fetched_once_and_found_again(server):
    first, second = fetch(NAME), fetch(NAME)
    assert first == second
    assert server.asked == [f"/{NAME}/rdf.yaml", f"/{NAME}/weights.onnx"]
    assert load_model(first).card.name == "A model"


def test_a_doi_is_looked_up_in_the_list_of_models(server):
    address = server.address(f"/{NAME}/rdf.yaml")
    server.files["/id_map.json"] = b'{"10.5281/zenodo.1": {"source": "%s"}}' % address.encode()
    assert zipfile.is_zipfile(fetch("10.5281/zenodo.1"))
    with pytest.raises(ModelError, match="no model has the DOI"):
        fetch("10.5281/zenodo.2")


def test_a_server_may_lead_to_another_address(server):
    server.files["/elsewhere"] = server.files.pop(f"/{NAME}/weights.onnx")
    server.instead[f"/{NAME}/weights.onnx"] = lead_to(server.address("/elsewhere"))
    assert load_model(fetch(NAME)).card.name == "A model"


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/weights"])
def test_a_server_may_not_lead_out_of_the_web(server, address, tmp_path):
    server.instead[f"/{NAME}/weights.onnx"] = lead_to(address)
    assert "could not be downloaded" in refused(server, tmp_path)


def test_a_description_may_not_name_files_of_this_computer(server, network, tmp_path):
    told = described(network, source="file:///etc/passwd")
    server.files[f"/{NAME}/rdf.yaml"] = yaml.safe_dump(told).encode()
    assert "no address of the web" in refused(server, tmp_path)


def test_going_in_circles_ends(server, tmp_path):
    server.instead[f"/{NAME}/rdf.yaml"] = lead_to(server.address(f"/{NAME}/rdf.yaml"))
    assert "could not be downloaded" in refused(server, tmp_path)


def test_a_wrong_checksum_is_told(server, tmp_path):
    server.files[f"/{NAME}/weights.onnx"] += b"x"
    assert "another checksum" in refused(server, tmp_path)


def test_weights_without_a_checksum_are_not_taken(server, network, tmp_path):
    told = described(network, sha256="")
    server.files[f"/{NAME}/rdf.yaml"] = yaml.safe_dump(told).encode()
    assert "no checksum" in refused(server, tmp_path)


def test_a_connection_that_breaks_off_is_told(server, tmp_path):
    server.instead[f"/{NAME}/weights.onnx"] = send_half
    assert "broke off after 500 of 1000 bytes" in refused(server, tmp_path)


def test_a_server_that_sends_next_to_nothing_is_not_waited_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_FIRST_LOOK_S", 0.2)
    server.instead[f"/{NAME}/weights.onnx"] = drip
    assert "next to nothing" in refused(server, tmp_path)


def test_a_server_that_says_nothing_is_not_waited_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_SILENCE_S", 0.2)
    server.instead[f"/{NAME}/weights.onnx"] = lambda handler: time.sleep(1)
    assert "timed out" in refused(server, tmp_path)


@pytest.mark.parametrize("path", ["rdf.yaml", "weights.onnx"])
def test_what_has_no_end_is_not_received(server, path, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST_FILE", 10**6)
    server.instead[f"/{NAME}/{path}"] = send_without_end
    assert "is larger than" in refused(server, tmp_path)


def test_what_says_that_it_is_too_large_is_not_begun(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST_FILE", 10**6)
    server.instead[f"/{NAME}/weights.onnx"] = lambda handler: handler.start(10**12)
    assert "is larger than" in refused(server, tmp_path)


def test_a_model_that_is_not_there_is_told(server, tmp_path):
    server.files.clear()
    sentence = refused(server, tmp_path)
    assert "404" in sentence
    assert "Check the name and the connection" in sentence


def test_no_connection_is_told(server, tmp_path, monkeypatch):
    import bioimageio.spec

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    pattern = f"http://127.0.0.1:{port}/{{bioimageio_id}}"
    monkeypatch.setattr(bioimageio.spec.settings, "collection_http_pattern", pattern)
    assert "Check the name and the connection" in refused(server, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"no description", b"weights: [", b"a: &a [*a]", b"!!python/object:os.x {}"]
)
def test_a_description_that_is_none_is_told(server, content, tmp_path):
    server.files[f"/{NAME}/rdf.yaml"] = content
    assert "could not be downloaded" in refused(server, tmp_path)


def test_a_nickname_that_is_none_is_told():
    with pytest.raises(ModelError, match="no nickname"):
        fetch("Not A Nickname")
