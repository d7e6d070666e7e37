"""The server on real sockets: predictions, and one message for each request that it refuses."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from conftest import Command
from deploy.client import CLIENT, FILES, encoded, error, send
from images import claiming
from sprintnet.deploy.predictor import Predictor
from sprintnet.deploy.serve.server import listen

FORM = "multipart/form-data; boundary="
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_predictions_are_the_predictors(server: str, model: Path) -> None:
    expected = Predictor(model)(FILES)
    assert expected.activation_maps is not None
    form = [("image", (file.name, file.read_bytes(), "image/png")) for file in FILES]
    response = CLIENT.post(f"{server}/predict?top=10&activation_maps=true", files=form)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["milliseconds"] > 0
    assert [image["file"] for image in body["images"]] == [file.name for file in FILES]
    for image, top, row, maps in zip(
        body["images"], expected.top(10), expected.probabilities, expected.activation_maps, strict=True
    ):
        assert [entry["class"] for entry in image["top"]] == [label for label, _ in top]
        assert [entry["probability"] for entry in image["top"]] == pytest.approx(sorted(row, reverse=True), abs=1e-5)
        assert (image["predicted"], image["confidence"]) == (top[0][0], pytest.approx(row.max(), abs=1e-5))
        for entry in image["top"]:
            assert np.array(entry["activation_map"]) == pytest.approx(maps[expected.classes.index(entry["class"])], abs=1e-4)


def test_one_image_is_the_whole_body_or_a_form(server: str) -> None:
    content = FILES[0].read_bytes()
    raw = send(server, content).json()["images"]
    assert len(raw[0]["top"]) == 5
    assert "activation_map" not in raw[0]["top"][0]
    assert CLIENT.post(f"{server}/predict", files={"any": content}).json()["images"][0]["top"] == raw[0]["top"]
    assert send(server, content, "?top=1000").json()["images"][0]["top"][:5] == raw[0]["top"]


def test_many_clients_at_once_get_their_own_predictions(server: str) -> None:
    contents = [file.read_bytes() for file in FILES] + [encoded(Image.fromarray(NOISE)), encoded(Image.new("RGB", (900, 700)))]
    alone = [send(server, content).json()["images"] for content in contents]
    with ThreadPoolExecutor(len(contents)) as clients:
        together = list(clients.map(lambda content: send(server, content).json()["images"], contents * 5))
    for one, other in zip(alone * 5, together, strict=True):
        assert [entry["class"] for entry in one[0]["top"]] == [entry["class"] for entry in other[0]["top"]]
        assert [entry["probability"] for entry in one[0]["top"]] == pytest.approx(
            [entry["probability"] for entry in other[0]["top"]], abs=1e-5
        )


def test_what_the_server_says_about_itself(server: str, model: Path) -> None:
    for host in ("localhost", "10.0.0.7:8000"):  # an orchestrator asks by an address that nobody knew before
        assert CLIENT.get(f"{server}/health", headers={"Host": host}).json() == {"status": "ok"}
    metadata = CLIENT.get(f"{server}/metadata").json()
    assert metadata["preprocessing"]["classes"] == list(Predictor(model).classes)
    assert metadata["samples"] == [f"samples/{number}.png" for number in range(1, 9)]
    assert CLIENT.get(f"{server}/{metadata['samples'][0]}").headers["content-type"] == "image/png"
    assert str(model.parents[1]) not in json.dumps(metadata)
    assert "recipe" not in metadata  # it names folders of the machine that trained
    page = CLIENT.get(server)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "wasm" not in page.headers["content-security-policy"]
    report = CLIENT.get(f"{server}/{metadata['report']}")
    assert "SprintNet report" in report.text


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
        encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)),
        encoded(Image.fromarray(NOISE).quantize(16)),
        encoded(Image.fromarray(NOISE).convert("1")),
        encoded(Image.fromarray(NOISE).convert("LA")),
        encoded(Image.fromarray(NOISE), "WEBP", save_all=True, append_images=[Image.fromarray(255 - NOISE)]),
        encoded(Image.fromarray(NOISE[:1, :1])),
    ],
    ids=["CMYK", "16 bits", "palette", "black and white", "transparent", "animated", "one pixel"],
)
def test_unusual_images_are_predicted_as_from_a_file(server: str, model: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image").write_bytes(content)
    expected = Predictor(model)([tmp_path / "image"]).confidences[0]
    assert send(server, content).json()["images"][0]["top"][0]["probability"] == pytest.approx(expected, abs=1e-5)


def test_an_orientation_tag_is_obeyed(server: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(NOISE).transpose(Image.Transpose.ROTATE_90), exif=exif)
    upright = encoded(Image.fromarray(NOISE))
    assert send(server, turned).json()["images"] == send(server, upright).json()["images"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "unknown format"),
        (b"just text", "unknown format"),
        (FILES[0].read_bytes()[:600], "truncated"),
        (encoded(Image.fromarray(NOISE), "BMP"), "it is a BMP file; convert it"),
        (encoded(Image.fromarray(NOISE), "GIF"), "it is a GIF file; convert it"),
        (claiming(10_000, 10_000), "more than 16 million pixels"),
        (claiming(100_000, 100_000), "million pixels"),
    ],
    ids=["zero bytes", "text", "truncated", "BMP", "GIF", "100 megapixels", "10,000 megapixels"],
)
def test_what_is_no_image_is_said_by_its_name(server: str, content: bytes, said: str) -> None:
    form = [("image", ("good.png", FILES[0].read_bytes())), ("image", ("bad\n<b>.png", content))]
    status, code, message = error(CLIENT.post(f"{server}/predict", files=form))
    assert (status, code) == (422, "unusable_image")
    assert message.startswith("bad")
    assert said in message
    assert "/" not in message.replace("</", "")
    assert " at 0x" not in message
    assert error(send(server, content))[:2] == (422, "unusable_image")


@pytest.mark.parametrize(
    ("query", "headers", "refused"),
    [
        ("", {"Host": "evil.example"}, (421, "wrong_host")),
        ("", {"Host": "localhost:1]["}, (421, "wrong_host")),
        ("", {"Origin": "http://evil.example"}, (403, "wrong_origin")),
        ("", {"Origin": "null"}, (403, "wrong_origin")),
        ("", {"Origin": "http://localhost:1"}, (403, "wrong_origin")),
        ("", {"Content-Type": "text/html"}, (415, "wrong_content_type")),
        ("", {"Content-Type": "multipart/form-data"}, (400, "unusable_form")),
        ("", {"Content-Type": "multipart/form-data; boundary=x"}, (400, "unusable_form")),
        ("?top=0", {}, (400, "bad_query")),
        ("?top=many", {}, (400, "bad_query")),
        ("?tpo=3", {}, (400, "bad_query")),
        ("?activation_maps=perhaps", {}, (400, "bad_query")),
    ],
)
def test_a_request_that_will_not_do_gets_one_message(
    server: str, query: str, headers: dict[str, str], refused: tuple[int, str]
) -> None:
    assert error(send(server, FILES[0].read_bytes(), query, **headers))[:2] == refused


def test_other_addresses_and_methods_are_refused_in_json(server: str) -> None:
    remedy = "use POST /predict, or GET /health, /metadata, /openapi.json or / (the page)"
    assert error(CLIENT.get(f"{server}/nothing")) == (404, "not_found", f"Not Found; {remedy}")
    assert error(CLIENT.get(f"{server}/predict")) == (405, "wrong_method", f"Method Not Allowed; {remedy}")
    assert error(CLIENT.get(f"{server}/../../etc/passwd"))[:2] == (404, "not_found")
    assert error(CLIENT.post(f"{server}/predict", data={"image": "text"}))[:2] == (415, "wrong_content_type")
    assert error(CLIENT.post(f"{server}/predict", files={"image": (None, b"x")}))[:2] == (400, "no_image")


def test_the_packets_of_a_response_do_not_wait_for_each_other() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_mistake_at_the_start_is_one_message(sprintnet: Command, model: Path, server: str) -> None:
    taken = sprintnet("serve", str(model), "--port", server.rpartition(":")[2])
    assert taken.returncode == 2
    assert "Address already in use (host 127.0.0.1); choose another" in taken.stderr
    missing = sprintnet("serve", "nowhere.onnx")
    assert missing.returncode == 2
    assert missing.stderr.startswith("sprintnet: nowhere.onnx: No such file")
    assert sprintnet("serve", str(model), "--port", "99999").returncode == 2
    assert sprintnet("serve", str(model), "--host", "no.such.host.invalid").returncode == 2


@given(st.binary(max_size=300), st.sampled_from([FORM, f"{FORM}b", "image/png"]))
@settings(max_examples=50)
def test_no_body_makes_the_server_fail(server: str, content: bytes, kind: str) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="i"; filename="' + content[:40] + b'"\r\n\r\n'
    for body in (content, head + content + b"\r\n--b--\r\n"):
        assert send(server, body, **{"Content-Type": kind}).status_code in (400, 415, 422)


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        ("health", GenerationMode.POSITIVE),
        ("metadata", GenerationMode.POSITIVE),
        ("predict", GenerationMode.POSITIVE),
        ("predict", GenerationMode.NEGATIVE),
    ],
)
def test_the_interface_matches_its_description(server: str, operation: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server}/openapi.json")

    @given(schema.find_operation_by_id(operation).as_strategy(generation_mode=mode))
    @settings(max_examples=30)
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])  # no schema says what a JPEG is

    check()


@pytest.mark.parametrize("query", ["", "?top=1", "?top=1000&activation_maps=true"])
def test_a_real_response_matches_its_description(server: str, query: str) -> None:
    operation = schemathesis.openapi.from_url(f"{server}/openapi.json").find_operation_by_id("predict")
    response = requests.post(f"{server}/predict{query}", files={"image": FILES[0].read_bytes()}, timeout=30)
    assert response.status_code == 200
    operation.validate_response(response)
    shown = response.json()
    shown["images"][0]["top"][0]["probability"] = "high"
    response._content = json.dumps(shown).encode()
    with pytest.raises(AssertionError):
        operation.validate_response(response)


@pytest.mark.parametrize("charset", ["undefined", "punycode", "nonsense", "utf-16"])
def test_no_encoding_of_names_makes_the_server_fail(server: str, charset: str) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="\xff-\xff9.png"\r\n\r\n'
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    response = send(server, head + FILES[0].read_bytes() + b"\r\n--b--\r\n", **{"Content-Type": kind})
    assert response.status_code in (200, 400)
    assert "content-security-policy" in response.headers


def test_an_address_that_is_not_there_is_json(server: str) -> None:
    for path in ("/health/", "/nothing"):
        assert error(CLIENT.get(f"{server}{path}"))[:2] == (404, "not_found")
    assert error(CLIENT.post(f"{server}/predict?top=1001", content=FILES[0].read_bytes()))[:2] == (400, "bad_query")


@pytest.mark.parametrize(
    "words",
    [
        ["--allow-host", "https://x.example"],
        ["--allow-host", ""],
        ["--allow-origin", "https://"],
        ["--allow-origin", "x.example"],
    ],
)
def test_names_that_no_request_has_are_refused_at_the_start(sprintnet: Command, words: list[str]) -> None:
    refused = sprintnet("serve", "nothing", *words)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"sprintnet: {' '.join(words)}: must be a ")
