"""What the server refuses, and how it ends."""

import contextlib
import resource
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from deploy.client import CLIENT, FILES, encoded, error, send, slow_image
from deploy.conftest import Start
from images import claiming


def test_names_and_origins_can_be_allowed(start: Start) -> None:
    server = start(hosts="['Models.example']", origins="['https://site.example']")
    content = FILES[0].read_bytes()
    assert send(server.url, content, Host="models.example:80").status_code == 200
    answered = send(server.url, content, Origin="https://site.example")
    assert answered.headers["access-control-allow-origin"] == "https://site.example"
    assert send(server.url, content, Origin="https://other.example").status_code == 403


def test_too_much_is_refused(start: Start) -> None:
    server = start("body_bytes=20_000, parts=2")
    content = FILES[0].read_bytes()
    many = [("image", ("a.png", content))] * 3
    assert error(CLIENT.post(f"{server.url}/predict", files=many))[:2] == (400, "unusable_form")
    fields = {f"field{number}": "x" for number in range(3)}
    assert error(CLIENT.post(f"{server.url}/predict", files=many[:1], data=fields))[:2] == (400, "unusable_form")
    assert error(send(server.url, b"x" * 20_001))[:2] == (413, "too_large")
    assert error(send(server.url, b"x" * 1_000_000))[:2] == (413, "too_large")
    assert send(server.url, content).status_code == 200


def test_many_large_images_in_one_request_are_refused(server: str) -> None:
    content = encoded(Image.new("L", (3500, 3500)))
    form = [("image", (f"{number}.png", content)) for number in range(2)]
    status, _, message = error(CLIENT.post(f"{server}/predict", files=form))
    assert status == 422
    assert message.startswith("1.png: more than 16 million pixels in one request")


def test_overload_is_refused_at_once_and_passes(start: Start) -> None:
    server, content = start("large_requests=1"), slow_image()
    with ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(lambda _: send(server.url, content), range(8)))
    refused = [response for response in responses if response.status_code == 503]
    assert len(refused) >= 4
    assert {error(response)[1] for response in refused} == {"busy"}
    assert refused[0].headers["retry-after"] == "1"
    assert {response.status_code for response in responses} == {200, 503}
    assert send(server.url, FILES[0].read_bytes()).status_code == 200


def test_bodies_in_memory_are_limited_together_and_forgotten(start: Start) -> None:
    server = start("buffered_bytes=10_000, body_bytes=20_000")
    assert error(send(server.url, b"x" * 15_000))[:2] == (503, "busy")
    for _ in range(10):
        assert error(send(server.url, b"x" * 8_000))[:2] == (422, "unusable_image")
        assert error(send(server.url, b"x" * 25_000))[0] in (413, 503)


@pytest.mark.parametrize(
    "beginning", [b"", b"POST /predict HTTP/1.1\r\nHost: localh", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"]
)
def test_a_client_that_trickles_its_headers_is_cut(start: Start, beginning: bytes) -> None:
    server = start("timeout_seconds=0.5")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(beginning)
        client.settimeout(60)
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                client.sendall(b"x")
                time.sleep(0.05)
    assert CLIENT.get(f"{server.url}/health").status_code == 200


def test_a_client_that_trickles_its_body_is_told_and_cut(start: Start) -> None:
    server = start("timeout_seconds=0.5")
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head)
        client.settimeout(0.05)
        said, left = b"", 999  # one byte fewer than announced: the body is never complete
        while b"too_slow" not in said and left:
            client.sendall(b"x")
            left -= 1
            with contextlib.suppress(TimeoutError):
                said += client.recv(10_000)
    assert said.startswith(b"HTTP/1.1 408")


def test_a_client_that_goes_away_does_no_harm(start: Start) -> None:
    server = start("buffered_bytes=2_000", stderr=-1)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 2000\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head + b"x" * 1500)
    time.sleep(0.3)
    assert send(server.url, b"x" * 1900).status_code == 422  # what they sent is no longer held
    server.process.terminate()
    assert server.process.communicate(timeout=30)[1] == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_open_requests(start: Start, number: signal.Signals) -> None:
    server, content = start(), slow_image()
    responses: list[httpx.Response] = []
    client = threading.Thread(target=lambda: responses.append(send(server.url, content)))
    client.start()
    time.sleep(0.3)
    server.process.send_signal(number)
    client.join()
    assert responses[0].status_code == 200
    assert server.process.wait(10) == 0


def answered(client: socket.socket) -> bool:
    """Returns whether the whole response is there, and is one of predictions."""
    client.settimeout(20)
    answer = b""
    while not answer.endswith(b"}"):
        answer += (more := client.recv(65536))
        if not more:
            return False
    return answer.startswith(b"HTTP/1.1 200 ") and b'"milliseconds"' in answer


def test_requests_that_were_sent_are_answered_before_the_end(start: Start) -> None:
    server, content = start(), FILES[0].read_bytes()
    request = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%b" % (
        len(content),
        content,
    )
    kept = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for client in kept:
        client.sendall(request)
        assert answered(client)
    fresh = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    server.process.send_signal(signal.SIGSTOP)  # all of them arrive while the server cannot look
    for client in (*kept, *fresh):
        client.sendall(request)
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGCONT)
    for client in (*kept, *fresh):
        assert answered(client)
        client.close()
    assert server.process.wait(20) == 0


def test_large_images_keep_small_ones_waiting_for_no_second(start: Start) -> None:
    server, large, small = start(), slow_image(), FILES[0].read_bytes()
    stop = threading.Event()

    def flood() -> list[int]:
        codes = []
        while not stop.is_set():
            codes.append(send(server.url, large).status_code)
        return codes

    with ThreadPoolExecutor(12) as clients:
        floods = [clients.submit(flood) for _ in range(12)]
        time.sleep(0.5)
        waited = []
        for _ in range(20):
            begun = time.monotonic()
            assert send(server.url, small).status_code == 200
            waited.append(time.monotonic() - begun)
        stop.set()
    codes = {code for found in floods for code in found.result()}
    assert codes <= {200, 503}
    assert 200 in codes
    assert sorted(waited)[10] < 1


def test_a_few_bytes_that_claim_millions_of_pixels_are_refused(server: str) -> None:
    for content in (claiming(7999, 7999), claiming(1, 64_000_000), claiming(40_000, 1)):
        status, code, message = error(send(server, content))
        assert (status, code) == (422, "unusable_image")
        assert "make it smaller" in message or "send fewer or smaller images" in message


@pytest.mark.parametrize(
    "host",
    ["evil@127.0.0.1", "127.0.0.1/evil", "127.0.0.1:x", "[127.0.0.1", "127.0.0.1 evil", "127.0.0.1#", "other.example", ""],
)
def test_hosts_that_only_look_like_ours_are_refused(server: str, host: str) -> None:
    assert error(send(server, b"", Host=host))[:2] == (421, "wrong_host")


@pytest.mark.parametrize("scheme", ["x", "ftp", "file", "javascript"])
def test_origins_of_other_schemes_are_refused(server: str, scheme: str) -> None:
    address = server.removeprefix("http://")
    assert error(send(server, b"", Origin=f"{scheme}://{address}"))[:2] == (403, "wrong_origin")
    assert send(server, FILES[0].read_bytes(), Origin=server).status_code == 200


def test_too_many_headers_are_refused(server: str) -> None:
    assert error(send(server, b"", **{f"X-{number}": "1" for number in range(120)}))[:2] == (431, "too_many_headers")


def test_nothing_that_is_uploaded_is_written(start: Start) -> None:
    server = start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))  # a written byte would be an error
    large = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (1000, 1500, 3), np.uint8)))
    assert len(large) > 4_000_000
    assert CLIENT.post(f"{server.url}/predict", files={"image": large}).status_code == 200


def responds(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:  # as many connections as there may be: closed, or reset
        return False


def test_those_who_never_read_lock_nobody_out(start: Start) -> None:
    server = start("timeout_seconds=0.5, connections=3")
    deaf = []
    for _ in range(3):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        deaf.append(client)
        for _ in range(100_000):
            try:
                client.send(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
            except BlockingIOError:  # the server has stopped taking: it waits for us to read
                break
    patience = time.monotonic() + 30  # a busy machine takes a while until the time limit starts
    while not responds(server.url):
        assert time.monotonic() < patience
        time.sleep(0.2)
    for client in deaf:
        client.close()
